"""Who meets whom: units are sticky, assignment is even, and what that makes of their labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest

from clr.registry.trial import Trial
from clr.serving import trials
from clr.serving.trials import Labelled, meets_challenger, unit_of

TRIAL = Trial("0123456789abcdef" * 2, 0.1, "sha256:" + "a" * 64, "2026-01-01T00:00:00+00:00")


@given(st.text(min_size=1, max_size=40), st.floats(0, 0.9), st.floats(0, 0.9))
def test_a_unit_stays_in_its_arm_and_a_greater_share_only_adds_units(unit, one, other):
    small, large = sorted((one, other))
    here = unit_of(TRIAL, unit, "request a")
    assert here == unit_of(TRIAL, unit, "request b")
    if meets_challenger(replace(TRIAL, share=small), here):
        assert meets_challenger(replace(TRIAL, share=large), here)


@pytest.mark.parametrize("name", ["serial-{}", "{}", "2026-01-01T00:00:{}", "{0:032x}"])
def test_assignment_is_even_whatever_units_are_called(name):
    units = [unit_of(TRIAL, name.format(number), "") for number in range(20_000)]
    met = sum(meets_challenger(TRIAL, unit) for unit in units)
    assert binomtest(met, len(units), TRIAL.share).pvalue > 1e-4
    assert kstest([int(unit[:16], 16) / 2**64 for unit in units], "uniform").pvalue > 1e-4


def test_another_trial_assigns_anew():
    other = replace(TRIAL, id="f" * 32)
    both = Counter(
        (
            meets_challenger(TRIAL, unit_of(TRIAL, str(number), "")),
            meets_challenger(other, unit_of(other, str(number), "")),
        )
        for number in range(20_000)
    )
    assert binomtest(both[True, True], 20_000, 0.01).pvalue > 1e-4


def test_an_item_without_a_unit_is_a_unit_of_its_own():
    assert unit_of(TRIAL, None, "a") == unit_of(TRIAL, "", "a") != unit_of(TRIAL, None, "b")
    assert unit_of(TRIAL, "a", "x") != unit_of(TRIAL, None, "a"), "a unit is no request"


def test_a_share_of_zero_gives_nobody_the_challenger():
    shadow = replace(TRIAL, share=0.0)
    assert not any(meets_challenger(shadow, f"{n:032x}") for n in range(1000))


def test_the_first_label_counts_of_pairs_and_of_shares_alike():
    shadow = replace(TRIAL, share=0.0)
    unit = Labelled("champion", 0.0, "left", "right", "left", 0.0)
    assert trials.stream(shadow, [unit]).values.tolist() == [-1.0]
    arms = [
        Labelled("champion", 0.1, "left", "", "left", 0.0),
        Labelled("challenger", 0.1, "", "left", "right", 1.0),
    ]
    assert [one.right for one in arms] == [True, False]
    assert len(trials.stream(TRIAL, arms)) == 2
