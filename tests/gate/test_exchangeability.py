"""A stream that goes on as it began: ranks are uniform, capital is fair, changes are found."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from clr.errors import UsageError
from clr.gate import exchangeability
from clr.gate.exchangeability import LIMIT, Stream

VALUES = st.lists(st.sampled_from((0.0, 0.5, 1.0, 2.0)), min_size=1, max_size=30)


def ranks(values, seed=0, reference=()):
    """The ranks that a stream bets against."""
    stream = Stream(reference, seed=seed)
    return [stream._rank(value) for value in values]


def test_ranks_of_exchangeable_values_are_uniform_and_independent():
    random = np.random.default_rng(1)
    found = np.array(
        [ranks(random.normal(size=8), seed, random.normal(size=5)) for seed in range(1000)]
    )
    for column in found.T:
        assert kstest(column, "uniform").pvalue > 1e-3
    correlation = np.corrcoef(found.T) - np.eye(8)
    assert np.abs(correlation).max() < 0.1


def test_ties_are_broken_evenly():
    assert kstest(ranks(np.zeros(3000)), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("values", [(0.0, 1.0, 2.0, 3.0, 4.0), (0.0, 0.0, 1.0, 5.0, 5.0)])
def test_the_capital_is_fair_over_all_orders(values):
    """Of the 120 orders, 2 values are the reference; ties are averaged over seeds."""
    found = []
    for order in permutations(values):
        for seed in range(8):
            stream = Stream(order[:2], seed=seed)
            for value in order[2:]:
                stream.add(value)
            found.append(stream.capital)
    assert np.mean(found) == pytest.approx(1, abs=0.03)


@given(VALUES, VALUES)
def test_only_the_order_of_values_matters(reference, values):
    """Nothing changes under a strictly increasing function."""
    straight, bent = Stream(reference), Stream(np.exp(reference))
    for value in values:
        straight.add(value)
        bent.add(np.exp(value))
    assert straight.capital == bent.capital


@given(VALUES, VALUES)
def test_what_it_keeps_is_sorted_and_complete(reference, values):
    stream = Stream(reference)
    for value in values:
        stream.add(value)
    kept = stream._known[: len(reference) + len(values)]
    assert list(kept) == sorted([*reference, *values])


def test_false_alarms_are_rarer_than_stated():
    random = np.random.default_rng(2)
    alarms = 0
    for seed in range(150):
        stream = Stream(random.gamma(2, size=40), seed=seed, rate=0.05)
        for value in random.gamma(2, size=400):
            stream.add(value)
        alarms += stream.alarm
    assert alarms <= 150 * 0.05


@pytest.mark.parametrize("shift", [2.0, -2.0])
@pytest.mark.parametrize("before", [0, 1000, 3000])
def test_a_change_is_found_early_or_late(shift, before):
    random = np.random.default_rng(3)
    stream = Stream(random.normal(size=60))
    for value in random.normal(size=before):
        stream.add(value)
    assert not stream.alarm
    needed = next(n for n in range(1, 400) if stream.add(random.normal(shift)))
    assert needed < 80


def test_a_change_that_lasts_leaves_the_capital_a_number():
    stream = Stream([0.0])
    for value in range(3000):
        stream.add(value)
    assert stream.alarm
    assert np.isfinite(stream.capital)


def test_without_a_reference_it_is_compared_with_its_own_past():
    random = np.random.default_rng(4)
    stream = Stream()
    for value in random.normal(size=500):
        stream.add(value)
    assert not stream.alarm
    assert any(stream.add(random.normal(3)) for _ in range(100))


def test_after_its_limit_it_begins_anew(monkeypatch):
    monkeypatch.setattr(exchangeability, "LIMIT", 50)
    stream = Stream([0.0, 1.0])
    for value in np.random.default_rng(5).normal(size=51):
        stream.add(value)
    assert stream.count == 1
    assert list(stream._known[:3]) == sorted(stream._known[:3])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(UsageError):
        Stream().add(value)
    with pytest.raises(UsageError):
        Stream([value])
    with pytest.raises(UsageError):
        Stream(rate=value)


def test_more_reference_than_is_kept_is_refused():
    with pytest.raises(UsageError):
        Stream(range(LIMIT + 1))
