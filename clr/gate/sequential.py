"""Is one arm of a trial better than the other? The answer may be looked at any time (pure).

Three streams of values are bet on, in the way of clr/gate/betting.py:

- `shares`: x = 1 for a right answer, else 0; mu is the success rate of an arm.
- `paired`, where both arms answered the same items: x = challenger right - champion right.
  At m = 0 only the discordant items move the capital, by 1 + c or 1 - c: a sequential test of
  McNemar's table. The fractions are Gauss-Legendre nodes on (0, 1), so that up to 31 discordant
  items the average is the integral over all fractions, for b and c discordant items

      K = ∫ (1 + u)^c (1 - u)^b du,  u from 0 to 1.

- `randomised`, where each item went to the challenger with probability s (A = 1), else to the
  champion (A = 0), and only that arm's answer y was judged:

      x = (A - s) (y - g) / (s (1 - s))

  with any guess g of the success rate that is made before: E[x] is the difference of the two
  success rates, the doubly robust score of Waudby-Smith, Wu, Ramdas, Karampatziakis & Mineiro
  2024, "Anytime-valid off-policy inference for contextual bandits". If both arms have the same
  rate, for each item its own, x is centred whatever that rate is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from clr.errors import UsageError
from clr.gate.betting import Floats, Stream, e_value, interval

ALPHA = 0.05
"""Chance that a trial without any difference ever says that there is one."""

EFFECT = 0.03
"""Difference of two success rates that `randomised` bets are tuned to; it is no assumption."""

WORTHWHILE = 0.01
"""A gain that certainly lies below this is not worth a trial any more."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_UNIFORM = ((_NODES + 1) / 2, _WEIGHTS / 2)
_MULTIPLES = np.array([0.5, 1.0, 2.0, 6.0])
_SHARES = np.array([0.2, 0.5, 0.2, 0.1])
_MOST = 0.95


class Verdict(StrEnum):
    """What a trial says so far."""

    HARM = "harm"
    BETTER = "better"
    FUTILE = "futile"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Judged:
    """What the values so far say about their mean, the gain.

    Attributes:
        verdict: what to do.
        n: values.
        estimate: their mean, but -1 at least and 1 at most; 0 without any.
        low, high: confidence sequence of the gain at 1 - alpha, as it is now.
        e_better, e_harm: greatest capital so far of the bets on a gain, and on a loss.
        p: anytime-valid p-value of "there is no difference", two-sided.
        alpha: error rate of the two verdicts `HARM` and `BETTER` together.
    """

    verdict: Verdict
    n: int
    estimate: float
    low: float
    high: float
    e_better: float
    e_harm: float
    p: float
    alpha: float


def shares(right: npt.ArrayLike) -> Stream:
    """Return the stream of one arm's right (1) and wrong (0) answers, [..., n]."""
    values = _checked(right)
    nodes, weights = _UNIFORM
    return Stream(values, np.zeros(1), np.ones(1), nodes, nodes, weights)


def paired(champion: npt.ArrayLike, challenger: npt.ArrayLike) -> Stream:
    """Return the stream of gains on items that both arms answered; 1 right, 0 wrong, [..., n].

    The capital at m = 0 does not depend on the order of the items.

    Raises:
        UsageError: the arms have answered different numbers of items, or not with 0 to 1.
    """
    before, now = _checked(champion), _checked(challenger)
    if before.shape != now.shape:
        raise UsageError(
            f"{before.shape} answers of the champion and {now.shape} of the challenger are no "
            "pairs.",
            fix="Give both arms' answers to the same items.",
        )
    nodes, weights = _UNIFORM
    return Stream(now - before, -np.ones(1), np.ones(1), nodes, nodes, weights)


def randomised(challenger: npt.ArrayLike, right: npt.ArrayLike, share: npt.ArrayLike) -> Stream:
    """Return the stream of scores of items that one arm each answered.

    The guess g is the running success rate of both arms. A bet stakes what would be best (in
    expected log capital) if the rates differed by a multiple of `EFFECT`.

    Args:
        challenger: whether the challenger answered, [..., n].
        right: whether that answer was right, [..., n]; anything from 0 to 1.
        share: probability that the item went to the challenger, [..., n] or one number, set
            before the item came, in (0, 1).

    Raises:
        UsageError: shapes differ, or a share is not between 0 and 1.
    """
    arm, values = _checked(challenger), _checked(right)
    s = np.broadcast_to(np.asarray(share, dtype=np.float64), arm.shape)
    if arm.shape != values.shape or not (np.all(s > 0) and np.all(s < 1)):
        raise UsageError(
            "A randomised trial has an arm, an answer and a share between 0 and 1 for each item.",
            fix="Give three arrays of one shape.",
        )
    known = np.cumsum(values, axis=-1) - values
    guess = (known + 1) / (np.arange(values.shape[-1]) + 2)
    score = (arm - s) * (values - guess) / (s * (1 - s))
    low = np.minimum(-guess / s, -(1 - guess) / (1 - s))
    high = np.maximum((1 - guess) / s, guess / (1 - s))
    best = EFFECT * _MULTIPLES * (s * (1 - s) / (guess * (1 - guess)))[..., None]
    return Stream(
        score,
        low,
        high,
        np.minimum(_MOST, best * -low[..., None]),
        np.minimum(_MOST, best * high[..., None]),
        _SHARES,
    )


def harms(stream: Stream) -> bool:
    """Say whether a stream of gains is judged ``harm``, see `judge`: for who asks that alone."""
    return e_value(stream, "down") >= 2 / ALPHA


def judge(stream: Stream) -> Judged:
    """Return what a stream of gains says; call it as often as you like.

    ``harm`` and ``better``: the bets on a loss, or on a gain, have reached 2/`ALPHA` once, so
    each has probability `ALPHA`/2 at most where there is no such thing. ``futile``: the whole
    confidence sequence lies below `WORTHWHILE`, so that going on cannot show what one hopes
    for; it errs with probability `ALPHA`/2 at most, too.

    Args:
        stream: `paired` or `randomised`.
    """
    low, high = interval(stream, ALPHA)
    better, harm = e_value(stream, "up"), e_value(stream, "down")
    # the mean of few scores can lie beyond what a difference of two rates can be
    estimate = float(np.clip(stream.values.mean(), -1.0, 1.0)) if len(stream) else 0.0
    verdict = Verdict.UNDECIDED
    if harm >= 2 / ALPHA:  # of both, as after a change in the world, the careful one
        verdict = Verdict.HARM
    elif better >= 2 / ALPHA:
        verdict = Verdict.BETTER
    elif high < WORTHWHILE:
        verdict = Verdict.FUTILE
    p = min(1.0, 2 / max(better, harm))
    return Judged(verdict, len(stream), estimate, low, high, better, harm, p, ALPHA)


def _checked(values: npt.ArrayLike) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim == 0 or not np.all((found >= 0) & (found <= 1)):
        raise UsageError(
            "Answers are judged from 0, wrong, to 1, right.", fix="Give one number an item."
        )
    return found
