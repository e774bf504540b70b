"""Do values go on as they began? A conformal test martingale, for streams without an end (pure).

If n reference values and what follows are exchangeable, in any order as probable as in any other,
the smoothed ranks of each new value among all before and itself,

    p_t = (#{i <= t: x_i > x_t} + u_t #{i <= t: x_i = x_t}) / t,   u_t uniform on (0, 1),

are independent and uniform (Vovk, Gammerman & Shafer 2005, "Algorithmic learning in a random
world", theorem 8.2), whatever their distribution is. They are bet against by the Simple Jumper
(Vovk, Petej, Nouretdinov, Ahlberg, Carlsson & Gammerman 2021, "Retrain or not retrain: conformal
test martingales for change-point detection", PMLR 152): capital is spread over e = -1, 0, 1;
before each p a share J of all of it is spread evenly again; then the part at e is multiplied by
1 + e (p - 1/2). Of the capital, part k waits until k times `PACE` values have come, so that a late
change is found as well as an early one; its share is proportional to 1 / (k + 1)^2.

The capital is a martingale with mean 1 while the values are exchangeable. By Ville's inequality
the chance that it ever reaches 1/a is at most a, at whatever moments one looks. Memory is
bounded: after `LIMIT` values it begins anew, so that a is the rate of false alarms for each
`LIMIT` values.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from clr.errors import UsageError

Floats = npt.NDArray[np.float64]

FALSE_ALARMS = 0.01
"""Chance of a false alarm in `LIMIT` values."""

LIMIT = 10_000
PACE = 250
JUMP = 0.01
MOST = 1e300
"""Capital of one bet; a lasting change would bring it to infinity, which no document holds."""
_PARTS = LIMIT // PACE
_BETS = np.array([-1.0, 0.0, 1.0])


class Stream:
    """What is known about one stream of values; a few hundred kilobytes at most.

    Attributes:
        count: values since it began, or began anew.
        capital: of the bet that something has changed; 1 at the start.
        highest: the greatest it has been since then.
    """

    def __init__(
        self, reference: Iterable[float] = (), *, seed: int = 0, rate: float = FALSE_ALARMS
    ) -> None:
        """Begin.

        Args:
            reference: values that the stream should go on like. Without any, it is compared with
                its own past.
            seed: of the numbers that break ties.
            rate: chance of a false alarm in `LIMIT` values.

        Raises:
            UsageError: a value is not finite, there are more than `LIMIT`, or no such rate.
        """
        self._reference = np.sort(np.asarray(list(reference), dtype=np.float64))
        if not np.isfinite(self._reference).all() or len(self._reference) > LIMIT:
            raise UsageError(f"A stream is compared with at most {LIMIT} finite values.")
        if not 0 < rate < 1:
            raise UsageError(f"A rate of {rate} false alarms is not between 0 and 1.")
        self.rate = rate
        self._random = np.random.default_rng(seed)
        self._begin()

    def _begin(self) -> None:
        self.count, self.capital, self.highest = 0, 1.0, 1.0
        self._known = np.empty(len(self._reference) + LIMIT)
        self._known[: len(self._reference)] = self._reference
        shares = 1.0 / np.arange(1, _PARTS + 1) ** 2
        self._parts: Floats = np.repeat((shares / shares.sum())[:, None] / 3, 3, axis=1)

    @property
    def alarm(self) -> bool:
        """Whether the capital has reached 1 / `rate`."""
        return self.highest >= 1 / self.rate

    def add(self, value: float) -> bool:
        """Take the next value; say whether there is an alarm.

        Raises:
            UsageError: it is not finite.
        """
        if not np.isfinite(value):
            raise UsageError(f"A stream takes finite values, not {value}.")
        if self.count == LIMIT:
            self._begin()
        self._bet(self._rank(value))
        return self.alarm

    def _rank(self, value: float) -> float:
        size = len(self._reference) + self.count
        known = self._known[:size]
        first, last = np.searchsorted(known, value, "left"), np.searchsorted(known, value, "right")
        self._known[last + 1 : size + 1] = self._known[last:size].copy()
        self._known[last] = value
        self.count += 1
        equal = last - first + 1
        return float((size - last + self._random.random() * equal) / (size + 1))

    def _bet(self, p: float) -> None:
        begun = min(_PARTS, (self.count - 1) // PACE + 1)
        parts = self._parts[:begun]
        totals = parts.sum(axis=1, keepdims=True)
        parts *= 1 - JUMP
        parts += JUMP / 3 * totals
        parts *= 1 + _BETS * (p - 0.5)
        np.minimum(parts, MOST, out=parts)  # what is given away raises no false alarm
        self.capital = float(self._parts.sum())
        self.highest = max(self.highest, self.capital)
