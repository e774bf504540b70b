"""The statistics of the gate: intervals for shares and paired differences, matrix metrics.

Everything here is a pure function of counts. Shares and limits are fractions
(0.02 is two percentage points), `alpha` is an error rate.

Notation for two sets of answers to the same n test items: b items were right
and are now wrong (regressed), c items were wrong and are now right (repaired).
The accuracy fell by (b - c) / n, which is called the drop; the gain is its
negative.
"""

from __future__ import annotations

from functools import cache
from math import floor, log, sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, betaincinv, ndtri

from clr.errors import UsageError

Matrix = npt.NDArray[np.float64]


def wilson_interval(correct: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return the two-sided score interval of a share (Wilson 1927).

    Args:
        correct: items answered right.
        n: items; at least 1.
        alpha: error rate of both sides together; 0.05 gives the 95 % interval.

    Raises:
        UsageError: the counts or `alpha` make no sense.
    """
    if not 0 <= correct <= n or n < 1:
        raise UsageError(f"{correct} right of {n} is not a share.", fix="Count the items again.")
    z = _quantile(alpha / 2)
    share, weight = correct / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z * sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    low = 0.0 if correct == 0 else max(0.0, middle - half)
    return low, 1.0 if correct == n else min(1.0, middle + half)


def score_drop_limit(b: int, c: int, n: int, alpha: float = 0.05) -> float:
    """Return the one-sided upper score limit of (b - c) / n (Tango 1998, eq. 24 to 26).

    The limit is the difference d at which the score statistic, with the
    nuisance share at its maximum-likelihood value under d, equals -z(alpha).

    Raises:
        UsageError: the counts or `alpha` make no sense.
    """
    _check_pairs(b, c, n)
    z = _quantile(alpha)
    if b == n:
        return 1.0
    low, high = (b - c) / n, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        if _score(b, c, n, middle) > -z:
            low = middle
        else:
            high = middle
    return high


def paired_drop_limit(b: int, c: int, n: int, alpha: float = 0.05) -> float:
    """Return an upper limit of the drop (b - c) / n that holds with confidence 1 - alpha.

    It is Tango's score limit, which is accurate where b + c is not small. Exact
    binomial limits keep it honest where b + c is small:

    - nothing repaired (c = 0): the Clopper-Pearson limit of b of n instead, so that
      b = c = 0 gives 1 - alpha**(1/n), e.g. 15.3 % at n = 18, 1.15 % at n = 260;
    - a limit below zero (a gain is shown) only if the exact sign test of b of
      b + c shows the gain too; else the limit is zero.

    The limit rises with every regression and falls with every repair.

    Args:
        b: items that were right and are now wrong.
        c: items that were wrong and are now right.
        n: items.
        alpha: one-sided error rate.

    Raises:
        UsageError: the counts or `alpha` make no sense.
    """
    if c == 0:
        _check_pairs(b, c, n)
        _quantile(alpha)
        if b == n:
            return 1.0
        # one repair must not raise the limit, which matters for alpha below 0.01 only
        exact = float(betaincinv(b + 1, n - b, 1 - alpha))
        return exact if alpha >= 0.01 else max(exact, score_drop_limit(b, 1, n, alpha))
    limit = score_drop_limit(b, c, n, alpha)
    if limit < 0 and float(bdtr(b, b + c, 0.5)) > alpha:
        limit = 0.0
    return limit


def paired_interval(b: int, c: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return the two-sided interval of the gain (c - b) / n; each side errs by alpha / 2.

    Both ends are limits of `paired_drop_limit`, so an interval that excludes
    zero agrees with the gate's own one-sided verdict at alpha / 2.

    Raises:
        UsageError: the counts or `alpha` make no sense.
    """
    return -paired_drop_limit(b, c, n, alpha / 2), paired_drop_limit(c, b, n, alpha / 2)


@cache
def items_needed(margin: float, alpha: float = 0.05) -> int:
    """Return the fewest items that can prove a drop below `margin`: no regression among them."""
    if not 0 < margin < 1:
        raise UsageError(f"margin = {margin} is not between 0 and 1.", fix="Give a share.")
    _quantile(alpha)
    needed = max(1, floor(log(alpha) / log(1 - margin)))
    while paired_drop_limit(0, 0, needed, alpha) >= margin:
        needed += 1
    return needed


def average_accuracy(matrix: Matrix) -> float:
    """Return the mean of the last row: (1/T) Σ_i R[T, i] (Lopez-Paz & Ranzato 2017).

    Args:
        matrix: [T, T]; `matrix[i, j]` is the accuracy on task j after learning task i,
            tasks in the order they were learned. Above the diagonal it is not read.
    """
    return float(np.mean(_square(matrix)[-1]))


def backward_transfer(matrix: Matrix) -> float | None:
    """Return (1/(T-1)) Σ_{i<T} R[T, i] - R[i, i] (Lopez-Paz & Ranzato 2017).

    Negative values are forgetting. None where there is no earlier task.
    """
    square = _square(matrix)
    if len(square) < 2:
        return None
    return float(np.mean(square[-1, :-1] - np.diag(square)[:-1]))


def forgetting(matrix: Matrix) -> float | None:
    """Return (1/(T-1)) Σ_{j<T} max_{j<=l<T} R[l, j] - R[T, j] (Chaudhry et al. 2018).

    None where there is no earlier task.
    """
    square = _square(matrix)
    if len(square) < 2:
        return None
    last = len(square) - 1
    best = [np.max(square[j:last, j]) for j in range(last)]
    return float(np.mean(np.asarray(best) - square[-1, :-1]))


def _score(b: int, c: int, n: int, d: float) -> float:
    """Tango's statistic for the hypothesis that the true drop is d."""
    linear = -(b + c) + (2 * n - b + c) * d
    constant = -c * d * (1 - d)
    root = sqrt(max(0.0, linear * linear - 8 * n * constant))
    # the larger root of 2n q² + linear q + constant, in the form without cancellation
    q = (root - linear) / (4 * n) if linear <= 0 else -2 * constant / (root + linear)
    variance = n * (2 * q + d * (1 - d))
    return (b - c - n * d) / sqrt(variance) if variance > 0 else 0.0


def _quantile(tail: float) -> float:
    if not 0 < tail < 0.5:
        raise UsageError(
            f"An error rate of {tail} on one side is not between 0 and 0.5.", fix="Use e.g. 0.05."
        )
    return -float(ndtri(tail))


def _check_pairs(b: int, c: int, n: int) -> None:
    if b < 0 or c < 0 or n < 1 or b + c > n:
        raise UsageError(
            f"{b} regressed and {c} repaired of {n} items is not a paired table.",
            fix="Count both over the same items.",
        )


def _square(matrix: Matrix) -> Matrix:
    square = np.asarray(matrix, dtype=np.float64)
    if square.ndim != 2 or square.shape[0] != square.shape[1] or square.size == 0:
        raise UsageError(
            f"An accuracy matrix is square, one row and column a task, not {square.shape}.",
            fix="Give R[i, j]: accuracy on task j after learning task i.",
        )
    return square
