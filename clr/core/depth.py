"""Which image files are taken: their formats, and how many bits a channel has.

Pillow decodes more than 8 bits as 8 without a word.
"""

from __future__ import annotations

from numbers import Real

from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are accepted, by Pillow's names. No decoder of another format is run."""

_DEEP = ("I", "F")
_CUT = (";16B", ";16L", ";16N")
"""How the raw modes of 16-bit colour end; ``BGR;16`` of a BMP is 5 and 6 bits a channel."""

_BITS_PER_SAMPLE = 258


def is_deep(image: Image.Image) -> bool:
    """Say whether an image, of which the header was read, has more than 8 bits a channel."""
    parts = [part for tile in getattr(image, "tile", ()) for part in _flat(tile[3])]
    if image.format == "TIFF" and _has_deep_samples(image):
        return True
    if image.format == "PPM" and any(isinstance(part, int) and part > 255 for part in parts):
        return True
    cut = any(isinstance(part, str) and part.endswith(_CUT) for part in parts)
    return cut or image.mode in _DEEP or image.mode.startswith("I;")


def _has_deep_samples(tiff: Image.Image) -> bool:
    """Ask the tag: with a plane for each channel, the raw modes say nothing of their depth."""
    bits = getattr(tiff, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())
    return any(isinstance(one, Real) and float(one) > 8 for one in _flat(bits))


def _flat(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
