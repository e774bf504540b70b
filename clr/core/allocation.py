"""What a long-lived process that computes batch after batch asks of the C library's allocator."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 32 * 2**20
"""Bytes of the largest block that glibc keeps: the most that its option takes."""
_KEPT = 2**30


def keep_freed_memory() -> bool:
    """Let freed memory stay with this process, up to a gigabyte; return whether that was done.

    A forward pass frees and takes tens of megabytes a layer. As it comes, glibc gives such blocks
    back to the system at once, and the system clears each page anew when it is touched: a third of
    the time of a batch (docs/serving-speed.md). Only glibc has these options (mallopt(3)).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
