"""What the router knows of one task: statistics of its features, and images to calibrate by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clr.errors import IntegrityBroken

Floats = NDArray[np.float32]

CALIBRATION = 128
"""Images of a task that are held out at most, one in `ONE_IN`: 66 kB of projected features."""

ONE_IN = 5
FEWEST = 16
"""Where fewer would be held out, none is: their limits could not even promise 6 %."""


@dataclass(frozen=True, eq=False)
class TaskStatistics:
    """What the router knows of one task.

    Attributes:
        counts: int64 [C], images of each class.
        means: float32 [C, d], of each class.
        scatter: float32 [d, d], sum over images of outer products of deviations.
        calibration: float16 [m, d], projected features of images that are in none of the above;
            None where there are none, as in statistics of before they were kept.
    """

    counts: NDArray[np.int64]
    means: Floats
    scatter: Floats
    calibration: NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        classes, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        fits = self.counts.shape == (classes,) and self.scatter.shape == (d, d)
        finite = np.isfinite(self.means).all() and np.isfinite(self.scatter).all()
        if self.calibration is not None:
            fits &= self.calibration.shape == (len(self.calibration) or 1, d)
            finite &= np.isfinite(self.calibration).all()
        if not (classes and fits and finite and (self.counts > 0).all()):
            raise IntegrityBroken(
                "A task's routing statistics have a wrong shape or value.",
                fix="Restore its evidence from the registry.",
            )

    @property
    def digest(self) -> str:
        """The sha256 of all values."""
        digest = hashlib.sha256()
        held = () if self.calibration is None else (self.calibration,)
        for array in (self.counts, self.means, self.scatter, *held):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return "sha256:" + digest.hexdigest()


def statistics(projected: Floats, labels: NDArray[np.int64], classes: int) -> TaskStatistics:
    """Describe a task by projected training features [N, d] and their labels [N]."""
    counts = np.bincount(labels, minlength=classes)
    sums = np.zeros((classes, projected.shape[1]), dtype=np.float64)
    np.add.at(sums, labels, projected.astype(np.float64))
    means = sums / np.maximum(counts, 1)[:, None]
    deviations = projected - means[labels]
    scatter = deviations.T @ deviations
    return TaskStatistics(
        counts.astype(np.int64), means.astype(np.float32), scatter.astype(np.float32)
    )


def held_out(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return bool [N]: images to calibrate by, none where there would be fewer than `FEWEST`.

    A random sample, but for images that are the last of their class.

    Args:
        labels: int64 [N].
    """
    held = np.zeros(len(labels), dtype=np.bool_)
    wanted = min(CALIBRATION, len(labels) // ONE_IN)
    if wanted < FEWEST:
        return held
    left = np.bincount(labels)
    for at in np.random.default_rng(0).permutation(len(labels)):
        if wanted and left[labels[at]] > 1:
            held[at] = True
            left[labels[at]] -= 1
            wanted -= 1
    return held


def describe(projected: Floats, labels: NDArray[np.int64], classes: int) -> TaskStatistics:
    """Describe a task by most of its training images, and keep the others to calibrate by.

    Args:
        projected: float32 [N, d], see `clr.core.routing.project`.
        labels: int64 [N].
        classes: how many there are.
    """
    held = held_out(labels)
    described = statistics(projected[~held], labels[~held], classes)
    if not held.any():
        return described
    return replace(described, calibration=projected[held].astype(np.float16))
