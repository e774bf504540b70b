"""Tasks that look alike to the router: whose images go where, once the newcomer has joined."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clr.gate.checks import count, percent
from clr.gate.evidence import EarlierTask, Newcomer

SHARE, IMAGES = 0.02, 2
"""Least share and least number of one task's test images at the other that are an overlap."""


@dataclass(frozen=True)
class Overlap:
    """An earlier task that the newcomer is confused with.

    Attributes:
        task: the earlier one.
        lost: its test images that go to the newcomer.
        n: its test images.
        doubted: of those that still reach it, how many are doubtful on account of the newcomer.
        strayed: the newcomer's test images that go to it.
        newcomers: the newcomer's test images.
    """

    task: str
    lost: int
    n: int
    doubted: int
    strayed: int
    newcomers: int

    @property
    def gone(self) -> float:
        """Share of the earlier task's test images that go to the newcomer."""
        return self.lost / max(self.n, 1)

    @property
    def come(self) -> float:
        """Share of the newcomer's test images that go to the earlier task."""
        return self.strayed / self.newcomers

    def sentence(self, newcomer: str) -> str:
        """Say whose images go where, without a full stop."""
        return (
            f"{percent(self.gone)} of the test images of {self.task} go to {newcomer}, "
            f"{percent(self.come)} of those of {newcomer} to {self.task}"
        )

    def to_dict(self, newcomer: str) -> dict[str, Any]:
        """Return it as JSON-serialisable fields: shares in 0 … 1, and how many images."""
        return {
            "task": self.task,
            "to_newcomer": round(self.gone, 6),
            "from_newcomer": round(self.come, 6),
            "doubtful": round(self.doubted / max(self.n, 1), 6),
            "n": self.n,
            "newcomer_n": self.newcomers,
            "sentence": self.sentence(newcomer),
        }


def overlaps(newcomer: Newcomer | None, earlier: Iterable[EarlierTask]) -> tuple[Overlap, ...]:
    """Return the earlier tasks that the newcomer overlaps with, the most confused first."""
    if newcomer is None:
        return ()
    seen = [
        Overlap(
            one.task,
            _number(one.taken),
            one.n,
            _number(one.doubted),
            newcomer.strayed.get(one.task, 0),
            newcomer.n,
        )
        for one in earlier
    ]
    found = [one for one in seen if _much(one.lost, one.n) or _much(one.strayed, one.newcomers)]
    return tuple(sorted(found, key=lambda one: (-max(one.gone, one.come), one.task)))


def overlap_sentence(newcomer: str, found: Iterable[Overlap]) -> str:
    """Say whose images go where, of the three most confused; empty where there is no overlap."""
    listed = list(found)
    if not listed:
        return ""
    told = "; ".join(one.sentence(newcomer) for one in listed[:3])
    more = f"; so with {count(len(listed) - 3, 'more task')}" if len(listed) > 3 else ""
    return f"Where no task is named, {told}{more}."


def _number(items: Any) -> int:
    return 0 if items is None else int(np.count_nonzero(items))


def _much(number: int, n: int) -> bool:
    return number >= IMAGES and number >= SHARE * n
