"""How many images show the gain on site: the number answers what stage 3 asks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clr.gate.statistics import paired_interval
from clr.pilot import criteria
from clr.pilot.criteria import Pairs, Today
from clr.pilot.sizes import FEWEST, images_to_show, not_yet
from clr.pilot.words import result_of
from tests.pilot.documents import PAIRS

SMALL = Pairs(400, 200, 0, 180)
"""Right are 200 by the probe, 380 by the adapter."""


def test_over_the_probe_they_have_the_power_that_they_promise() -> None:
    """Simulated: the paired interval excludes zero in about 80 of 100 trials of that size."""
    needed = images_to_show(PAIRS, None)
    assert needed is not None
    random = np.random.default_rng(0)
    shares = [PAIRS.regressed / PAIRS.n, PAIRS.repaired / PAIRS.n]
    drawn = random.multinomial(needed, [*shares, 1 - sum(shares)], 500)
    shown = [paired_interval(b, c, needed)[0] > 0 for b, c, _ in drawn.tolist()]
    assert 0.7 < np.mean(shown) < 0.9


@pytest.mark.parametrize(
    ("pairs", "today"),
    [
        (SMALL, Today(0.06)),
        (SMALL, Today(0.1)),
        (PAIRS, Today(0.12)),
        (PAIRS, Today.sample(120, 600)),
        (PAIRS, Today.sample(15, 100)),
        (Pairs(60, 40, 0, 0), Today(0.6)),
    ],
)
def test_over_today_they_have_the_power_that_they_promise(pairs: Pairs, today: Today) -> None:
    """Simulated: stage 3 is met in about 80 of 100 trials of that size, against the same today."""
    needed = images_to_show(pairs, today)
    assert needed is not None
    drawn = np.random.default_rng(0).binomial(needed, pairs.after / pairs.n, 4000)
    shown = {
        right: criteria.gain("site", Pairs(needed, right, 0, 0), today).answer == "met"
        for right in np.unique(drawn).tolist()
    }
    power = np.mean([shown[right] for right in drawn.tolist()])
    assert power > 0.78
    assert power < 0.84 or needed < 100


@pytest.mark.parametrize("error", [0.06, 0.07, 0.08, 0.1])
def test_over_a_rate_that_was_given_they_are_those_of_the_textbook(error: float) -> None:
    """Fleiss, Levin & Paik 2003, ch. 2: the score test of one share against a known one."""
    was, now = 1 - error, SMALL.after / SMALL.n
    spread = 1.959964 * math.sqrt(was * error) + 0.841621 * math.sqrt(now * (1 - now))
    assert images_to_show(SMALL, Today(error)) == pytest.approx(
        (spread / (now - was)) ** 2, rel=0.05
    )


def test_the_probe_has_no_say_where_today_is_known() -> None:
    """The gain over a bad probe is large, that over today is one point; and the other way round."""
    assert images_to_show(SMALL, None) == FEWEST
    small = images_to_show(SMALL, Today(0.06))
    assert small is not None
    assert small > 4000
    assert images_to_show(Pairs(100, 100, 0, 0), None) is None
    assert images_to_show(Pairs(100, 100, 0, 0), Today(0.3)) == FEWEST


@pytest.mark.parametrize(
    ("pairs", "today", "says"),
    [
        (Pairs(100, 80, 5, 5), None, "no gain was seen"),
        (Pairs(100, 50, 0, 30), Today(0.1), "no gain was seen"),
        (PAIRS, Today(0.0901), "so small"),
        (PAIRS, Today.sample(3, 20), "so unsure"),  # 15 % (5 to 36), and 9 % by the adapter
    ],
)
def test_there_may_be_no_number_that_shows_it(pairs: Pairs, today: Today | None, says: str) -> None:
    found = not_yet(pairs, today).as_dict()
    assert found["images_needed"] is None
    assert says in result_of(found, "en")


def test_a_better_known_today_needs_fewer_images() -> None:
    given, large, small = (
        images_to_show(PAIRS, today)
        for today in (Today(0.2), Today.sample(200, 1000), Today.sample(30, 150))
    )
    assert given is not None
    assert large is not None
    assert small is not None
    assert given <= large < small
