"""Intervals and transfer: what they promise, and cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.compare.statistics import (
    forward_transfer,
    items_interval,
    mean_interval,
    paired,
    transfer,
)
from clr.errors import UsageError

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=12)


def test_students_interval_of_three_seeds():
    found = mean_interval([0.80, 0.82, 0.84])
    assert found.mean == pytest.approx(0.82)
    half = 4.302653 * 0.02 / 3**0.5  # t of two degrees of freedom
    assert (found.low, found.high) == (pytest.approx(0.82 - half), pytest.approx(0.82 + half))


def test_one_seed_has_no_interval():
    assert mean_interval([0.7]).to_dict() == {"mean": 0.7, "low": None, "high": None, "n": 1}


@pytest.mark.parametrize("values", [[], [float("nan")], [0.5, float("inf")]])
def test_what_has_no_mean_is_refused(values: list[float]):
    with pytest.raises(UsageError):
        mean_interval(values)


@given(SHARES)
def test_an_interval_holds_its_mean_and_equal_values_have_none(values: list[float]):
    found = mean_interval(values)
    assert found.low <= found.mean <= found.high
    assert (found.high - found.low < 1e-9) == (np.std(values) < 1e-10)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(0.8, 0.03, (2000, 3))
    held = [one.low <= 0.8 <= one.high for one in map(mean_interval, draws.tolist())]
    assert 0.935 < np.mean(held) < 0.965


@given(SHARES)
def test_pairing_takes_out_what_both_share(values: list[float]):
    hard = np.array(values)
    found = paired(hard + 0.05, hard)
    assert found.mean == pytest.approx(0.05)
    assert found.high - found.low < 1e-9


def test_what_does_not_match_is_not_paired():
    with pytest.raises(UsageError):
        paired(np.zeros((2, 3)), np.zeros((3, 2)))


def test_items_of_several_seeds_are_still_one_item_each():
    random = np.random.default_rng(1)
    ours, theirs = random.random(400) < 0.8, random.random(400) < 0.7
    once = items_interval([[ours]], [[theirs]])
    thrice = items_interval([[ours] * 3], [[theirs] * 3])
    assert thrice == once
    assert once.n == 400
    assert once.mean == pytest.approx(ours.mean() - theirs.mean())


def test_tasks_weigh_the_same_whatever_their_number_of_items():
    small = [[np.array([True, True])]], [[np.array([False, False])]]
    large = [[np.zeros(998, dtype=bool)]], [[np.zeros(998, dtype=bool)]]
    found = items_interval(small[0] + large[0], small[1] + large[1])
    assert found.mean == pytest.approx(0.5)


def test_forward_transfer_is_over_all_tasks_but_the_first():
    assert forward_transfer([0.1, 0.9, 0.8], [0.9, 0.8, 0.8]) == pytest.approx(0.05)
    assert forward_transfer([0.9], [0.9]) is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_tasks_that_never_change_are_neither_forgotten_nor_better(accuracies: list[float]):
    size = len(accuracies)
    matrix = np.tril(np.tile(accuracies, (size, 1)))
    found = transfer(matrix)
    assert found["forgetting"] == pytest.approx(0)
    assert found["backward_transfer"] == pytest.approx(0)
