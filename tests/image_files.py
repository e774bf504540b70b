"""Image files that Pillow reads and does not write."""

from __future__ import annotations

import struct

import numpy as np

SIDE = 16


def planar_tiff(bits: int, photometric: int = 2, channels: int = 3) -> bytes:
    """A TIFF of `SIDE` x `SIDE` pixels whose channels lie one behind the other.

    Args:
        bits: of each channel, 8 or 16.
        photometric: 2 for RGB, with alpha where there are four channels; 5 for CMYK.
        channels: how many.
    """
    pixels = np.random.default_rng(0).integers(0, 1 << bits, (channels, SIDE, SIDE))
    planes = pixels.astype("<u2" if bits == 16 else "u1").tobytes()
    alpha = channels > 3 and photometric == 2
    count = 11 if alpha else 10
    lists = 8 + 2 + 12 * count + 4  # what takes more than four bytes lies behind the entries
    sizes, places = lists + 2 * channels, lists + 6 * channels
    start = places + 4 * channels
    plane = SIDE * SIDE * bits // 8
    entries = [(256, 4, 1, SIDE), (257, 4, 1, SIDE), (258, 3, channels, lists), (259, 3, 1, 1),
               (262, 3, 1, photometric), (273, 4, channels, places), (277, 3, 1, channels),
               (278, 4, 1, SIDE), (279, 4, channels, sizes), (284, 3, 1, 2)]  # fmt: skip
    entries += [(338, 3, 1, 2)] if alpha else []
    head = b"II*\0" + struct.pack("<IH", 8, count)
    head += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    head += struct.pack(f"<{channels}H", *[bits] * channels)
    head += struct.pack(f"<{channels}I", *[plane] * channels)
    head += struct.pack(f"<{channels}I", *[start + at * plane for at in range(channels)])
    return head + planes


def bmp_of_16_bits_a_pixel() -> bytes:
    """A red BMP with 5, 6 and 5 bits a channel."""
    pixels = struct.pack("<H", 0xF800) * SIDE * SIDE
    start = 14 + 40 + 12
    head = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
    head += struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 16, 3, len(pixels), 0, 0, 0, 0)
    return head + struct.pack("<III", 0xF800, 0x07E0, 0x001F) + pixels
