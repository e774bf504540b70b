"""Bets on the mean of bounded values: evidence that may be looked at any time (pure).

A mean mu of values x_1, x_2, … is bet on, in the way of Waudby-Smith & Ramdas 2024,
"Estimating means of bounded random variables by betting", J. R. Stat. Soc. B 86(1):1-27.
Let low_t <= x_t <= high_t with bounds known before x_t is. For a mean m and a fraction
0 <= c_t < 1 of the capital, chosen before x_t is known,

    up:    K_t(m) = Π_i (1 - c_i + c_i (x_i - low_i) / (m - low_i))       bets that mu > m
    down:  K_t(m) = Π_i (1 - c_i + c_i (high_i - x_i) / (high_i - m))     bets that mu < m

Both start at 1 and are never negative. If E[x_t | past] <= m (up; >= m for down), the capital is
a supermartingale, so by Ville's inequality P(it ever reaches 1/a) <= a, whenever and however
often one looks, and its inverse is a p-value at any time. Here K is the average over several
fractions (their `dKelly`), whose capital is a supermartingale as well. All m that neither side
has ever refuted at 2/a are the confidence sequence of mu: it covers mu at all times at once with
probability 1 - a. "Up" falls and "down" rises in m, so that it is an interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from clr.errors import UsageError

Floats = npt.NDArray[np.float64]
Side = Literal["up", "down"]

POINTS = 60
"""Of a picture of the confidence sequence over time."""


@dataclass(frozen=True)
class Stream:
    """Values whose mean is bet on, in the order in which they became known.

    The last axis is time; axes before it are streams of their own (simulations).

    Attributes:
        values: float [..., n].
        low, high: bounds of each value, known before it, [..., n] or [1].
        up, down: fractions of the capital that each of the K bets stakes, [..., n, K] or [K].
        weights: of the K bets at the start, [K]; their sum is 1.
    """

    values: Floats
    low: Floats
    high: Floats
    up: Floats
    down: Floats
    weights: Floats

    def __len__(self) -> int:
        return int(self.values.shape[-1])


def log_capital(stream: Stream, mean: float, side: Side) -> Floats:
    """Return the logarithm of the capital after each value, [..., n].

    Args:
        stream: the values.
        mean: m, the hypothesis that is bet against; strictly inside the bounds.
        side: ``up`` bets that the true mean is greater, ``down`` that it is less.
    """
    if side == "up":
        staked, odds = stream.up, (stream.values - stream.low) / (mean - stream.low)
    else:
        staked, odds = stream.down, (stream.high - stream.values) / (stream.high - mean)
    with np.errstate(divide="ignore"):
        bets = np.cumsum(np.log(1 - staked + staked * odds[..., None]), axis=-2)
        top = bets.max(axis=-1, initial=-np.inf)
        safe = np.where(np.isfinite(top), top, 0.0)
        summed: Floats = safe + np.log(np.exp(bets - safe[..., None]) @ stream.weights)
    return summed


def e_value(stream: Stream, side: Side) -> float:
    """Return the greatest capital so far at m = 0, 1 at least; P(it reaches 1/a) <= a if mu = 0.

    As a running maximum it is what Ville's inequality bounds, no longer an e-value by itself.
    """
    if not len(stream):
        return 1.0
    return float(np.exp(min(700.0, max(0.0, float(log_capital(stream, 0.0, side).max())))))


def interval(stream: Stream, alpha: float) -> tuple[float, float]:
    """Return the confidence sequence of the mean as it is now: all that was never refuted.

    Where low lies above high, every mean was refuted: the values have not one mean.

    Raises:
        UsageError: `alpha` is no error rate.
    """
    _check_alpha(alpha)
    low, high = _range(stream)
    if not len(stream):
        return low, high
    limit = float(np.log(2 / alpha))
    return (
        _edge(lambda m: log_capital(stream, m, "up").max() >= limit, low, high),
        -_edge(lambda m: log_capital(stream, -m, "down").max() >= limit, -high, -low),
    )


def path(stream: Stream, alpha: float) -> list[tuple[int, float, float]]:
    """Return the confidence sequence over time, for a picture: (n, low, high) at most `POINTS`.

    Ends lie on a grid that is fine around 0 and coarse far away (0.0002 there, 0.02 at 1), the
    wider value each.
    """
    _check_alpha(alpha)
    n = len(stream)
    if not n:
        return []
    first, last = _range(stream)
    ticks = np.linspace(-1, 1, 201)
    grid = np.unique(np.clip(ticks * np.abs(ticks), first + 1e-6, last - 1e-6))
    at = np.unique(np.linspace(1, n, min(POINTS, n)).astype(int)) - 1
    limit = float(np.log(2 / alpha))
    lows, highs = np.full(len(at), first), np.full(len(at), last)
    for m in grid:
        refuted = np.maximum.accumulate(log_capital(stream, float(m), "up"))[at] >= limit
        lows[refuted] = m
    for m in grid[::-1]:
        refuted = np.maximum.accumulate(log_capital(stream, float(m), "down"))[at] >= limit
        highs[refuted] = m
    return [
        (int(i) + 1, float(low), float(high)) for i, low, high in zip(at, lows, highs, strict=True)
    ]


def _range(stream: Stream) -> tuple[float, float]:
    """Return where the mean can lie at all; scores are wider than the differences they estimate."""
    return float(np.max(stream.low, initial=-1.0)), float(np.min(stream.high, initial=1.0))


def _edge(refuted: Callable[[float], bool], low: float, high: float) -> float:
    """Return the greatest m that is refuted, where all below are; `low` if none is."""
    tiny = 1e-9
    if not refuted(low + tiny):
        return low
    below, above = low + tiny, high - tiny
    if refuted(above):
        return high
    while above - below > 1e-7:
        middle = (below + above) / 2
        below, above = (middle, above) if refuted(middle) else (below, middle)
    return below


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise UsageError(f"An error rate of {alpha} is not between 0 and 1.", fix="Use e.g. 0.05.")
