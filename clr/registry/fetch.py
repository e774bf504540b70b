"""Files of the registry on this machine: registered ones themselves or checked copies; of runs."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from clr.core.files import sha256_file, write_atomic
from clr.errors import IntegrityBroken
from clr.registry.faults import calling
from clr.registry.local import scratch
from clr.registry.package import ADAPTER_FILE
from clr.registry.store import Registry, as_default, copies_of_adapters, model_name


def fetch_file(registry: Registry, name: str, version: int, path: str, folder: Path) -> Path:
    """Return a local path of a file of a version of the registered model `name`, unchecked.

    Where the registry's files are on this machine it is the registered file itself;
    elsewhere a copy in `folder`.

    Raises:
        IntegrityBroken: the registry has the version but not the file.
        ServiceUnavailable: it cannot be reached.
    """
    with calling(registry.uri, f"fetch version {version} of {name}"):
        root = registry.client.get_model_version_download_uri(name, str(version))
        if root.startswith("file:"):
            local = Path(unquote(urlsplit(root).path), path)
            if not local.is_file():
                raise _missing(name, version, str(local))
            return local
        return download(registry, f"{root}/{path}", folder, _missing(name, version, path))


def download(registry: Registry, uri: str, folder: Path, missing: IntegrityBroken) -> Path:
    """Copy what MLflow has at an address, a file or a folder, into `folder`; return its place.

    Raises:
        IntegrityBroken: `missing`, where there is none.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with as_default(registry):
            return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except MlflowException as error:
        # a server's answer to one file comes wrapped in a sentence about all that were asked for
        if error.error_code == "RESOURCE_DOES_NOT_EXIST" or "404 Client Error" in str(error):
            raise missing from error
        raise


def _missing(name: str, version: int, path: str) -> IntegrityBroken:
    return IntegrityBroken(
        f"A registered file of {name} version {version} is missing: {path}.",
        fix="Restore it from a backup, or onboard the task again.",
        model=name,
        version=version,
    )


def fetch_adapter(registry: Registry, task: str, version: int, folder: Path) -> Path:
    """Return a local path of the registered adapter file, unchecked; see `fetch_file`."""
    return fetch_file(registry, model_name(task), version, ADAPTER_FILE, folder)


def adapter_path(registry: Registry, task: str, version: int, digest: str) -> Path:
    """Return a local path of an adapter whose bytes have `digest`, checked.

    Raises:
        IntegrityBroken: the registered file is missing, unreadable, or has another digest.
        ServiceUnavailable: the registry cannot be reached.
    """
    copy = _kept(registry, digest)
    # of an embedded registry's file only a link is kept: what is read is that file itself
    kept = copy.is_symlink() if registry.embedded else copy.is_file()
    if kept and copy.is_file() and _digest(copy) == digest:
        return copy
    with scratch(registry) as folder, calling(registry.uri, f"fetch the adapter of {task}"):
        path = fetch_adapter(registry, task, version, folder)
        if (found := _digest(path)) != digest:
            raise IntegrityBroken(
                f"The registered adapter of {task} version {version} should have {digest}, "
                f"but {f'has {found}' if found else 'cannot be read'}: {path}",
                fix="Restore it from a backup, or onboard the task again.",
                task=task,
                version=version,
            )
        if remember_adapter(registry, path, digest):
            return path
        write_atomic(copy, path.read_bytes())
    return copy


def _digest(path: Path) -> str:
    """Return the digest of a file; empty where it cannot be read, as where it is damaged."""
    try:
        return sha256_file(path)
    except OSError:
        return ""


def kept_adapter(state: Path, digest: str) -> Path:
    """Return where under ``CLR_HOME`` an adapter is that was fetched before, unchecked.

    It is for when the registry cannot be opened; there may be nothing.
    """
    return copies_of_adapters(state) / copy_name(digest)


def remember_adapter(registry: Registry, path: Path, digest: str) -> bool:
    """Remember where the registered adapter of `digest` lies, if that is on this machine.

    Asking the database for it takes milliseconds, and a gate needs those of all tasks. The
    file itself is what `adapter_path` reads and checks, each time.

    Args:
        registry: the registry.
        path: as `fetch_adapter` returned it.
        digest: of its bytes.

    Returns:
        False: it is a copy in a scratch folder.
    """
    if path.is_relative_to(registry.cache):
        return False
    link = _kept(registry, digest)
    temporary = link.with_name(f".{secrets.token_hex(8)}.tmp")
    with suppress(OSError):  # the next call asks again
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary.symlink_to(os.path.relpath(path, link.parent))
        temporary.replace(link)
    return True


def _kept(registry: Registry, digest: str) -> Path:
    return registry.cache / copy_name(digest)


def copy_name(digest: str) -> str:
    """Return the name of the local copy of a file with this digest."""
    return f"{digest.removeprefix('sha256:')}.safetensors"


def fetch(registry: Registry, run_id: str, artifact: str, folder: Path) -> Path:
    """Return a local path of a file of a run, unchecked; a copy in `folder` unless it is here.

    Raises:
        IntegrityBroken: the run, or the file in it, is not there.
        ServiceUnavailable: the registry cannot be reached.
    """
    found = fetch_files(registry, run_id, [artifact], folder)
    if artifact not in found:
        raise _gone(run_id, artifact)
    return found[artifact]


def fetch_json(registry: Registry, run_id: str, artifact: str) -> dict[str, Any]:
    """Return the JSON object that a file of a run holds, unchecked.

    Raises:
        IntegrityBroken: the run, or the file in it, is not there, or it holds no such thing.
        ServiceUnavailable: the registry cannot be reached.
    """
    with scratch(registry) as folder:
        try:
            found = json.loads(fetch(registry, run_id, artifact, folder).read_bytes())
        except (OSError, ValueError):
            found = None
    if not isinstance(found, dict):
        raise IntegrityBroken(
            f"The file {artifact} of the run {run_id} cannot be read.",
            fix="Restore it from a backup; `clr verify` names what else was changed.",
            run=run_id,
        )
    return found


def fetch_files(
    registry: Registry, run_id: str, artifacts: Iterable[str], folder: Path
) -> dict[str, Path]:
    """Return local paths of files of a run, unchecked; those that are not there are left out.

    Where the registry's files are on this machine they are the files themselves; elsewhere
    copies in `folder`.

    Raises:
        ServiceUnavailable: the registry cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    found: dict[str, Path] = {}
    with calling(registry.uri, f"download files of run {run_id}"):
        try:
            root = registry.client.get_run(run_id).info.artifact_uri
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return {}
            raise
        for artifact in artifacts:
            if root.startswith("file:"):
                local = Path(unquote(urlsplit(root).path), artifact)
                if local.is_file():
                    found[artifact] = local
                continue
            place = folder / PurePosixPath(artifact).parent
            with suppress(IntegrityBroken):
                found[artifact] = download(
                    registry, f"{root}/{artifact}", place, _gone(run_id, artifact)
                )
    return found


def _gone(run_id: str, artifact: str) -> IntegrityBroken:
    return IntegrityBroken(
        f"The run {run_id or '(none)'} has no file {artifact}.",
        fix="Restore it from a backup, or onboard the task again.",
        run=run_id,
    )
