"""Sequential inference: valid at any time by exact enumeration, and equal to closed forms."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import betainc, betaln

from clr.errors import UsageError
from clr.gate import betting
from clr.gate.betting import log_capital
from clr.gate.sequential import ALPHA, Verdict, judge, paired, randomised, shares

RATE = st.floats(0.02, 0.98)
SHARE = st.floats(0.05, 0.95)
MEAN = st.floats(-0.95, 0.95)
BITS = st.lists(st.booleans(), min_size=1, max_size=40)
SIDES = st.sampled_from(("up", "down"))


def capital(stream, side, mean=0.0):
    return np.exp(log_capital(stream, mean, side))


def followed(known, outcomes, make, side, mean):
    """Return the capital before the next outcome, and its expectation after it."""
    before = capital(make(known), side, mean)[-1] if known else 1.0
    after = sum(p * capital(make([*known, one]), side, mean)[-1] for one, p in outcomes)
    return before, after


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12), RATE, RATE, SHARE, SIDES, MEAN
)
def test_a_randomised_trial_gains_nothing_from_an_effect_that_is_not_there(
    known, champion, challenger, share, side, mean
):
    """After any past, under any pair of rates: E[K | past] <= K if the hypothesis holds."""
    outcomes = [
        ((arm, right), (share if arm else 1 - share) * (rate if right else 1 - rate))
        for arm, rate in ((True, challenger), (False, champion))
        for right in (True, False)
    ]
    before, after = followed(
        known, outcomes, lambda all_: randomised(*zip(*all_, strict=True), share), side, mean
    )
    gain = challenger - champion
    if gain <= mean if side == "up" else gain >= mean:
        assert after <= before * (1 + 1e-9)
    else:
        assert after >= before * (1 - 1e-9)


@given(
    st.lists(st.sampled_from(((1, 1), (0, 0), (1, 0), (0, 1))), max_size=12),
    st.tuples(RATE, RATE, RATE),
    SIDES,
    MEAN,
)
def test_pairs_gain_nothing_from_an_effect_that_is_not_there(known, weights, side, mean):
    same, worse, better = np.asarray(weights) / sum(weights)
    outcomes = [((1, 1), same), ((1, 0), worse), ((0, 1), better)]
    before, after = followed(
        known, outcomes, lambda all_: paired(*zip(*all_, strict=True)), side, mean
    )
    if better - worse <= mean if side == "up" else better - worse >= mean:
        assert after <= before * (1 + 1e-9)


@pytest.mark.parametrize("rate", [0.3, 0.9])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_chance_of_ever_reaching_a_limit_is_what_ville_says(rate, share):
    """All 4^6 trials of six items of arms that are equal, each looked at after every item."""
    outcomes = [(arm, right) for arm in (0, 1) for right in (0, 1)]
    trials = np.asarray(list(product(outcomes, repeat=6)))
    arm, right = trials[..., 0], trials[..., 1]
    chances = np.where(arm, share, 1 - share) * np.where(right, rate, 1 - rate)
    chance = chances.prod(axis=1)
    assert chance.sum() == pytest.approx(1)
    for side in ("up", "down"):
        reached = capital(randomised(arm, right, share), side)
        assert (chance * reached[:, -1]).sum() == pytest.approx(1)
        for limit in (1.1, 1.5, 2.0, 3.0):
            assert chance[reached.max(axis=1) >= limit].sum() <= 1 / limit


@given(st.lists(st.sampled_from((-1, 0, 1)), min_size=1, max_size=31), st.randoms())
def test_pairs_are_the_integral_over_all_bets_in_any_order(gains, random):
    worse, better = gains.count(-1), gains.count(1)
    found = capital(_pairs(gains), "up")[-1]
    expected = quad(lambda u: (1 + u) ** better * (1 - u) ** worse, 0, 1)[0]
    assert found == pytest.approx(expected, rel=1e-9)
    mixed = random.sample(gains, len(gains))
    assert capital(_pairs(mixed), "up")[-1] == pytest.approx(found, rel=1e-9)
    n = worse + better  # the same by the incomplete beta function: theta = (1 + u) / 2
    tail = 1 - betainc(better + 1, worse + 1, 0.5)
    closed = 2.0 ** (n + 1) * np.exp(betaln(better + 1, worse + 1)) * tail
    assert found == pytest.approx(closed, rel=1e-6)


def _pairs(gains):
    values = np.asarray(gains)
    return paired(values < 0, values > 0)


@settings(max_examples=30)
@given(st.lists(st.sampled_from((-1, 0, 1)), min_size=1, max_size=31))
def test_both_sides_together_are_a_published_test(gains):
    """Lindon & Malek 2022 with the prior Beta(1, 1), as savvi has it (pip install savvi)."""
    published = pytest.importorskip("savvi.multinomial")
    test = published.Multinomial(0.05, np.array([0.5, 0.5]), k=2)
    test.update(np.array([gains.count(1), gains.count(-1)]))
    stream = _pairs(gains)
    both = (capital(stream, "up")[-1] + capital(stream, "down")[-1]) / 2
    assert both == pytest.approx(test.odds, rel=1e-9)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), SHARE)
def test_exchanging_the_arms_exchanges_the_sides(items, share):
    arm, right = map(np.asarray, zip(*items, strict=True))
    there, back = randomised(arm, right, share), randomised(~arm, right, 1 - share)
    assert capital(there, "up") == pytest.approx(capital(back, "down"))


@given(BITS, st.floats(0.01, 0.2))
def test_the_interval_is_what_was_never_refuted(right, alpha):
    stream = shares(right)
    low, high = betting.interval(stream, alpha)
    # what was refuted once stays out, so that the mean of all so far may have left it
    assert 0 <= low <= 1
    assert 0 <= high <= 1
    for mean, side in ((low - 1e-4, "up"), (high + 1e-4, "down")):
        if 0 < mean < 1:
            assert capital(stream, side, mean).max() >= 2 / alpha
    for mean, side in ((low + 1e-4, "up"), (high - 1e-4, "down")):
        if 0 < mean < 1:
            assert capital(stream, side, mean).max() < 2 / alpha


def test_the_path_ends_at_the_interval_and_only_narrows():
    random = np.random.default_rng(0)
    stream = randomised(random.random(3000) < 0.5, random.random(3000) < 0.8, 0.5)
    told = betting.path(stream, ALPHA)
    lows, highs = [low for _, low, _ in told], [high for _, _, high in told]
    assert told[-1][0] == 3000
    assert lows == sorted(lows)
    assert highs == sorted(highs, reverse=True)
    low, high = betting.interval(stream, ALPHA)
    assert lows[-1] <= low <= lows[-1] + 0.02
    assert highs[-1] - 0.02 <= high <= highs[-1]


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [((0.9, 0.7), Verdict.HARM), ((0.7, 0.9), Verdict.BETTER), ((0.9, 0.9), Verdict.UNDECIDED)],
)
@pytest.mark.parametrize("pairs", [True, False])
def test_verdict_and_interval_agree(rates, verdict, pairs):
    random = np.random.default_rng(3)
    answers = [random.random(2000) < rate for rate in rates]
    arm = random.random(2000) < 0.3
    stream = paired(*answers) if pairs else randomised(arm, np.where(arm, *answers[::-1]), 0.3)
    told = judge(stream)
    assert told.verdict is verdict
    assert told.low <= rates[1] - rates[0] <= told.high
    assert (told.high < 0) is (verdict is Verdict.HARM)
    assert (told.low > 0) is (verdict is Verdict.BETTER)
    assert (told.p <= 0.05) is (verdict is not Verdict.UNDECIDED)


def test_a_trial_that_cannot_show_a_worthwhile_gain_is_futile():
    same = np.ones(20_000)
    assert judge(paired(same, same)).verdict is Verdict.FUTILE
    assert judge(paired(same[:20], same[:20])).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(("right", "gain"), [(1, 1.0), (0, -1.0)])
def test_the_first_answer_of_a_rare_arm_is_no_gain_beyond_all_answers(right, gain):
    assert judge(randomised([1], [right], 0.1)).estimate == gain


def test_without_answers_nothing_is_known():
    for stream in (paired([], []), randomised([], [], [])):
        told = judge(stream)
        assert (told.verdict, told.low, told.high, told.p) == (Verdict.UNDECIDED, -1, 1, 1)
        assert betting.path(stream, ALPHA) == []


def test_a_false_alarm_is_rarer_than_stated_with_a_look_after_every_answer():
    random = np.random.default_rng(5)
    arm, right = random.random((400, 1500)) < 0.2, random.random((400, 1500)) < 0.9
    stream = randomised(arm, right, 0.2)
    limit = np.log(2 / ALPHA)
    wrong = [(log_capital(stream, 0.0, side) >= limit).any(axis=1) for side in ("up", "down")]
    assert np.mean(wrong[0] | wrong[1]) <= ALPHA


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_that_leaves_an_arm_empty_is_no_trial(share):
    with pytest.raises(UsageError):
        randomised([1, 0], [1, 1], share)


def test_answers_that_are_no_pairs_are_refused():
    with pytest.raises(UsageError, match="no pairs"):
        paired([1, 0], [1])
