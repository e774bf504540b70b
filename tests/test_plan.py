"""Learning curves: power laws are found again, intervals hold, limits are told."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from clr.errors import DataRefused, UsageError
from clr.plan import (
    FEWEST_SIZES,
    MOST_SIZES,
    Curve,
    Point,
    affordable,
    as_document,
    check_pilot,
    fit_curve,
    subset,
    subset_sizes,
)

Law = tuple[float, float, float]
LAWS = st.tuples(st.floats(0.5, 4), st.floats(0.1, 1.5), st.floats(0, 0.3))
SIZES = (25, 50, 100, 200, 400, 800)


def error(law: Law, images: float) -> float:
    a, b, c = law
    return a * images**-b + c


def exact(law: Law, held: int = 10**6) -> Curve:
    """The curve through points that lie on a law."""
    points = [Point(size, 1 - error(law, size)) for size in SIZES for _ in range(3)]
    return fit_curve(points, held, SIZES[-1])


def measured(law: Law, pilot: int, classes: int, held: int, seed: int) -> Curve:
    """A curve as it is measured.

    One held-out sample judges all models; subsets share images of one pilot set, and how good a
    model is depends on its images as much as half the held-out sample's own error.
    """
    random = np.random.default_rng(seed)
    hardness, luck = random.random(held), random.standard_normal()
    points = []
    for size in subset_sizes(pilot, classes):
        shared = size / pilot
        for _ in range(5 if size < pilot else 1):
            other = np.sqrt(shared) * luck + np.sqrt(1 - shared) * random.standard_normal()
            expected = error(law, size)
            spread = 0.5 * np.sqrt(expected * (1 - expected) / held)
            wrong = float(np.mean(hardness < expected + spread * other))
            points.append(Point(size, 1 - wrong))
    return fit_curve(points, held, pilot, seed)


# ---- the fit ------------------------------------------------------------------------------


@settings(max_examples=60)
@given(law=LAWS)
@example(law=(3.0, 0.5, 0.0))
def test_a_law_without_noise_is_found_again(law: Law) -> None:
    assume(error(law, SIZES[0]) < 1)
    curve = exact(law)
    for images in (100, 800, 3200):
        found = curve.accuracy(images)
        assert found.middle == pytest.approx(1 - error(law, images), abs=2e-3)
        assert found.low <= found.middle <= found.high


@pytest.mark.parametrize("law", [(2, 0.5, 0.05), (1.2, 0.3, 0.0)], ids=str)
def test_the_interval_holds_what_it_promises_about_as_often_as_it_says(law: Law) -> None:
    """Nominally 95 of 100. Of accuracies at the pilot's size and four times it, and of images."""
    hits: dict[str, list[bool]] = {"now": [], "later": [], "needed": []}
    target = 1 - error(law, 1200)
    for seed in range(60):
        curve = measured(law, 400, 4, 200, seed)
        for name, images in (("now", 400), ("later", 1600)):
            found = curve.accuracy(images)
            hits[name].append(found.low <= 1 - error(law, images) <= found.high)
        needed = curve.needed(target)
        hits["needed"].append(needed.low <= 1200 <= needed.high)
    assert {name: np.mean(many) > 0.85 for name, many in hits.items()} == dict.fromkeys(hits, True)


def test_the_interval_is_no_wider_than_what_was_measured_warrants() -> None:
    many, few = (measured((2, 0.5, 0.05), 400, 4, held, 1).accuracy(800) for held in (4000, 100))
    assert many.high - many.low < 0.06
    assert few.high - few.low > 2 * (many.high - many.low)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), first=st.integers(1, 10**6), more=st.integers(1, 10**6))
def test_more_images_are_never_foretold_to_be_worse(seed: int, first: int, more: int) -> None:
    random = np.random.default_rng(seed)
    curve = fit_curve([Point(size, random.random()) for size in SIZES], 100, SIZES[-1])
    less, most = curve.accuracy(first), curve.accuracy(first + more)
    assert less.middle <= most.middle
    assert less.low <= most.low
    assert 0 <= less.low <= less.middle <= less.high <= 1


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), low=st.floats(0.01, 0.99), high=st.floats(0.01, 0.99))
def test_a_higher_target_never_needs_fewer_images(seed: int, low: float, high: float) -> None:
    random = np.random.default_rng(seed)
    curve = fit_curve([Point(size, random.random()) for size in SIZES], 100, SIZES[-1])
    less, more = (curve.needed(target) for target in sorted((low, high)))
    assert less.low <= more.low
    assert less.middle <= more.middle
    assert less.high <= more.high


def test_equal_measurements_give_equal_curves() -> None:
    one, other = (measured((2, 0.5, 0.05), 400, 4, 200, 3) for _ in range(2))
    assert as_document(one, 0.9) == as_document(other, 0.9)


# ---- what a target needs --------------------------------------------------------------------


@settings(max_examples=40)
@given(law=LAWS, factor=st.floats(0.2, 5))
def test_what_is_needed_reaches_the_target(law: Law, factor: float) -> None:
    assume(error(law, SIZES[0]) < 1)
    curve = exact(law)
    target = curve.accuracy(SIZES[-1] * factor).middle
    assume(target < curve.asymptote.middle - 1e-3)
    needed = curve.needed(target).middle
    assert curve.accuracy(needed).middle >= target - 1e-9
    assert curve.accuracy(max(1, needed - 2)).middle <= target + 1e-9


@pytest.mark.parametrize(
    ("law", "held", "target", "verdict"),
    [
        ((2, 0.5, 0.02), 10**6, 0.85, "reached"),
        ((2, 0.5, 0.02), 10**6, 0.94, "reachable"),
        ((2, 0.5, 0.02), 10**6, 0.97, "far"),
        ((2, 0.5, 0.10), 10**6, 0.95, "not reachable"),
        ((2, 0.5, 0.02), 60, 0.95, "unsure"),
    ],
)
def test_a_target_is_called_what_it_is(law: Law, held: int, target: float, verdict: str) -> None:
    curve = exact(law, held)
    assert curve.verdict(target) == verdict
    needed = as_document(curve, target)["needed"]
    assert needed["verdict"] == verdict
    assert (needed["low"] is None) == (verdict == "not reachable")


# ---- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "points",
    [
        [],
        [Point(size, 0.5) for size in SIZES[: FEWEST_SIZES - 1]] * 5,
        [Point(size, math.nan) for size in SIZES],
        [Point(size, 1.2) for size in SIZES],
        [Point(size - 25, 0.5) for size in SIZES],
        [Point(size + 1, 0.5) for size in SIZES],
    ],
    ids=["none", "three sizes", "not a number", "above 1", "no images", "beyond the pilot"],
)
def test_points_that_cannot_be_are_refused(points: list[Point]) -> None:
    with pytest.raises(UsageError):
        fit_curve(points, 100, SIZES[-1])


@pytest.mark.parametrize(
    ("counts", "held", "says"),
    [
        ([14, 14], 100, "28 training images; .* at least 29"),
        ([300, 3], 100, "3 training images in its smallest class"),
        ([300, 0], 100, "0 training images in its smallest class"),
        ([300, 300], 19, "19 held-out images"),
    ],
)
def test_a_pilot_set_that_is_too_small_is_refused(counts: list[int], held: int, says: str) -> None:
    with pytest.raises(DataRefused, match=says):
        check_pilot(counts, held)


# ---- what is measured -----------------------------------------------------------------------

CLASSES = st.lists(st.integers(4, 60), min_size=2, max_size=8)


@settings(max_examples=60)
@given(counts=CLASSES, seed=st.integers(0, 99), data=st.data())
def test_a_subset_has_each_class_in_its_share(
    counts: list[int], seed: int, data: st.DataObject
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    size = data.draw(st.integers(2 * len(counts), len(labels)))
    chosen = subset(labels, size, seed)
    assert len(set(chosen.tolist())) == len(chosen) == size
    found = np.bincount(labels[chosen], minlength=len(counts))
    share = np.array(counts) * size / len(labels)
    assert min(found) >= 2
    assert all(found <= np.maximum(np.ceil(share), 2))
    assert np.array_equal(chosen, subset(labels, size, seed))
    assert size == len(labels) or not np.array_equal(chosen, subset(labels, size, seed + 100))


@pytest.mark.parametrize("size", [3, 25])
def test_a_subset_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"{size} images of 24"):
        subset(np.repeat([0, 1], 12), size, 0)


@given(classes=st.integers(2, 100), factor=st.floats(1, 300))
def test_sizes_go_in_equal_ratios_from_a_few_a_class_to_all(classes: int, factor: float) -> None:
    images = math.ceil(5 * classes * math.sqrt(2) ** 3 * factor)
    sizes = subset_sizes(images, classes)
    assert (sizes[0], sizes[-1]) == (5 * classes, images)
    assert FEWEST_SIZES <= len(sizes) <= MOST_SIZES
    assert all(more / less > 1.35 for less, more in pairwise(sizes))


@given(images=st.integers(100, 10_000), budget=st.floats(0, 10**5), each=st.floats(1e-3, 1))
def test_trainings_fit_into_the_time_and_make_a_curve_or_are_left_out(
    images: int, budget: float, each: float
) -> None:
    sizes = subset_sizes(images, 2)
    chosen = affordable(sizes, lambda size: each * size, budget)
    assert sum(count * each * size for size, count in chosen) <= budget
    assert not chosen or len(chosen) >= FEWEST_SIZES
    assert {size for size, _ in chosen} <= set(sizes)
    if budget >= 2 * each * sum(sizes):
        assert chosen[0] == (images, 1)
    if not chosen:
        assert budget < each * sum(sizes[:FEWEST_SIZES])
