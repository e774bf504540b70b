"""Replace one task below ``data/`` whole: the new content, or the old one, never a mixture.

Everything happens in ``data/.clr-tmp`` (same disk, ignored by DVC):

    new/           the new content, complete and on disk before anything is moved
    journal.json   what is being replaced, and the text of ``data.dvc`` before
    old/           the content that was there

The act counts as done when ``data.dvc`` pins it. `recover` undoes what a killed
process left undone; since replaced content is pinned (and so in DVC's cache) and new
content still is in its source, neither direction loses anything.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from clr.core.files import canonical_json, write_atomic
from clr.data.dvc import TEMPORARY
from clr.data.listing import Listing, md5_and_sha256, pinned_oid
from clr.errors import DataRefused, IntegrityBroken, ServiceUnavailable

_CHUNK = 1 << 20
_WRITERS = 16  # one fsync at a time takes ten times as long


@contextmanager
def replacing(workspace: Path, task: str, staged: bool) -> Iterator[None]:
    """Put ``new/`` in the place of ``data/<task>`` while the body pins it.

    Args:
        workspace: the workspace.
        task: name of the task.
        staged: whether `stage` has made new content; else the folder stays as it is
            and only ``data.dvc`` is guarded.

    Raises:
        ServiceUnavailable: the disk refuses; everything is as before.
    """
    temporary = workspace / "data" / TEMPORARY
    journal = {"task": task, "staged": staged, "data.dvc": _read(workspace / "data.dvc")}
    try:
        write_atomic(temporary / "journal.json", canonical_json(journal))
        if staged:
            _swap(workspace / "data" / task, temporary)
        yield
    except BaseException:
        with suppress(OSError):
            recover(workspace)
        raise
    (temporary / "journal.json").unlink()
    shutil.rmtree(temporary, ignore_errors=True)


def _swap(folder: Path, temporary: Path) -> None:
    try:
        if folder.exists():
            folder.rename(temporary / "old")
        (temporary / "new").rename(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def recover(workspace: Path) -> None:
    """Bring ``data/`` and ``data.dvc`` to a whole state after a killed `replacing`.

    Raises:
        OSError: the disk refuses.
    """
    temporary = workspace / "data" / TEMPORARY
    try:
        journal = json.loads((temporary / "journal.json").read_bytes())
    except FileNotFoundError:
        shutil.rmtree(temporary, ignore_errors=True)
        return
    pinned = workspace / "data.dvc"
    if _pinned_since(workspace, journal["data.dvc"]):
        (temporary / "journal.json").unlink()
        shutil.rmtree(temporary, ignore_errors=True)
        return
    if _read(pinned) != journal["data.dvc"]:
        write_atomic(pinned, journal["data.dvc"].encode())
    if journal["staged"] and not (temporary / "new").exists():
        folder = workspace / "data" / journal["task"]
        if folder.exists():
            folder.rename(temporary / "new")
    if (temporary / "old").exists():
        (temporary / "old").rename(workspace / "data" / journal["task"])
    (temporary / "journal.json").unlink()
    shutil.rmtree(temporary, ignore_errors=True)


def _pinned_since(workspace: Path, before: str) -> bool:
    """Whether ``data.dvc`` is whole and no longer what it was."""
    if _read(workspace / "data.dvc") == before:
        return False
    try:
        pinned_oid(workspace)
    except IntegrityBroken:
        return False  # DVC does not write it atomically
    return True


def stage(workspace: Path, sources: Mapping[str, tuple[Path, str]]) -> None:
    """Copy files to ``new/`` and see that they are on the disk.

    Args:
        workspace: the workspace.
        sources: path below the task folder to (file, its md5).

    Raises:
        DataRefused: a source's bytes are no longer those.
        ServiceUnavailable: the disk is full or not writable.
    """
    new = workspace / "data" / TEMPORARY / "new"
    try:
        for folder in {(new / path).parent for path in sources}:
            folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_WRITERS) as writers:
            for path, found in zip(
                sources,
                writers.map(lambda path: _copy(sources[path][0], new / path), sources),
                strict=True,
            ):
                if found != sources[path][1]:
                    raise changed([path])
    except OSError as error:
        shutil.rmtree(new.parent, ignore_errors=True)
        raise _unwritable(new, error) from error
    except BaseException:
        shutil.rmtree(new.parent, ignore_errors=True)
        raise


def _copy(source: Path, target: Path) -> str:
    """Copy, wait until it is on the disk, and return the md5 of what was copied."""
    digest = hashlib.md5(usedforsecurity=False)
    with source.open("rb") as read, target.open("wb") as write:
        while chunk := read.read(_CHUNK):
            digest.update(chunk)
            write.write(chunk)
        write.flush()
        os.fsync(write.fileno())
    return digest.hexdigest()


def digests(sources: Mapping[str, tuple[Path, str]]) -> Listing:
    """Return the md5 of each file, read once, its sha256 compared with the given one.

    Args:
        sources: path below the task folder to (file, ``sha256:…`` or "" for any).

    Raises:
        DataRefused: files are missing or have changed since they were validated.
    """
    listing: Listing = {}
    different = []
    for path, (file, expected) in sources.items():
        try:
            md5, sha256 = md5_and_sha256(file)
        except OSError:
            md5, sha256 = "", "missing"
        if expected not in ("", sha256) or not md5:
            different.append(path)
        listing[path] = md5
    if different:
        raise changed(different)
    return listing


def changed(paths: list[str]) -> DataRefused:
    """Return the error for files that changed while they were being onboarded."""
    return DataRefused(
        f"{len(paths)} files changed after they were validated: {', '.join(paths[:5])}.",
        fix="Wait until nothing writes to the folder any more, then run the same again.",
        files=paths,
    )


def _unwritable(path: Path, error: OSError) -> ServiceUnavailable:
    why = {errno.ENOSPC: "the disk is full", errno.EROFS: "the disk is read-only"}
    return ServiceUnavailable(
        f"Cannot write {path}: {why.get(error.errno or 0, error.strerror)}.",
        fix="Free some space or make the workspace writable, then run the same again.",
        path=str(path),
    )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
