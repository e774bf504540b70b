"""What the registry keeps on this machine: locks between its processes, and scratch folders."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clr.core.files import sha256_bytes
from clr.errors import ServiceUnavailable
from clr.registry.faults import calling

if TYPE_CHECKING:
    from clr.registry.store import Registry

LOCK_SECONDS = 120.0
_STALE_SECONDS = 86_400.0


@contextmanager
def locked(registry: Registry, name: str, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Let one process (and thread) of this installation do `name` at a time.

    A killed process frees its place. Between machines nothing is locked: there the
    registry's own version numbers decide who was first.

    Raises:
        ServiceUnavailable: somebody else held it for `seconds`, or the file cannot be written.
    """
    with calling(registry.uri, f"lock {name}"):
        folder = registry.cache / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f"{name}.lock").open("ab")
    with file:
        give_up = time.monotonic() + seconds
        while not _taken(file.fileno()):
            if time.monotonic() > give_up:
                raise ServiceUnavailable(
                    f"Another process has held the lock for {seconds:.0f} s: {file.name}.",
                    fix="Wait for it or end it, then run the same command again.",
                )
            time.sleep(0.02)
        yield


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def probe_write(registry: Registry) -> None:
    """See that an embedded registry's database can be written now; a server tells when asked.

    Raises:
        ServiceUnavailable: it is read-only, or another process keeps it locked.
    """
    if not registry.embedded:
        return
    file = registry.uri.removeprefix("sqlite:///")
    with (
        calling(registry.uri, "prepare to write"),
        closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as database,
    ):
        # taking the write lock is not enough: of a read-only file SQLite only pretends to give it
        database.execute("BEGIN IMMEDIATE")
        database.execute("CREATE TABLE clr_probe (x)")
        database.execute("ROLLBACK")


@contextmanager
def scratch(registry: Registry) -> Iterator[Path]:
    """Give an empty folder that is gone afterwards; what killed processes left is swept.

    It lies under ``CLR_HOME``, where a user has made room, not in ``/tmp``.
    """
    with calling(registry.uri, "make a temporary folder"):
        root = registry.cache / "scratch"
        root.mkdir(parents=True, exist_ok=True)
        for left in root.iterdir():
            with suppress(OSError):
                if _is_stale(left):
                    shutil.rmtree(left)
        folder = Path(tempfile.mkdtemp(dir=root, prefix=f"{os.getpid()}-{_processes()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _processes() -> str:
    """Name the machine or container whose processes the numbers count: they may share a disk."""
    try:
        numbers = Path("/proc/self/ns/pid").readlink()
    except OSError:
        numbers = Path()
    return sha256_bytes(f"{socket.gethostname()} {numbers}".encode())[7:15]


def _is_stale(folder: Path) -> bool:
    """Say whether a scratch folder's process is gone, or, where that is unclear, a day passed."""
    owner, _, rest = folder.name.partition("-")
    if owner.isdecimal() and rest.startswith(f"{_processes()}-"):
        try:
            os.kill(int(owner), 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
    return time.time() - folder.stat().st_mtime > _STALE_SECONDS
