"""Make and write small images whose bytes are the same on every platform.

Integer arithmetic only, an own pseudo-random sequence, and PNG files with
stored (uncompressed) deflate blocks: nothing depends on the processor's floats,
on a library's random numbers or on the version of a compressor, so that one
committed digest can pin the generated files.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.int64]
"""Pixels in whole grey levels, [H, W] or [H, W, 3]; 0 is black, 255 white."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_STORED_BLOCK = 65535


@dataclass
class Dice:
    """A reproducible sequence of integers (SplitMix64; Steele, Lea & Flood 2014).

    Two dice made from the same text give the same throws on every platform.
    """

    state: int

    @classmethod
    def named(cls, text: str) -> Dice:
        """Return the dice whose throws are determined by `text`."""
        return cls(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))

    def below(self, limit: int) -> int:
        """Return an integer in [0, limit)."""
        self.state = (self.state + _GOLDEN) & _MASK
        return _mixed(self.state) % limit

    def between(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return low + self.below(high - low + 1)

    def sign(self) -> int:
        """Return -1 or 1."""
        return 2 * self.below(2) - 1

    def noise(self, height: int, width: int, spread: int) -> Gray:
        """Return integers in [-spread, spread], shape [height, width]."""
        steps = np.arange(1, height * width + 1, dtype=np.uint64)
        states = np.uint64(self.state) + steps * np.uint64(_GOLDEN)
        self.state = int(states[-1])
        z = (states ^ (states >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        values = (z ^ (z >> np.uint64(31))) % np.uint64(2 * spread + 1)
        return values.astype(np.int64).reshape(height, width) - spread

    def shuffled(self, count: int) -> list[int]:
        """Return 0 … count-1 in random order (Fisher and Yates)."""
        order = list(range(count))
        for last in range(count - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order


def _mixed(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def png(pixels: Gray) -> bytes:
    """Return a PNG file of `pixels` ([H, W] grey or [H, W, 3] RGB, clipped to 0 … 255).

    Source: PNG specification (ISO/IEC 15948), RFC 1950 and RFC 1951 section 3.2.4.
    """
    image = np.clip(pixels, 0, 255).astype(np.uint8)
    height, width = image.shape[:2]
    colour_type = 0 if image.ndim == 2 else 2
    rows = b"".join(b"\0" + row.tobytes() for row in image)  # 0: no filter
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", _stored(rows)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _stored(raw: bytes) -> bytes:
    # zlib.compress(raw, 0) may cut its blocks elsewhere in another zlib
    body = b""
    for at in range(0, len(raw), _STORED_BLOCK):
        block = raw[at : at + _STORED_BLOCK]
        is_last = at + _STORED_BLOCK >= len(raw)
        body += struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block
    return b"\x78\x01" + body + struct.pack(">I", zlib.adler32(raw))


def enlarge(pixels: Gray, factor: int) -> Gray:
    """Return `pixels` with every pixel repeated `factor` times in both directions."""
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def shrink(pixels: Gray, factor: int) -> Gray:
    """Return the rounded-down means of `factor` x `factor` boxes; sides must be multiples."""
    height, width = pixels.shape[:2]
    boxes = pixels.reshape(height // factor, factor, width // factor, factor, *pixels.shape[2:])
    means: Gray = boxes.sum(axis=(1, 3)) // factor**2
    return means


def turned(pixels: Gray, dice: Dice) -> Gray:
    """Return `pixels` mirrored and turned by a random multiple of 90 degrees."""
    quarter = np.rot90(pixels, dice.below(4))
    return np.ascontiguousarray(quarter[:, ::-1] if dice.below(2) else quarter)


def relit(pixels: Gray, dice: Dice, contrast: tuple[int, int], light: int) -> Gray:
    """Return `pixels` under another light.

    Args:
        pixels: the image.
        dice: what chooses.
        contrast: lowest and highest contrast in 1/256.
        light: largest shift in grey levels, up or down.
    """
    gain = dice.between(*contrast)
    shift = dice.between(-light, light)
    return np.clip((pixels - 128) * gain // 256 + 128 + shift, 0, 255)


def crops(pixels: Gray, count: int, side: int, stride: int, dice: Dice) -> list[Gray]:
    """Return `count` different square crops of `side` pixels, corners on a grid of `stride`.

    Raises:
        ValueError: the image has fewer such places than `count`.
    """
    height, width = pixels.shape[:2]
    places = [
        (top, left)
        for top in range(0, height - side + 1, stride)
        for left in range(0, width - side + 1, stride)
    ]
    if len(places) < count:
        raise ValueError(f"{len(places)} places for {count} crops of {side} px")
    chosen = (places[index] for index in dice.shuffled(len(places))[:count])
    return [pixels[top : top + side, left : left + side] for top, left in chosen]
