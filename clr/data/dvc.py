"""The workspace's DVC repository: opened, configured, and where its objects are.

DVC is used as a library (`dvc.repo.Repo`): a call costs two to three seconds less
than its command line, and errors arrive as exceptions (clr/data/dvc_calls.py). All it
writes lies in the workspace and under ``CLR_HOME``: its state database would otherwise
go to ``/var/tmp``.

Source: DVC 3.67, `dvc/repo/__init__.py`, `dvc/config.py`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from clr.core.files import write_atomic
from clr.data.dvc_calls import load, translated
from clr.data.repository import git_root
from clr.errors import IntegrityBroken
from clr.settings import Settings

REMOTE = "clr"
TEMPORARY = ".clr-tmp"
IGNORED = (
    "/data/**/.*",
    "[Tt]humbs.db",
    "[Dd]esktop.ini",
    "__MACOSX",
    "/.clr",
    "/.venv",
    "/incoming",
    "/quarantine",
)
"""What DVC must skip: hidden files and clutter, and folders it would search for its files."""


@contextmanager
def open_repo(settings: Settings) -> Iterator[Any]:
    """Open the workspace's DVC repository, quiet and configured from the settings.

    Yields:
        A `dvc.repo.Repo`.

    Raises:
        ServiceUnavailable: the repository or its configuration cannot be used.
    """
    workspace = settings.workspace.absolute()
    with translated("open the workspace", workspace):
        configure(settings)
        from dvc.repo import Repo

        repo = Repo(str(workspace), config=_own_config(settings))
        repo.scm_context.quiet = True
    try:
        yield repo
    finally:
        repo.close()


def _own_config(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return what holds in this process, whatever another wrote into the shared file meanwhile."""
    core: dict[str, Any] = {"site_cache_dir": str(_state_folder(settings))}
    if not git_root(settings.workspace.absolute()):
        core["no_scm"] = True
    return {"core": core, "remote": {REMOTE: {"url": remote_url(settings)}}}


def configure(settings: Settings) -> None:
    """Write remote and state folder into ``.dvc/config.local``, keeping what else is there.

    Whoever runs ``dvc pull`` or ``dvc push`` by hand then uses the same.

    Raises:
        OSError: it cannot be written.
        IntegrityBroken: a configuration there cannot be read.
    """
    workspace = settings.workspace.absolute()
    state = _state_folder(settings)
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)  # DVC makes the folders below it writable for everybody
    path = workspace / ".dvc" / "config.local"
    old = path.read_bytes() if path.is_file() else b""
    config = _parsed(path, old)
    config.setdefault("core", {})["site_cache_dir"] = str(state)
    if not _has_default_remote(workspace):
        config["core"].setdefault("remote", REMOTE)
    config.setdefault(f'remote "{REMOTE}"', {})["url"] = remote_url(settings)
    out = io.BytesIO()
    config.write(out)
    if out.getvalue() != old:
        write_atomic(path, out.getvalue())
    ignore_patterns(workspace)


def _state_folder(settings: Settings) -> Path:
    return settings.state / "dvc"


def ignore_patterns(workspace: Path) -> None:
    """See to it that DVC skips our temporary folder and everything that is not data.

    Without the latter DVC looks for its files in virtual environments and in all state.

    Raises:
        IntegrityBroken: ``.dvcignore`` is not UTF-8.
    """
    path = workspace / ".dvcignore"
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:  # DVC reads it the same way
        raise _unreadable(path, error) from error
    missing = [pattern for pattern in IGNORED if pattern not in text.splitlines()]
    if missing:
        text += "" if text.endswith("\n") or not text else "\n"
        write_atomic(path, (text + "\n".join(missing) + "\n").encode())


def remote_url(settings: Settings) -> str:
    """Return the remote: the setting (a folder relative to the workspace), or ``CLR_HOME/remote``.

    An ``s3://bucket/prefix`` needs the extra ``s3``; credentials and endpoint come
    from the usual ``AWS_*`` variables or from ``dvc remote modify clr``.
    """
    if not settings.dvc_remote:
        return str(settings.state / "remote")
    if "://" in settings.dvc_remote:
        return settings.dvc_remote
    folder = Path(settings.dvc_remote).expanduser()
    return str(settings.workspace.absolute() / folder)


def _has_default_remote(workspace: Path) -> bool:
    path = workspace / ".dvc" / "config"
    shared = _parsed(path, path.read_bytes()) if path.is_file() else {}
    return "remote" in shared.get("core", {})


def _parsed(path: Path, data: bytes) -> Any:
    from configobj import ConfigObj, ConfigObjError  # type: ignore[import-untyped]

    try:
        return ConfigObj(io.BytesIO(data), encoding="utf-8", default_encoding="utf-8")
    except (ConfigObjError, ValueError) as error:  # the latter: it is not UTF-8
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> IntegrityBroken:
    return IntegrityBroken(
        f"DVC's configuration {path} cannot be read: {error}.",
        fix="Correct it, or bring it back: git checkout .dvc/config .dvcignore.",
    )


def cache_folder(workspace: Path) -> Path:
    """Return the folder of DVC's cache, which its configuration may have moved.

    Raises:
        IntegrityBroken: that cannot be read.
    """
    return _cache_folder(workspace, tuple(map(stamp, _configurations(workspace))))


@lru_cache(maxsize=16)  # where they may lie stays the same in a process; thousands of tasks ask
def _configurations(workspace: Path) -> tuple[Path, ...]:
    load()
    from dvc.config import Config

    folders = [workspace / ".dvc", *(Path(Config.get_dir(one)) for one in ("global", "system"))]
    return tuple(folder / name for folder in folders for name in ("config", "config.local"))


@lru_cache(maxsize=16)  # reading configurations takes 2 ms
def _cache_folder(workspace: Path, _: tuple[tuple[int, int, int] | None, ...]) -> Path:
    from dvc.config import Config, ConfigError

    try:
        configured = Config(str(workspace / ".dvc"), validate=False)["cache"].get("dir")
    except ConfigError as error:
        raise _unreadable(workspace / ".dvc" / "config", error) from error
    return Path(configured) if configured else workspace / ".dvc" / "cache"


def stores(settings: Settings) -> list[Path]:
    """Return the folders that hold DVC's objects: its cache, and the remote where it is one."""
    cache, remote = cache_folder(settings.workspace.absolute()), remote_url(settings)
    return [cache] if "://" in remote else [cache, Path(remote)]


def stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with a file's content; None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
