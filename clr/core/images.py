"""Images: decoded once into uint8 tensors of one size, normalised batch by batch."""

from __future__ import annotations

import io
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from clr.core.depth import FORMATS, is_deep
from clr.core.files import sha256_bytes
from clr.errors import DataRefused, UsageError

MAX_PIXELS = 50_000_000
MAX_SIDE = 65_535
"""JPEG's limit. Resizing needs memory for the longest side alone: GBs for 1 × 50,000,000."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation (CIPA DC-008, tag 274)."""
_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class TooManyPixels(DataRefused):
    """An image is larger than is allowed; nothing of it was decoded."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes a network's input; part of an adapter's identity.

    Attributes:
        size: side of the square in pixels; images are stretched to it, nothing is cut off.
        mean: per channel, for pixels in 0 … 1.
        std: per channel, for pixels in 0 … 1.
        interpolation: ``bilinear`` or ``bicubic``, with anti-aliasing (Pillow's).
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if type(self.size) is not int or not 16 <= self.size <= 1024:
            raise UsageError(f"The image size {self.size!r} is not between 16 and 1024 pixels.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UsageError("Mean and standard deviation must have 3 values each, std above 0.")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)):
            raise UsageError("Mean and standard deviation must be finite.")
        if self.interpolation not in _RESAMPLING:
            raise UsageError(
                f"Unknown interpolation {self.interpolation!r}.", fix="Use bilinear or bicubic."
            )


def open_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to 8-bit RGB, turned as its EXIF says, alpha laid on white.

    Raises:
        DataRefused: not an image of an allowed format, truncated, more than `max_pixels`,
            animated, or with more than 8 bits a channel.
    """
    try:
        with _quiet():
            return _open(data, max_pixels)
    except DataRefused:
        raise
    except UnidentifiedImageError as error:
        raise DataRefused(
            "The file is not an image of a known format.", fix=f"Use {', '.join(FORMATS)}."
        ) from error
    except Exception as error:  # Pillow raises a dozen unrelated types on hostile bytes
        raise DataRefused(
            f"The image cannot be decoded: {error}.", fix="Replace the file."
        ) from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise TooManyPixels(
            f"{width} × {height} pixels are more than {max_pixels:,}, or a side more than "
            f"{MAX_SIDE:,}.",
            fix="Make the image smaller, or raise CLR_MAX_IMAGE_PIXELS.",
        )
    if min(width, height) < 1:
        raise DataRefused(f"The image has no pixels: {width} × {height}.", fix="Replace the file.")
    # MPO is what many cameras write as JPEG: the photograph, then previews of it
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise DataRefused(
            "The image is animated or has several pages.", fix="Keep one frame of it."
        )
    if is_deep(image):
        raise DataRefused(
            f"The image has more than 8 bits a channel (mode {image.mode}).",
            fix="Convert it to 8 bits with a scale that is the same for all images.",
        )
    image.load()
    image = _upright(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(white, layer)
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        method = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF says nothing about a picture that is whole
        method = None
    return image if method is None else image.transpose(method)


_QUIET = threading.Lock()
_quiet_now = 0
_quiet_before = warnings.catch_warnings()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings to itself: all that matters becomes a refusal.

    Filters of warnings belong to the process, so the first thread in sets them and the
    last one out takes them back.
    """
    global _quiet_now, _quiet_before
    with _QUIET:
        if _quiet_now == 0:
            _quiet_before = warnings.catch_warnings()
            _quiet_before.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_now += 1
    try:
        yield
    finally:
        with _QUIET:
            _quiet_now -= 1
            if _quiet_now == 0:
                _quiet_before.__exit__(None, None, None)


def decode(
    data: bytes, size: int, *, interpolation: str = "bicubic", max_pixels: int = MAX_PIXELS
) -> Tensor:
    """Decode an image file to a square.

    Returns:
        uint8 [3, size, size].

    Raises:
        DataRefused: see `open_image`.
    """
    image = open_image(data, max_pixels=max_pixels)
    if image.size != (size, size):
        image = image.resize((size, size), _RESAMPLING[interpolation])
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(size, size, 3).permute(2, 0, 1).contiguous()


def prepare(
    batch: Tensor, preprocessing: Preprocessing, device: torch.device | None = None
) -> Tensor:
    """Normalise decoded images.

    Args:
        batch: uint8 [N, 3, S, S].
        preprocessing: mean and std.
        device: where the result is wanted; the bytes travel, not the floats.

    Returns:
        float32 [N, 3, S, S], channels last.
    """
    pixels = batch.to(device, non_blocking=True) if device is not None else batch
    floats = pixels.to(torch.float32, memory_format=torch.channels_last)
    scale = [1 / (255 * std) for std in preprocessing.std]
    shift = [-mean / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)]
    view = (1, 3, 1, 1)
    return torch.addcmul(
        floats.new_tensor(shift).view(view), floats, floats.new_tensor(scale).view(view)
    )


class ImageSet:
    """Labelled image files, decoded once and held in memory where they fit.

    Attributes:
        paths: the files.
        labels: int64 [N], index into the task's labels.
        size: side in pixels of what `batch` returns.
        digests: ``sha256:…`` of each file as it was read, filled where `hashed`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int],
        preprocessing: Preprocessing,
        *,
        cache_mb: int = 2048,
        max_pixels: int = MAX_PIXELS,
        hashed: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Decode the files, or, above `cache_mb`, read each batch from disk when asked.

        Raises:
            DataRefused: a file cannot be decoded; names it.
            UsageError: not one label for each file.
        """
        if len(paths) != len(labels):
            raise UsageError(f"There are {len(paths)} image files, but {len(labels)} labels.")
        self.paths = tuple(paths)
        self.labels = torch.tensor(list(labels), dtype=torch.int64)
        self.size = preprocessing.size
        self.digests: list[str] = [""] * len(self.paths)
        self._interpolation = preprocessing.interpolation
        self._max_pixels, self._hashed = max_pixels, hashed
        self._workers = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "clr-decode")
        self._cache: Tensor | None = None
        shape = (len(self.paths), 3, self.size, self.size)
        if len(self.paths) * 3 * self.size**2 <= cache_mb * 1_000_000:
            cache = torch.empty(shape, dtype=torch.uint8)
            for at, pixels in enumerate(self._workers.map(self._read, range(len(self.paths)))):
                cache[at] = pixels
                if on_progress:
                    on_progress(at + 1, len(self.paths))
            self._cache = cache

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def is_cached(self) -> bool:
        """Whether all images are held in memory."""
        return self._cache is not None

    def batch(self, indices: Tensor) -> Tensor:
        """Return uint8 [len(indices), 3, size, size]."""
        if self._cache is not None:
            return self._cache[indices]
        if not len(indices):
            return torch.empty((0, 3, self.size, self.size), dtype=torch.uint8)
        return torch.stack(list(self._workers.map(self._read, indices.tolist())))

    def _read(self, index: int) -> Tensor:
        path = self.paths[index]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataRefused(
                f"{path} cannot be read: {error.strerror}.",
                fix="Restore it (`dvc checkout`).",
                path=str(path),
            ) from error
        if self._hashed:
            self.digests[index] = sha256_bytes(data)
        try:
            return decode(
                data, self.size, interpolation=self._interpolation, max_pixels=self._max_pixels
            )
        except DataRefused as error:
            raise DataRefused(f"{path}: {error.message}", fix=error.fix, path=str(path)) from error
