"""Registered files on this machine: the registered ones themselves, or checked copies."""

from __future__ import annotations

import tempfile
from pathlib import Path

from clr.core.files import sha256_file, write_atomic
from clr.errors import IntegrityBroken
from clr.registry.faults import calling
from clr.registry.package import ADAPTER_FILE
from clr.registry.store import Registry, as_default, model_name


def fetch_file(
    registry: Registry, name: str, version: int, path: str, folder: Path
) -> Path:
    """Return a local path of a file of a version of the registered model `name`, unchecked.

    Where the registry's files are on this machine it is the registered file itself;
    elsewhere a copy in `folder`.
    """
    with calling(registry.uri, f"fetch version {version} of {name}"):
        root = registry.client.get_model_version_download_uri(name, str(version))
        if root.startswith("file:"):
            from mlflow.utils.file_utils import local_file_uri_to_path

            return Path(local_file_uri_to_path(root), path)
        from mlflow.artifacts import download_artifacts

        folder.mkdir(parents=True, exist_ok=True)
        with as_default(registry):
            return Path(
                download_artifacts(artifact_uri=f"{root}/{path}", dst_path=str(folder))
            )


def fetch_adapter(registry: Registry, task: str, version: int, folder: Path) -> Path:
    """Return a local path of the registered adapter file, unchecked; see `fetch_file`."""
    return fetch_file(registry, model_name(task), version, ADAPTER_FILE, folder)


def adapter_path(registry: Registry, task: str, version: int, digest: str) -> Path:
    """Return a local path of an adapter whose bytes have `digest`, checked.

    Raises:
        IntegrityBroken: the registered file is missing or has another digest.
    """
    copy = registry.cache / f"{digest.removeprefix('sha256:')}.safetensors"
    if not registry.embedded and copy.is_file() and sha256_file(copy) == digest:
        return copy
    with tempfile.TemporaryDirectory() as temporary:
        path = fetch_adapter(registry, task, version, Path(temporary))
        found = sha256_file(path) if path.is_file() else "missing"
        if found != digest:
            raise IntegrityBroken(
                f"The registered adapter of {task} version {version} should have {digest}, "
                f"but is {found}: {path}",
                fix="Restore it from a backup, or onboard the task again.",
                task=task,
                version=version,
            )
        if Path(temporary) in path.parents:
            registry.cache.mkdir(parents=True, exist_ok=True)
            write_atomic(copy, path.read_bytes())
            return copy
    return path
