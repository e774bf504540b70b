"""Unpack a dropped archive: into one folder of ours, whole or not at all, or refuse it.

Nothing in an archive is believed before it was checked: names (clr/data/archive_names.py),
kinds, sizes and counts, as declared and as they come out. Files are made one by one, new,
with no owner, mode, link or time taken from the archive.
"""

from __future__ import annotations

import bz2
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from clr.data.archive_names import Names, refused, suffix_of
from clr.data.folder import printable, task_name
from clr.data.whole import appearing
from clr.errors import DataRefused, UsageError
from clr.settings import Settings

RATIO, RATIO_FROM = 250.0, 64 << 20
"""No archive of images shrinks so far; asked once so many bytes came out."""

_CHUNK = 1 << 20


@dataclass(eq=False)
class Budget:
    """What may still come out of an archive.

    Attributes:
        packed: size of the archive in bytes.
        max_bytes: of all files together.
        max_files: members, folders among them.
    """

    packed: int
    max_bytes: int
    max_files: int
    bytes: int = 0
    files: int = 0

    def member(self, name: str, size: int) -> None:
        """Count a member, of `size` bytes as it declares.

        Raises:
            DataRefused: one too many, or too large.
        """
        self.files += 1
        if self.files > self.max_files:
            raise refused(name, f"is one more than {self.max_files} files", _LARGER)
        if size < 0 or self.bytes + size > self.max_bytes:
            raise refused(name, f"passes the limit of {self.max_bytes >> 20} MB", _LARGER)

    def spend(self, name: str, size: int) -> None:
        """Count bytes that came out.

        Raises:
            DataRefused: too many, in all or for the size of the archive.
        """
        self.bytes += size
        if self.bytes > self.max_bytes:
            raise refused(name, f"passes the limit of {self.max_bytes >> 20} MB", _LARGER)
        if self.bytes > RATIO_FROM and self.bytes > RATIO * self.packed:
            raise refused(name, f"unpacks to more than {RATIO:.0f} times the archive's size")


_LARGER = "Hand it in as a folder, or raise CLR_ARCHIVE_MAX_MB or CLR_ARCHIVE_MAX_FILES."


def unpack(archive: Path, home: Path, settings: Settings, name: str | None = None) -> Path:
    """Unpack an archive that holds one task folder, or the inside of one.

    Args:
        archive: a file, its kind told by its suffix.
        home: folder that will hold the task folder alone; one that is there already is taken
            for the same archive's.
        settings: limits.
        name: the archive's own name, where the file has another.

    Returns:
        ``home/<task>``. The task has the name of the archive's only folder where that can
        name a task, else the archive's.

    Raises:
        DataRefused: something in it, or it, is not to be trusted; nothing was left behind.
        ServiceUnavailable: it cannot be read, or the disk cannot be written or is full.
    """
    there = _unpacked(home)
    if there is not None:
        return there
    with appearing(home, f"{printable(archive.name)} cannot be unpacked") as partial:
        inside = partial / ".inside"  # no name of a task
        inside.mkdir(parents=True)
        names = Names()
        packed = archive.stat().st_size
        budget = Budget(packed, settings.archive_max_mb << 20, settings.archive_max_files)
        with _translated():
            _extract(archive, name or archive.name, inside, names, budget)
        root = names.root()
        task = _task(root, name or archive.name)
        (inside / root).rename(partial / task)
        if root:
            shutil.rmtree(inside)
    return home / task


def _unpacked(home: Path) -> Path | None:
    with suppress(FileNotFoundError):
        found = [one for one in home.iterdir() if one.is_dir() and not one.name.startswith(".")]
        return found[0] if len(found) == 1 else None
    return None


def _task(root: str, archive: str) -> str:
    for name in (root, archive.removesuffix(archive[-len(suffix_of(archive)) :])):
        with suppress(UsageError):
            return task_name(name)
    try:
        return task_name(root or archive[: -len(suffix_of(archive))])
    except UsageError as error:
        raise DataRefused(error.message, fix="Rename the archive or the folder in it.") from error


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the libraries say about bytes that are no archive into a refusal."""
    try:
        yield
    except DataRefused:
        raise
    except (
        EOFError,
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        NotImplementedError,
        UnicodeError,
        ValueError,
        RuntimeError,  # RecursionError is one
        IndexError,
        KeyError,
        OverflowError,
        MemoryError,
    ) as error:
        raise _damaged(str(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(str(error)) from error  # gzip and bz2 have no class of their own for it


def _damaged(what: str) -> DataRefused:
    said = printable(" ".join(what.split()))[:200].rstrip(".")
    return refused(
        "",
        f"is cut off or damaged{f': {said}' if said else ''}",
        "Copy it again; look at it with `unzip -t` or `tar -t` first.",
    )


def _extract(archive: Path, name: str, folder: Path, names: Names, budget: Budget) -> None:
    from clr.data import archive_tar, archive_zip

    suffix = suffix_of(name)
    if suffix == ".zip":
        archive_zip.extract(archive, folder, names, budget)
    elif suffix:
        with archive.open("rb") as file:
            archive_tar.extract(_decompressed(file, suffix), folder, names, budget)
    else:
        raise refused("", "is of a kind that is not read", "Pack it as .zip or .tar.gz.")


def _decompressed(file: IO[bytes], suffix: str) -> IO[bytes]:
    import gzip

    if suffix in (".tar.gz", ".tgz"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if suffix in (".tar.bz2", ".tbz2"):
        return bz2.BZ2File(file)
    if suffix in (".tar.xz", ".txz"):
        from clr.data.archive_tar import Xz

        return Xz(file)  # type: ignore[return-value]
    return file


def write(folder: Path, parts: tuple[str, ...], source: IO[bytes], size: int, out: Budget) -> None:
    """Make one file of exactly `size` bytes below `folder`, where none is.

    Raises:
        DataRefused: the bytes are fewer or more, or too many in all.
        OSError: it cannot be written.
    """
    name = "/".join(parts)
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        _copy(name, source, size, out, file)


def skip(name: str, source: IO[bytes], size: int, out: Budget) -> None:
    """Read over one file: its bytes count, though nobody needs it."""
    _copy(name, source, size, out, None)


def _copy(name: str, source: IO[bytes], size: int, out: Budget, file: IO[bytes] | None) -> None:
    left = size
    while chunk := source.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise refused(name, "holds more than it declares")
        out.spend(name, len(chunk))
        if file is not None:
            file.write(chunk)
    if left:
        raise refused(name, "is cut off", "Copy the archive again.")
