"""Look at one file of a task folder: confined to that folder, and never trusted.

`read_confined` opens only regular files inside the task folder; `inspect` decodes the
bytes with the same function that training and serving use (`clr.core.images`), so that
what passes here can be decoded there.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from clr.core.depth import FORMATS, is_deep
from clr.core.files import sha256_bytes
from clr.data.folder import printable
from clr.data.jpeg import has_end
from clr.errors import DataRefused

OUTSIDE = "points outside the task folder"

_MAGIC = {  # what people drop by mistake: named, so that they know what to convert
    b"ftypheic": "HEIC",
    b"ftypheix": "HEIC",
    b"ftypmif1": "HEIC",
    b"ftypavif": "AVIF",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"PK\x03\x04": "ZIP",
}


class UnreadableError(Exception):
    """A path of the task folder was not opened or not read; the text says why."""


@dataclass(frozen=True)
class Look:
    """What one file's bytes say about it.

    Attributes:
        format: Pillow's name of the format; empty where unknown.
        mode: Pillow's mode as stored (``L``, ``RGB``, ``CMYK``, …).
        width: pixels, as stored.
        height: pixels, as stored.
        bytes: size of the file.
        sha256: ``sha256:…`` of the file; empty where it was not read.
        phash: perceptual hash, 16 hex digits (64 bits).
        mean: mean grey level, 0 … 255.
        std: standard deviation of the grey levels.
        error: why the file is refused; empty where it is not.
    """

    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    bytes: int = 0
    sha256: str = ""
    phash: str = ""
    mean: float = 0.0
    std: float = 0.0
    error: str = ""


def max_bytes(max_pixels: int) -> int:
    """Return the largest file size that an image of `max_pixels` can honestly need."""
    return 4 * max_pixels + (1 << 20)


def read_confined(root: Path, relative: str, *, limit: int) -> bytes:
    """Return the bytes of a regular file at or below `root`.

    Links inside the folder are followed, links out of it are not. Devices, sockets and
    pipes are never read, so that no name in a task folder can block or leak.

    Args:
        root: the task folder, resolved.
        relative: path below it.
        limit: largest size in bytes.

    Raises:
        UnreadableError: anything else than such a file, too large, or the system refuses.
    """
    try:
        real = Path(os.path.realpath(root / relative, strict=True))
        if not real.is_relative_to(root):
            raise UnreadableError(OUTSIDE)
        handle = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableError("is not a regular file")
            if status.st_size > limit:
                raise UnreadableError(f"is too large: {status.st_size:,} bytes, at most {limit:,}")
            return file.read(limit + 1)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a pipe without a writer
            raise UnreadableError("is not a regular file") from error
        if error.errno == errno.ELOOP:
            raise UnreadableError("is a link that leads in a circle") from error
        if error.errno == errno.ENOENT:
            raise UnreadableError("is a link to nothing, or is gone") from error
        raise UnreadableError(f"cannot be read: {error.strerror}") from error


def inspect(data: bytes, *, max_pixels: int) -> Look:
    """Decode an image file and measure it.

    Accepted: 8 bits a channel of any colour model (grey, RGB, palette, CMYK, alpha, which
    is laid on white). Refused, with the reason in `Look.error`: empty and damaged files,
    other formats, more than 8 bits a channel (what a conversion keeps is the user's
    choice), several frames or pages, and headers that declare more than `max_pixels`,
    which are refused before any pixel is decoded.
    """
    known: dict[str, str | int] = {"bytes": len(data), "sha256": sha256_bytes(data)}
    if not data:
        return Look(error="is empty (0 bytes)", **known)  # type: ignore[arg-type]
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as header:
            width, height = header.size
            known |= {
                "format": "JPEG" if header.format == "MPO" else header.format or "",
                "mode": header.mode,
                "width": width,
                "height": height,
            }
            reason = _refused(header, max_pixels)
        if reason:
            return Look(error=reason, **known)  # type: ignore[arg-type]
        phash, mean, std = _measured(data, max_pixels)
        if known["format"] == "JPEG" and not has_end(data):
            return Look(error="is damaged: its image data does not end", **known)  # type: ignore[arg-type]
    except Image.DecompressionBombError:
        reason = f"declares far more than {max_pixels:,} pixels"
    except UnidentifiedImageError:
        kind = _guess(data)
        known["format"] = kind
        reason = f"is a {kind} file, which is not accepted" if kind else "is not an image"
    except DataRefused as error:
        reason = printable(error.message.rstrip("."))
    except Exception as error:  # decoders raise anything on hostile bytes; a scan must go on
        reason = f"cannot be decoded: {printable(str(error)).rstrip('.')}"
    else:
        return Look(phash=phash, mean=mean, std=std, **known)  # type: ignore[arg-type]
    return Look(error=reason, **known)  # type: ignore[arg-type]


def grey(data: bytes, *, max_pixels: int) -> Image.Image:
    """Decode an image as training does, and return it in grey (mode ``L``).

    Raises:
        DataRefused: it cannot be decoded.
    """
    from clr.core.images import open_image

    return open_image(data, max_pixels=max_pixels).convert("L")


def _refused(header: Image.Image, max_pixels: int) -> str:
    width, height = header.size
    if width * height > max_pixels:
        return f"declares {width} x {height} pixels, more than {max_pixels:,}"
    if header.format != "MPO" and (frames := getattr(header, "n_frames", 1)) > 1:
        return f"is animated or has several pages ({frames} frames); keep one"
    if is_deep(header):
        return "has more than 8 bits a channel; convert it to 8 bits with one scale for all images"
    return ""


def _measured(data: bytes, max_pixels: int) -> tuple[str, float, float]:
    import imagehash

    image = grey(data, max_pixels=max_pixels)
    counts = image.histogram()
    pixels = sum(counts)
    mean = sum(level * count for level, count in enumerate(counts)) / pixels
    squares = sum((level - mean) ** 2 * count for level, count in enumerate(counts))
    return str(imagehash.phash(image)), round(mean, 2), round(sqrt(squares / pixels), 2)


def _guess(data: bytes) -> str:
    head = data[:16].lstrip()
    return next((kind for magic, kind in _MAGIC.items() if magic in head), "")
