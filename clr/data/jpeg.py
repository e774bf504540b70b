"""Whether a JPEG is there to its end: its decoder fills what is missing with grey and says nothing.

What is seen is the structure alone (ITU-T T.81, annex B). Damage inside the image data that
still decodes is not.
"""

from __future__ import annotations

import re

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Neither a stuffed byte of image data, nor a restart in it, nor a filling byte."""

_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01


def has_end(data: bytes) -> bool:
    """Say whether the marker that ends an image follows its last scan; what comes after is free.

    Segments are skipped by their length, so that a preview in one is none of the image's own.
    """
    at, scanned = 2, False
    while found := _MARKER.search(data, at):
        kind, at = data[found.start() + 1], found.end()
        if kind == _EOI:
            return scanned
        if kind == _SOI:  # another image begins before this one ends
            return False
        if kind != _TEM:
            at += int.from_bytes(data[at : at + 2], "big")
        scanned = scanned or kind == _SOS
    return False
