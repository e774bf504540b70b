"""Statistics over seeds, tasks and test items. Pure functions; shares are fractions.

An interval answers one question only, so three are given where two methods differ: over tasks
(would another task agree?), over seeds (another run?), over test items (other images, these very
runs?). Seeds of one task have its difficulty in common, so that they are one task, not several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from clr.errors import UsageError
from clr.gate.statistics import backward_transfer, forgetting

Matrix = NDArray[np.float64]
Right = NDArray[np.bool_] | NDArray[np.float64]
ALPHA = 0.05
"""Error rate of every two-sided interval here."""


@dataclass(frozen=True)
class Estimate:
    """A mean and what it may be.

    Attributes:
        mean: of the values.
        low: lower end of the 95 % interval; None where one value says nothing of it.
        high: upper end.
        n: how many values.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-serialisable."""
        return asdict(self)


def mean_interval(values: Sequence[float], alpha: float = ALPHA) -> Estimate:
    """Return the mean and Student's interval of it (Student 1908).

    Args:
        values: at least one, independent of each other.
        alpha: error rate of both sides together.

    Raises:
        UsageError: no values, or one that is not finite.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.size == 0 or not np.isfinite(given).all():
        raise UsageError(f"There is no mean of {list(values)}.", fix="Give finite values.")
    mean, n = float(given.mean()), given.size
    if n == 1:
        return Estimate(mean, None, None, 1)
    half = float(stdtrit(n - 1, 1 - alpha / 2)) * float(given.std(ddof=1)) / sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def paired(ours: Matrix, theirs: Matrix) -> Estimate:
    """Return how much better `ours` is than `theirs`, value by value.

    Args:
        ours: accuracies [n], whose gains are independent: one a task, or one a seed.
        theirs: of the same shape, measured on the same tasks, seeds and images.

    Raises:
        UsageError: they do not match.
    """
    if np.shape(ours) != np.shape(theirs):
        raise UsageError(
            f"{np.shape(ours)} values cannot be paired with {np.shape(theirs)}.",
            fix="Compare the same tasks and seeds.",
        )
    return mean_interval((np.asarray(ours) - np.asarray(theirs)).ravel().tolist())


def items_interval(
    ours: Sequence[Sequence[Right]], theirs: Sequence[Sequence[Right]], alpha: float = ALPHA
) -> Estimate:
    """Return the mean gain over tasks, and how far it hangs on which images were tested.

    The seeds of an item are averaged first: they are one item, not several. Tasks weigh the
    same. Normal interval of a stratified mean (Cochran 1977, section 5.4).

    Args:
        ours: per task, per seed: [n], which items are right, or how often where that is a share.
        theirs: the same for the same items.
        alpha: error rate of both sides together.

    Raises:
        UsageError: they do not match, or there are no items.
    """
    gains = [
        np.mean(np.stack(a).astype(float) - np.stack(b).astype(float), axis=0)
        for a, b in zip(ours, theirs, strict=True)
    ]
    if not gains or min(map(len, gains)) < 2:
        raise UsageError("There are too few test images to compare on.", fix="Add test images.")
    mean = float(np.mean([gain.mean() for gain in gains]))
    variance = sum(gain.var(ddof=1) / len(gain) for gain in gains) / len(gains) ** 2
    half = -float(ndtri(alpha / 2)) * sqrt(variance)
    return Estimate(mean, mean - half, mean + half, sum(map(len, gains)))


def forward_transfer(learned: Sequence[float], alone: Sequence[float]) -> float | None:
    """Return (1/(T-1)) Σ_{i>1} R[i, i] - A[i]: what having learned others did for a new task.

    Lopez-Paz & Ranzato (2017) compare R[i-1, i], the accuracy on a task *before* it is
    learned, with that of an untrained network. With a head of its own for every task there
    is nothing to ask before it is learned; so, as in the intransigence of Chaudhry et al.
    (2018, section 3.3; this is its negative), the accuracy right after learning the task is
    compared with A[i], that of learning it alone from the trusted backbone.

    Args:
        learned: R[i, i] in the order of learning.
        alone: A[i] in the same order.

    Returns:
        The mean over all tasks but the first; None where there is only one.
    """
    if len(learned) < 2:
        return None
    return float(np.mean(np.asarray(learned[1:]) - np.asarray(alone[1:])))


def transfer(matrix: Matrix) -> dict[str, float | None]:
    """Return forgetting (Chaudhry 2018) and backward transfer (Lopez-Paz & Ranzato 2017)."""
    return {"forgetting": forgetting(matrix), "backward_transfer": backward_transfer(matrix)}
