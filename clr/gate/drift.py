"""Do two samples come from one distribution? A permutation test on the energy distance (pure).

The statistic, with Euclidean distances between rows (Székely & Rizzo 2004, "Testing for equal
distributions in high dimension"):

    E(x, y) = 2 mean |x_i - y_j| - mean |x_i - x_k| - mean |y_j - y_l|

It is 0 in the limit only if both distributions are equal. Under that hypothesis the rows are
exchangeable, so with B permutations of which b reach the observed value

    p = (1 + b) / (1 + B)

and P(p <= a) <= a for every a (Phipson & Smyth 2010). For m tasks that are looked at together,
an alarm at p <= a / m keeps the chance of any false alarm in one look at or below a (Bonferroni).
Permutations stop early once `ENOUGH` have reached the observed value; then p = ENOUGH / B so far,
which keeps the property (Besag & Clifford 1991).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from clr.errors import UsageError

Rows = npt.NDArray[np.floating]
FALSE_ALARMS = 0.01
"""Chance of any false alarm in one look at all tasks."""

ENOUGH = 20
FEWEST = 20
MOST = 300
"""Rows of each sample that are compared; more are thinned out evenly, at random."""

_PART = 512


@dataclass(frozen=True)
class Compared:
    """What the test found.

    Attributes:
        p: its p-value.
        level: at or below which it is an alarm.
        distance: the energy distance.
        n: rows of each sample that were compared.
        permutations: how many were drawn.
    """

    p: float
    level: float
    distance: float
    n: tuple[int, int]
    permutations: int

    @property
    def alarm(self) -> bool:
        """Whether the samples differ."""
        return self.p <= self.level


def compare(
    before: Rows, now: Rows, *, looks: int, seed: int = 0, rate: float = FALSE_ALARMS
) -> Compared:
    """Test whether two samples come from one distribution.

    Args:
        before: float [n, d], the reference.
        now: float [m, d].
        looks: tests in the same look, which share the rate of false alarms.
        seed: of thinning and permutations: the same question has the same answer.
        rate: chance of any false alarm in the look.

    Raises:
        UsageError: fewer than `FEWEST` rows, or no such test.
    """
    if before.ndim != 2 or now.ndim != 2 or before.shape[1] != now.shape[1]:
        raise UsageError("The samples have different features.")
    if min(len(before), len(now)) < FEWEST or looks < 1 or not 0 < rate < 1:
        raise UsageError(f"A test of drift needs {FEWEST} rows of each sample.")
    random = np.random.default_rng(seed)
    first, second = _thinned(before, random), _thinned(now, random)
    n, m = len(first), len(second)
    distances = _distances(np.concatenate([first, second]).astype(np.float64))
    marks = np.zeros((1, n + m))
    marks[0, n:] = 1.0
    observed = float(_energy(distances, marks, n, m)[0])
    level = rate / looks
    most = max(999, ceil(4 / level) - 1)
    reached, drawn = 0, 0
    while drawn < most and reached < ENOUGH:
        part = min(_PART, most - drawn)
        shuffled = random.permuted(np.repeat(marks, part, axis=0), axis=1)
        # equal arrangements must count as reached, whatever the order of a sum
        hits = _energy(distances, shuffled, n, m) >= observed - 1e-9 * (abs(observed) + 1e-300)
        within = np.flatnonzero(np.cumsum(hits) + reached >= ENOUGH)
        used = int(within[0]) + 1 if len(within) else part
        reached += int(hits[:used].sum())
        drawn += used
    p = reached / drawn if reached >= ENOUGH else (1 + reached) / (1 + drawn)
    return Compared(p, level, observed, (n, m), drawn)


def _thinned(rows: Rows, random: np.random.Generator) -> Rows:
    if len(rows) <= MOST:
        return rows
    kept: Rows = rows[np.sort(random.choice(len(rows), MOST, replace=False))]
    return kept


def _distances(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    squares = (rows**2).sum(axis=1)
    found = squares[:, None] + squares[None, :] - 2.0 * rows @ rows.T
    np.fill_diagonal(found, 0.0)
    result: npt.NDArray[np.float64] = np.sqrt(np.maximum(found, 0.0))
    return result


def _energy(
    distances: npt.NDArray[np.float64], marks: npt.NDArray[np.float64], n: int, m: int
) -> npt.NDArray[np.float64]:
    """Return the statistic of each arrangement; `marks` [B, n + m] is 1 for the second sample."""
    sums = marks @ distances
    within_second = (sums * marks).sum(axis=1)
    touching = sums.sum(axis=1)
    across = touching - within_second
    within_first = distances.sum() - within_second - 2.0 * across
    result: npt.NDArray[np.float64] = (
        2.0 * across / (n * m) - within_first / n**2 - within_second / m**2
    )
    return result
