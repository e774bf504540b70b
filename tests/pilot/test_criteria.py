"""Go or no-go: each criterion by its definition, and the decision over all of them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.errors import UsageError
from clr.gate.statistics import paired_interval
from clr.pilot import criteria
from clr.pilot.criteria import Criterion, Pairs, Today
from tests.pilot.documents import BUSINESS, CURVE, GATE, document

few = settings(max_examples=60)


@st.composite
def pairs(draw: st.DrawFn) -> Pairs:
    both, regressed, repaired, neither = (draw(st.integers(0, 60)) for _ in range(4))
    n = both + regressed + repaired + neither
    return Pairs(max(1, n), both + regressed, regressed, repaired)


# --- gain


@few
@given(pairs())
def test_without_a_rate_of_today_the_gain_is_the_gates_own_interval_over_the_probe(
    one: Pairs,
) -> None:
    found = criteria.gain("gain", one, None)
    low, high = paired_interval(one.regressed, one.repaired, one.n)
    assert (found.facts["gain"]["low"], found.facts["gain"]["high"]) == (low, high)
    assert (found.answer == "met") == (low > 0)
    assert (found.answer == "not met") == (high <= 0)


def test_against_a_sample_of_today_the_interval_is_newcombes() -> None:
    """Newcombe 1998, Statistics in Medicine 17:873, table II, (a) 56/70 - 48/80, method 10."""
    found = criteria.gain("gain", Pairs(70, 50, 0, 6), Today.sample(32, 80))
    gained = found.facts["gain"]
    assert (gained["low"], gained["high"]) == (
        pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5),
    )  # fmt: skip
    assert found.answer == "met"
    assert found.facts["today"]["kind"] == "measured"


@few
@given(pairs(), st.floats(0, 1))
def test_a_rate_that_was_given_has_no_width(one: Pairs, error: float) -> None:
    found = criteria.gain("gain", one, Today(error)).facts
    right, gained = found["accuracy"], found["gain"]
    assert gained["low"] == pytest.approx(right["low"] - (1 - error))
    assert gained["high"] == pytest.approx(right["high"] - (1 - error))
    assert found["today"]["kind"] == "assumed"


def test_pairs_are_counted_from_answers() -> None:
    labels, before, after = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [1, 0, 1, 1, 0]])
    assert Pairs.of(labels, before, after) == Pairs(5, 2, 1, 2)
    assert Pairs(5, 2, 1, 2).after == 3


# --- the other criteria


@pytest.mark.parametrize(
    ("verdict", "answer"), [("pass", "met"), ("fail", "not met"), ("inconclusive", "unknown")]
)
def test_retention_is_the_gates_verdict(verdict: str, answer: str) -> None:
    assert criteria.retention({**GATE, "verdict": verdict}).answer == answer


@pytest.mark.parametrize(
    ("verdict", "low", "answer"),
    [
        ("reached", 90.0, "met"),
        ("reachable", 90.0, "unknown"),
        ("reachable", 1500.0, "not met"),
        ("unsure", 90.0, "unknown"),
        ("far", 90.0, "not met"),
    ],
)
def test_data_is_enough_where_the_whole_interval_is_at_hand(
    verdict: str, low: float, answer: str
) -> None:
    curve = {**CURVE, "needed": {**CURVE["needed"], "verdict": verdict, "low": low}}
    assert criteria.data(curve, 0.9, 1200).answer == answer


def test_no_curve_is_unknown_and_says_why() -> None:
    found = criteria.data(None, 0.9, 30, "too few")
    assert (found.answer, found.facts["reason"]) == ("unknown", "too few")


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(20.0, 5.0, "met"), (None, 5.0, "unknown"), (None, None, "not met"), (90.0, 40.0, "not met")],
)
def test_payback_is_asked_at_the_cautious_end(
    low: float | None, high: float | None, answer: str
) -> None:
    case = {
        "payback_months": {"low": low, "middle": high, "high": high},
        "horizon_years": {"value": 3.0},
    }
    assert criteria.payback(case).answer == answer


@pytest.mark.parametrize("missing", sorted(criteria.PAYBACK_NEEDS))
def test_a_missing_assumption_is_named_and_never_a_zero(missing: str) -> None:
    given = {name: value for name, value in BUSINESS.items() if name != missing}
    (payback,) = (one for one in document(business=given)["criteria"] if one["name"] == "payback")
    assert payback == {"name": "payback", "answer": "unknown", "missing": [missing]}


# --- the decision


def test_the_decision_over_every_combination_of_answers() -> None:
    answers = ("met", "not met", "unknown")
    for found in product(answers, repeat=4):
        for tried, site in [(False, "unknown"), *((True, one) for one in answers)]:
            stages = [
                *map(Criterion, ("gain", "retention", "data", "payback"), found),
                Criterion("site", site, {"n": 10} if tried else {}),  # type: ignore[arg-type]
            ]
            decision, following = criteria.decide(stages)
            if "not met" in (*found, site):
                assert (decision, following) == ("no-go", "stop")
            elif set(found) == {"met"} and site == "met":
                assert (decision, following) == ("go", "onboard")
            elif set(found) == {"met"} and not tried:
                assert (decision, following) == ("go", "site-trial")
            else:
                assert (decision, following) == ("open", "close-gaps")


@pytest.mark.parametrize("error", [-0.1, 1.1, float("nan")])
def test_an_error_rate_that_cannot_be_is_refused(error: float) -> None:
    with pytest.raises(UsageError):
        Today(error)


@pytest.mark.parametrize(("wrong", "of"), [(1, 0), (5, 4), (-1, 4)])
def test_a_sample_that_cannot_be_is_refused(wrong: int, of: int) -> None:
    with pytest.raises(UsageError):
        Today.sample(wrong, of)
