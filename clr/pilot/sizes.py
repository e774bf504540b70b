"""How many images of the line show a gain as large as the one that a pilot saw (pure)."""

from __future__ import annotations

import math
from bisect import bisect_left

from scipy.special import bdtrc

from clr.pilot.criteria import Criterion, Pairs, Today, gain

Z_BOTH, Z_POWER = 1.959964, 0.841621
"""Normal quantiles of a two-sided 5 % and of 80 % power."""

POWER = 0.8
FEWEST, MOST = 20, 1_000_000
"""Images of a trial: fewer say nothing of a line, and nobody labels more."""


def not_yet(pairs: Pairs, today: Today | None) -> Criterion:
    """Return the criterion of stage 3 before there are images of the line."""
    seen = gain("site", pairs, today).facts["gain"]["middle"]
    facts = {"images_needed": images_to_show(pairs, today), "gain_seen": seen}
    return Criterion("site", "unknown", facts)


def images_to_show(pairs: Pairs, today: Today | None) -> int | None:
    """Return how many images show the gain that was seen, against what stage 3 compares with.

    None where no gain was seen, or where not even `MOST` images show it.
    """
    needed = _over_probe(pairs) if today is None else _over_today(pairs, today)
    if needed is None or needed > MOST:
        return None
    return max(FEWEST, needed)


def _over_probe(pairs: Pairs) -> int | None:
    """Return the size of a paired test of two proportions at 5 % and 80 % power.

    n = ((z_0.975 + z_0.8) / gain)² · (discordant share - gain²) (Lachin 1992, eq. 4, with the
    unconditional variance).
    """
    gained = (pairs.repaired - pairs.regressed) / pairs.n
    if gained <= 0:
        return None
    discordant = (pairs.repaired + pairs.regressed) / pairs.n
    return math.ceil(((Z_BOTH + Z_POWER) / gained) ** 2 * (discordant - gained**2))


def _over_today(pairs: Pairs, today: Today) -> int | None:
    """Return a number n of images with P(X ≥ x) ≥ 0.8, by exact binomial power.

    X ~ Bin(n, p1) images are right, p1 being the share that was seen, and x is the least number
    that stage 3 calls a gain. Where today's accuracy p0 was given that is the score test of one
    share, and n is about ((z_0.975 √(p0 q0) + z_0.8 √(p1 q1)) / (p1 - p0))² (Fleiss, Levin & Paik
    2003, ch. 2). Where it was measured, its sample stays the same at the trial: it widens the
    interval and is not drawn anew. The power is a sawtooth in n (Chernick & Liu 2002): some
    numbers below n may do, too, and some above fall short by a little.
    """
    right = pairs.after / pairs.n
    if right <= 1 - today.error:
        return None

    def power(n: int) -> float:
        return float(bdtrc(_least_shown(n, today) - 1, n, right))

    return FEWEST + bisect_left(range(FEWEST, MOST + 1), POWER, key=power)


def _least_shown(n: int, today: Today) -> int:
    """Return the fewest right answers of n that stage 3 calls a gain; n + 1 where all are not."""

    def shown(right: int) -> bool:
        return gain("site", Pairs(n, right, 0, 0), today).answer == "met"

    return bisect_left(range(n + 1), True, key=shown)
