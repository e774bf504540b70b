"""A batch on several cores: two passes side by side, each with half of the images.

Where all cores share each operation of one pass, they wait for each other after every one of some
hundred; passes of their own wait once, at the end (docs/serving-speed.md). More than two would
wait for Python's lock instead: a pass calls as many operations for few images as for many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

from clr.core.mixing.batch import Part

Found = TypeVar("Found")
LANES = 2


class Lanes:
    """Threads that compute half of a batch each, on half of the cores."""

    def __init__(self, device: torch.device) -> None:
        """Start them where PyTorch may use several cores now, and computes on them."""
        several = device.type == "cpu" and torch.get_num_threads() >= LANES
        self._pool = _opened() if several else None

    def each(
        self, function: Callable[[Sequence[Part]], Found], parts: Sequence[Part]
    ) -> list[Found]:
        """Return what `function` gives for each lane's share of a batch's parts."""
        images = sum(len(part.rows) for part in parts)
        if self._pool is None or images < LANES:
            return [function(parts)]
        size = -(-images // LANES)
        shares = [_cut(parts, at, at + size) for at in range(0, images, size)]
        return list(self._pool.map(function, shares))


def _opened() -> ThreadPoolExecutor:
    """Return a pool each of whose threads lets PyTorch use its share of the cores."""
    threads, all_there = torch.get_num_threads(), Barrier(LANES)
    pool = ThreadPoolExecutor(LANES, "clr-lane")

    def start(_: int) -> None:
        torch.set_num_threads(threads // LANES)  # of this thread, and of threads to come
        all_there.wait()

    list(pool.map(start, range(LANES)))
    torch.set_num_threads(threads)
    return pool


def _cut(parts: Sequence[Part], start: int, stop: int) -> list[Part]:
    """Return the parts of images `start` to `stop` of a batch."""
    found, at = [], 0
    for part in parts:
        rows = part.rows[max(0, start - at) : max(0, stop - at)]
        at += len(part.rows)
        if rows:
            found.append(Part(part.adapter, rows))
    return found
