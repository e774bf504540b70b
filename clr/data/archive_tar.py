"""Members of a tar, read once from front to end, as clr/data/archive.py asks for them."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from clr.data.archive_names import Names, refused

if TYPE_CHECKING:
    from clr.data.archive import Budget

BLOCK = tarfile.BLOCKSIZE
HEADERS = 1 << 20
"""Bytes that the headers of one member may have: their size is whatever a hostile one says."""

XZ_MEMORY = 256 << 20
"""What an .xz may ask for in memory; `xz -9` asks for 65 MB."""

_KINDS = {
    tarfile.SYMTYPE: "is a symbolic link",
    tarfile.LNKTYPE: "is a hard link",
    tarfile.CHRTYPE: "is a device",
    tarfile.BLKTYPE: "is a device",
    tarfile.FIFOTYPE: "is a pipe",
    tarfile.GNUTYPE_SPARSE: "is a sparse file",
}


def extract(stream: IO[bytes], folder: Path, names: Names, budget: Budget) -> None:
    """Write the members of a decompressed tar below `folder`.

    Args:
        stream: read once, never backwards.
        folder: a new folder.
        names: collects what is there.
        budget: what may come out.

    Raises:
        DataRefused: a member is not to be trusted.
        tarfile.TarError, EOFError, OSError: the bytes are no tar, or cannot be written.
    """
    from clr.data.archive import skip, write

    blocks = _Blocks(stream)
    with tarfile.open(fileobj=blocks, mode="r|", bufsize=BLOCK) as tar:  # type: ignore[call-overload]
        while True:
            blocks.header_bytes = HEADERS
            member = tar.next()
            if member is None:
                break
            blocks.header_bytes = None
            tar.members = []  # it would keep them all
            _check(member, folder)
            budget.member(member.name, member.size)
            parts = names.add(member.name, folder=member.isdir())
            if member.isdir():
                folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)
                continue
            source = tar.extractfile(member)
            if source is None:
                raise refused(member.name, "is no plain file")
            if parts:
                write(folder, parts, source, member.size, budget)
            else:
                skip(member.name, source, member.size, budget)
    blocks.require_end()


def _check(member: tarfile.TarInfo, folder: Path) -> None:
    if member.type in _KINDS or member.sparse is not None:
        raise refused(member.name, _KINDS.get(member.type, "is a sparse file"))
    if not (member.isreg() or member.isdir()):
        raise refused(member.name, "is neither a file nor a folder")
    try:
        tarfile.data_filter(member, str(folder))  # Python's own opinion, besides ours
    except tarfile.FilterError as error:
        raise refused(member.name, "leads out of the folder") from error


class _Blocks:
    """Hands on the stream block by block, and knows how much of it were headers.

    `tarfile` takes a damaged header for the end of the archive, and reads a header of any
    size into memory.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._last = b""
        self.header_bytes: int | None = HEADERS

    def read(self, size: int) -> bytes:
        if self.header_bytes is not None:
            self.header_bytes -= size
            if self.header_bytes < 0:
                raise refused("", f"has headers of more than {HEADERS >> 20} MB")
        data = self._stream.read(size)
        while 0 < len(data) < size:  # a last block that is no whole one
            more = self._stream.read(size - len(data))
            if not more:
                break
            data += more
        self._last = data
        return data

    def require_end(self) -> None:
        """See that the archive ended as one does: zeros, and nothing after them.

        Raises:
            DataRefused: it was cut off, or a header is damaged.
        """
        if self._last != bytes(BLOCK):
            raise refused("", "is cut off or damaged", "Copy it again.")
        left = HEADERS
        while data := self._stream.read(BLOCK):
            left -= len(data)
            if data.strip(b"\0") or left < 0:
                raise refused("", "goes on after its end", "Pack the task folder again.")


class Xz(io.RawIOBase):
    """A decompressed .xz, with a limit on the memory that it may ask for (Python's has none)."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; none at the end.

        Raises:
            EOFError: the file is cut off.
            lzma.LZMAError: it is damaged, asks for too much memory, or goes on after its end.
        """
        while not self._decompressor.eof:
            more = b""
            if self._decompressor.needs_input:
                more = self._file.read(io.DEFAULT_BUFFER_SIZE)
                if not more:
                    raise EOFError("the end is missing")
            data = self._decompressor.decompress(more, size)
            if data:
                return data
        if (self._decompressor.unused_data + self._file.read(BLOCK)).strip(b"\0"):
            raise lzma.LZMAError("it goes on after its end")
        return b""
