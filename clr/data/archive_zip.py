"""Members of a zip, as clr/data/archive.py asks for them.

A zip says everything twice, in its directory and before each member, and may say a name a third
time in Unicode. Where these disagree, or members share bytes, programs take different things out
of one file: refused.
"""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from clr.data.archive_names import Names, refused

if TYPE_CHECKING:
    from clr.data.archive import Budget

DIRECTORY = 256 << 20
"""Bytes that the directory of a zip may have; it is read into memory."""

_LOCAL = struct.Struct("<4s5H3L2H")
_SIGNATURE = b"PK\3\4"
_ENCRYPTED, _STREAMED, _STRONG, _UTF8, _MASKED = 0x1, 0x8, 0x40, 0x800, 0x2000
_ELSEWHERE = 0xFFFFFFFF
_EXTRA = struct.Struct("<2H")
_UNICODE_PATH, _BEFORE_NAME = 0x7075, 5
"""Extra field that says a name again in UTF-8, after its version and a checksum."""

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2}


def extract(archive: Path, folder: Path, names: Names, budget: Budget) -> None:
    """Write the members of a zip below `folder`; all are checked before the first is written.

    Args:
        archive: the file.
        folder: a new folder.
        names: collects what is there.
        budget: what may come out.

    Raises:
        DataRefused: a member is not to be trusted.
        zipfile.BadZipFile, zlib.error, EOFError, OSError: no zip, or cannot be written.
    """
    from clr.data.archive import skip, write

    with archive.open("rb") as file, zipfile.ZipFile(cast("IO[bytes]", _Guarded(file))) as whole:
        members = whole.infolist()
        declared, places = 0, []
        for member in members:
            name = _name(member)
            _check(name, member)
            budget.member(name, declared + member.file_size)
            declared += member.file_size
            places.append(names.add(name, folder=member.is_dir()))
        _require_apart(file, whole, members)
        for member, parts in zip(members, places, strict=True):
            if member.is_dir():
                folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)
                continue
            with whole.open(member) as source:
                if parts:
                    write(folder, parts, source, member.file_size, budget)
                else:
                    skip(member.filename, source, member.file_size, budget)


def _name(member: zipfile.ZipInfo) -> str:
    """Return a member's name; `zip` writes UTF-8 without saying so.

    Raises:
        DataRefused: it is in an encoding that nobody names, or another one in Unicode.
    """
    raw = _raw(member)
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise refused(
            raw.decode("ascii", "backslashreplace"),
            "has a name that is not UTF-8, and the archive does not say what it is",
            "Pack the task folder again on a system whose language setting is UTF-8, or rename "
            "the folders and files: a to z and digits are the same everywhere.",
        ) from error
    _require_one_name(name, raw, member.extra)
    return name


def _raw(member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member's name, which `zipfile` has decoded as one of these two."""
    return member.orig_filename.encode("utf-8" if member.flag_bits & _UTF8 else "cp437")


def _require_one_name(name: str, raw: bytes, extra: bytes) -> None:
    at = 0
    while at + _EXTRA.size <= len(extra):
        kind, size = _EXTRA.unpack_from(extra, at)
        at += _EXTRA.size
        if kind == _UNICODE_PATH and extra[at + _BEFORE_NAME : at + size] != raw:
            raise refused(name, "is described in two ways: its name in Unicode is another one")
        at += size


def _check(name: str, member: zipfile.ZipInfo) -> None:
    if member.flag_bits & (_ENCRYPTED | _STRONG | _MASKED):
        raise refused(name, "is encrypted", "Pack it without a password.")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise refused(name, "is a symbolic link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refused(name, "is a device or a pipe")
    if (kind == stat.S_IFDIR) != member.is_dir() and kind:
        raise refused(name, "is a folder by its mode and none by its name, or the reverse")
    if member.is_dir() and member.file_size:
        raise refused(name, "is a folder with content")
    if member.compress_type not in _METHODS:
        raise refused(name, "is packed in a way that is not read", "Pack it with plain `zip`.")


def _require_apart(file: IO[bytes], whole: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> None:
    """Compare each member's own header with the directory; no two may share a byte."""
    end = 0
    for member in sorted(members, key=lambda one: one.header_offset):
        raw = _raw(member)
        name = raw.decode()
        if member.header_offset < end:
            raise refused(name, "shares bytes with another member")
        if member.header_offset > end and not end:
            raise refused(name, "is not where the archive begins: something lies before it")
        file.seek(member.header_offset)
        header = file.read(_LOCAL.size)
        if len(header) < _LOCAL.size:
            raise refused(name, "is cut off", "Copy the archive again.")
        signature, _, flags, method, _, _, crc, packed, size, named, extra = _LOCAL.unpack(header)
        agrees = signature == _SIGNATURE and method == member.compress_type
        agrees &= not (flags ^ member.flag_bits) & (_ENCRYPTED | _STREAMED | _UTF8)
        agrees &= file.read(named) == raw
        if not flags & _STREAMED:  # else the sizes follow the data
            agrees &= crc == member.CRC
            agrees &= packed in (member.compress_size, _ELSEWHERE)
            agrees &= size in (member.file_size, _ELSEWHERE)
        if not agrees:
            raise refused(name, "is described in two ways, which do not agree")
        _require_one_name(name, raw, file.read(extra))
        end = member.header_offset + _LOCAL.size + named + extra + member.compress_size
        if end > whole.start_dir:
            raise refused(name, "reaches into the archive's directory")


class _Guarded:
    """A file that is not read into memory whole, whatever size its directory claims."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= DIRECTORY:
            left = self._file.seek(0, 1), self._file.seek(0, 2)
            self._file.seek(left[0])
            if size > DIRECTORY or left[1] - left[0] > DIRECTORY:
                raise refused("", f"has a directory of more than {DIRECTORY >> 20} MB")
        return self._file.read(size)
