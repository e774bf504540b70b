"""Files of a task as a commit pins them, out of DVC's cache or its remote, each compared."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clr.core.files import write_atomic
from clr.data import dvc, listing, objects
from clr.data.archive_names import checked_parts
from clr.data.listing import Listing
from clr.data.whole import appearing
from clr.errors import IntegrityBroken, ServiceUnavailable
from clr.settings import Settings

THREADS = 8


def tasks_of(settings: Settings, oid: str) -> dict[str, Listing]:
    """Return the files of each task that a ``.dir`` object of ``data/`` holds; "" holds none.

    Raises:
        IntegrityBroken: the object is damaged.
        ServiceUnavailable: it is neither in the cache nor in the remote.
    """
    by_task: dict[str, Listing] = {}
    for path, md5 in _listing(settings, oid).items() if oid else ():
        task, _, rest = path.partition("/")
        if rest:
            by_task.setdefault(task, {})[rest] = md5
    return by_task


def _listing(settings: Settings, oid: str) -> Listing:
    if oid == listing.EMPTY_DIR:
        return {}
    with dvc.open_repo(settings) as repo:
        content = objects.fetch_object(repo, oid)
    if content is None:
        raise ServiceUnavailable(
            f"The list of files {oid} that data.dvc pins is not in the DVC remote.",
            fix="Run `dvc push` where the commit was made; it is tried again.",
        )
    return listing.read_listing(content, oid)


def restore(settings: Settings, task: str, files: Listing, home: Path) -> Path:
    """Write a task's files into ``home/<task>``, which is there whole or not at all.

    Raises:
        DataRefused: a path cannot be kept.
        IntegrityBroken: an object has other bytes than its name says.
        ServiceUnavailable: an object is nowhere, or the disk cannot be written.
    """
    folder = home / task
    if folder.is_dir():
        return folder
    with appearing(home, f"{task} cannot be restored") as partial, dvc.open_repo(settings) as repo:

        def write(item: tuple[str, str]) -> None:
            path, md5 = item
            data = _compared(objects.fetch_object(repo, md5), path, md5)
            write_atomic((partial / task).joinpath(*checked_parts(path)), data)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(write, files.items()))
    return folder


def _compared(data: bytes | None, path: str, md5: str) -> bytes:
    if data is None:
        raise ServiceUnavailable(
            f"{path} ({md5}) is neither in DVC's cache nor in its remote.",
            fix="Run `dvc push` where the commit was made; it is tried again.",
        )
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
        raise IntegrityBroken(
            f"DVC's object {md5} of {path} is corrupt.",
            fix="Delete it in cache and remote, and push it again from where it is whole.",
        )
    return data
