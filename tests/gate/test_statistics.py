"""Every statistic against a source that does not share its code."""

from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binom, multinomial, norm

from clr.errors import UsageError
from clr.gate.statistics import (
    average_accuracy,
    backward_transfer,
    forgetting,
    items_needed,
    paired_drop_limit,
    paired_interval,
    score_drop_limit,
    wilson_interval,
)

# busy machines are slow, which is no failure
few = settings(max_examples=60)

# --- one share


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_is_the_published_one(right, n, low, high):
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=5e-5)


@few
@given(st.integers(1, 5000), st.data())
def test_wilson_interval_holds_the_share_and_mirrors(n, data):
    right = data.draw(st.integers(0, n))
    low, high = wilson_interval(right, n)
    assert 0 <= low <= right / n <= high <= 1
    assert wilson_interval(n - right, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


# --- paired differences: Tango's score limit


@pytest.mark.parametrize(
    ("b", "c", "n", "alpha", "low", "high", "digits"),
    [
        # Tango 1998, section 6.1 (soft contact lenses): 90 % interval of -0.096 to 0.037
        (0, 1, 44, 0.10, -0.096, 0.037, 3),
        # the 95 % interval of Tango's other example, as checked by R's ratesci
        (9, 3, 32, 0.05, -0.027, 0.390, 3),
        # Fagerland, Lydersen & Laake 2017, chapter 8: Bentur et al. 2009, Cavo et al. 2012
        (1, 7, 21, 0.05, -0.517, -0.026, 3),
        (6, 16, 161, 0.05, -0.1240, -0.0054, 4),
        # R PropCIs::scoreci.mp
        (28, 25, 618, 0.10, -0.0148, 0.0247, 4),
    ],
)
def test_score_limits_are_the_published_ones(b, c, n, alpha, low, high, digits):
    found = (-score_drop_limit(c, b, n, alpha / 2), score_drop_limit(b, c, n, alpha / 2))
    assert tuple(round(end, digits) for end in found) == (low, high)


def likelihood_score(b, c, n, drop):
    """The score statistic from its definition: the nuisance share maximises the likelihood."""

    def minus_log_likelihood(p_c):
        shares = np.array([p_c + drop, p_c, 1 - 2 * p_c - drop])
        counts = np.array([b, c, n - b - c])
        with np.errstate(divide="ignore", invalid="ignore"):
            return -np.sum(np.where(counts > 0, counts * np.log(shares), 0.0))

    bounds = (max(0.0, -drop) + 1e-13, (1 - drop) / 2 - 1e-13)
    p_c = minimize_scalar(minus_log_likelihood, bounds=bounds, options={"xatol": 1e-13}).x
    return (b - c - n * drop) / np.sqrt(n * (2 * p_c + drop - drop**2))


@pytest.mark.parametrize(("b", "c", "n"), [(3, 1, 40), (12, 9, 200), (1, 8, 120), (30, 2, 90)])
def test_score_limit_is_where_the_likelihood_score_meets_the_quantile(b, c, n):
    limit = brentq(
        lambda drop: likelihood_score(b, c, n, drop) + norm.ppf(0.95), (b - c) / n + 1e-6, 0.999
    )
    assert score_drop_limit(b, c, n, 0.05) == pytest.approx(limit, abs=1e-6)


# --- paired differences: the gate's limit


@pytest.mark.parametrize(("n", "limit"), [(18, 0.153), (260, 0.0115)])
def test_without_any_regression_the_limit_is_the_exact_binomial_one(n, limit):
    assert paired_drop_limit(0, 0, n) == pytest.approx(limit, abs=5e-5 if n > 100 else 5e-4)
    assert paired_drop_limit(0, 0, n) == pytest.approx(1 - 0.05 ** (1 / n), rel=1e-9)


@pytest.mark.parametrize(("b", "n"), [(1, 20), (3, 50), (8, 300)])
def test_with_regressions_only_the_limit_is_the_exact_binomial_one(b, n):
    exact = brentq(lambda share: binom.cdf(b, n, share) - 0.05, 1e-9, 1 - 1e-9)
    assert paired_drop_limit(b, 0, n) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(("b", "c"), list(product(range(6), range(12))))
def test_a_gain_is_shown_only_where_the_exact_sign_test_shows_it(b, c):
    chance = sum(Fraction(comb(b + c, k), 2 ** (b + c)) for k in range(b + 1))
    if paired_drop_limit(b, c, 200) < 0:
        assert chance <= Fraction(5, 100)


@pytest.mark.parametrize("alpha", [0.001, 0.025, 0.05, 0.2])
def test_the_limit_rises_with_every_regression_and_falls_with_every_repair(alpha):
    for n in (1, 12, 37, 200):
        limits = {
            (b, c): paired_drop_limit(b, c, n, alpha)
            for b, c in product(range(31), range(31))
            if b + c <= n
        }
        for (b, c), here in limits.items():
            assert limits.get((b + 1, c), 1.0) > here - 1e-9, (b, c, n)
            assert limits.get((b, c + 1), -1.0) < here + 1e-9, (b, c, n)


@pytest.mark.parametrize("n", [18, 40])
def test_exact_error_rate_over_all_outcomes_stays_near_alpha(n):
    """Sum the probability of every table whose limit would claim less than the true drop."""
    tables = np.array([(b, c) for b in range(n + 1) for c in range(n + 1 - b)])
    limits = np.array([paired_drop_limit(int(b), int(c), n, 0.05) for b, c in tables])
    counts = np.column_stack([tables, n - tables.sum(1)])
    worst = 0.0
    for drop, shared in product((0.0, 0.02, 0.05, 0.1, 0.2), (0.0, 0.01, 0.05, 0.15)):
        chance = multinomial.pmf(counts, n, [shared + drop, shared, 1 - 2 * shared - drop])
        worst = max(worst, chance[limits < drop - 1e-9].sum())
    assert worst < 0.065


def test_coverage_by_simulation_at_the_margin():
    """A true drop of exactly the margin is passed in about 5 % of experiments, not more."""
    rng = np.random.default_rng(20_26)
    for n, shared in ((250, 0.01), (400, 0.03), (1000, 0.05)):
        draws = rng.multinomial(n, [shared + 0.02, shared, 1 - 2 * shared - 0.02], size=2000)
        passed = np.mean([paired_drop_limit(int(b), int(c), n) < 0.02 for b, c, _ in draws])
        assert passed < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_interval_covers_the_true_gain_by_simulation():
    rng = np.random.default_rng(7)
    n, lost, won = 300, 0.04, 0.09
    draws = rng.multinomial(n, [lost, won, 1 - lost - won], size=2000)
    ends = [paired_interval(int(b), int(c), n) for b, c, _ in draws]
    covered = np.mean([low <= won - lost <= high for low, high in ends])
    assert 0.935 <= covered <= 0.975


@few
@given(st.integers(1, 400), st.data())
def test_interval_holds_the_gain_and_mirrors(n, data):
    b = data.draw(st.integers(0, n))
    c = data.draw(st.integers(0, n - b))
    low, high = paired_interval(b, c, n)
    assert -1 <= low <= (c - b) / n <= high <= 1
    assert paired_interval(c, b, n) == pytest.approx((-high, -low))


@few
@given(st.floats(0.001, 0.5), st.floats(0.01, 0.2))
def test_items_needed_is_the_fewest_that_can_pass(margin, alpha):
    n = items_needed(margin, alpha)
    assert paired_drop_limit(0, 0, n, alpha) < margin
    assert n == 1 or paired_drop_limit(0, 0, n - 1, alpha) >= margin - 1e-9


@pytest.mark.parametrize(
    "call",
    [
        lambda: paired_drop_limit(-1, 0, 10),
        lambda: paired_drop_limit(6, 5, 10),
        lambda: paired_drop_limit(0, 0, 0),
        lambda: paired_drop_limit(1, 1, 10, alpha=0.6),
        lambda: wilson_interval(3, 2),
        lambda: items_needed(0.0),
        lambda: average_accuracy(np.ones((2, 3))),
    ],
)
def test_counts_that_make_no_sense_are_refused(call):
    with pytest.raises(UsageError):
        call()


# --- accuracy matrix


def test_matrix_metrics_on_an_example_worked_by_hand():
    matrix = np.array([[0.90, 0, 0], [0.94, 0.80, 0], [0.85, 0.82, 0.70]])
    assert average_accuracy(matrix) == pytest.approx((0.85 + 0.82 + 0.70) / 3)
    assert backward_transfer(matrix) == pytest.approx(((0.85 - 0.90) + (0.82 - 0.80)) / 2)
    assert forgetting(matrix) == pytest.approx(((0.94 - 0.85) + (0.80 - 0.82)) / 2)


def test_the_first_task_has_nothing_to_forget():
    assert backward_transfer(np.array([[0.9]])) is None
    assert forgetting(np.array([[0.9]])) is None
