"""How many images a task needs: learning curves of a pilot set, and the power law behind them.

Error falls with the number of images n as error(n) = a · n^-b + c (Cortes et al. 1993; Hestness
et al. 2017, section 3); how far such a fit can be trusted is Mahmood et al. 2022. Pure functions:
points in, law and intervals out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clr.errors import DataRefused, UsageError

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

EXPONENTS: Floats = np.geomspace(0.05, 2.0, 640)
"""What b may be: measured ones are 0.07 to 0.35 on large data (Hestness), steeper on small."""
RESAMPLES = 1000
LEVEL = 0.95
PER_CLASS = 5
"""Images a class, on average, in the smallest subset."""
MOST_SIZES, FEWEST_SIZES = 8, 4
"""A law has three unknowns."""
FEWEST_IN_CLASS, FEWEST_HELD = 4, 20
FAR = 10
"""Times the pilot set, beyond which a law is a guess (Mahmood et al. 2022, section 5)."""


@dataclass(frozen=True)
class Point:
    """One trained model.

    Attributes:
        images: labelled images it was made from.
        accuracy: share of the held-out images that it labels right.
    """

    images: int
    accuracy: float


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; infinite where there is no bound."""

    low: float
    middle: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Return {low, middle, high}; None is infinity, which JSON has no word for."""
        return {name: None if math.isinf(v) else v for name, v in vars(self).items()}


@dataclass(frozen=True, eq=False)
class Curve:
    """A fitted learning curve.

    Attributes:
        points: what was measured.
        held: number of held-out images behind each point.
        pilot: images of the whole pilot set.
        law: a, b, c of the fit: float64 [3].
        laws: the same of fits to resampled curves: float64 [`RESAMPLES`, 3].
    """

    points: tuple[Point, ...]
    held: int
    pilot: int
    law: Floats
    laws: Floats

    def accuracy(self, images: float) -> Interval:
        """Return the accuracy that the law foretells for so many images."""
        return _interval(1 - _error(self.laws, images), float(1 - _error(self.law, images)[()]))

    def needed(self, target: float) -> Interval:
        """Return the images that reach an accuracy of `target`.

        An infinite high end: the law's asymptote may lie below the target; an infinite low
        end: its interval excludes the target.
        """
        return _interval(_needed(self.laws, target), float(_needed(self.law, target)[()]))

    def verdict(self, target: float) -> str:
        """Return ``reached``, ``reachable``, ``far``, ``unsure`` or ``not reachable``."""
        needed = self.needed(target)
        if math.isinf(needed.low):
            return "not reachable"
        if needed.high <= self.pilot:
            return "reached"
        if math.isinf(needed.high):
            return "unsure"
        return "far" if needed.high > FAR * self.pilot else "reachable"

    @cached_property
    def asymptote(self) -> Interval:
        """The accuracy that no number of images passes."""
        return _interval(1 - self.laws[:, 2], 1 - float(self.law[2]))


def fit_curve(points: Sequence[Point], held: int, pilot: int, seed: int = 0) -> Curve:
    """Fit a power law by weighted least squares, and its interval by a parametric bootstrap.

    Two things make a point uncertain. The held-out images are a sample, the same one for all
    points: that moves the whole curve. And other images would have given other models: how
    much, the repeats tell. Subsets of one pilot set share images, so they err together.

    Args:
        points: of at least `FEWEST_SIZES` sizes.
        held: number of held-out images.
        pilot: images that the subsets were drawn from.
        seed: of the bootstrap.

    Raises:
        UsageError: too few sizes, or a point that cannot be.
    """
    sizes, means, repeats = _by_size(points)
    if len(sizes) < FEWEST_SIZES:
        raise UsageError(f"A learning curve needs {FEWEST_SIZES} sizes, not {len(sizes)}.")
    if held < 1 or not all(0 <= p.accuracy <= 1 and 1 <= p.images <= pilot for p in points):
        raise UsageError("A point of a learning curve has an accuracy in 0 … 1 and some images.")
    errors = 1 - means
    shrunk = (errors * held + 1) / (held + 2)
    variance = shrunk * (1 - shrunk) / held
    overlap = sizes / pilot
    independent = 1 / (1 / repeats + (1 - 1 / repeats) * overlap)
    weights = independent / variance
    law = _fit(sizes, errors[None], weights)[0]
    smooth = _error(law, sizes)
    between, known = _between(points, sizes, variance, overlap)
    misfit = float(np.sum(weights * (errors - smooth) ** 2)) / max(1, len(sizes) - 3)
    spread = np.sqrt(max(between, misfit) * variance)
    random = np.random.default_rng(seed)
    sample, pool = random.standard_normal((2, RESAMPLES, 1))
    own = random.standard_normal((RESAMPLES, len(sizes)))
    drawn = np.sqrt(overlap) * pool + np.sqrt((1 - overlap) / repeats) * own
    doubt = np.sqrt(known / random.chisquare(known, (RESAMPLES, 1)))  # of the spread itself
    noise = np.sqrt(variance) * sample + doubt * spread * drawn
    laws = _fit(sizes, np.clip(smooth + noise, 0, 1), weights)
    return Curve(tuple(points), held, pilot, law, laws)


def _by_size(points: Sequence[Point]) -> tuple[Floats, Floats, Floats]:
    """Return distinct sizes, mean accuracies and numbers of repeats, by size."""
    found: dict[int, list[float]] = {}
    for point in sorted(points, key=lambda point: point.images):
        found.setdefault(point.images, []).append(point.accuracy)
    means = [float(np.mean(values)) for values in found.values()]
    counts = [float(len(values)) for values in found.values()]
    return np.array([*found], dtype=float), np.array(means), np.array(counts)


def _between(
    points: Sequence[Point], sizes: Floats, variance: Floats, overlap: Floats
) -> tuple[float, float]:
    """Return the variance between subsets over that of the held-out sample, and its degrees.

    Subsets that share a part of their images do not show that part of it. (1, 3) if unknown.
    """
    squares = degrees = 0.0
    for size, own, shared in zip(sizes, variance, overlap, strict=True):
        values = [point.accuracy for point in points if point.images == size]
        if len(values) > 1 and shared <= 0.75:
            squares += len(values) * float(np.var(values)) / (own * (1 - shared))
            degrees += len(values) - 1
    return (squares / degrees, degrees) if degrees else (1.0, 3.0)


def _fit(sizes: Floats, errors: Floats, weights: Floats) -> Floats:
    """Return a, b, c ≥ 0 of least weighted squares for each row of `errors` [R, S]: [R, 3].

    For a given b the rest is linear with a solution in closed form, bounds included; b is
    searched (variable projection, Golub & Pereyra 1973), which cannot end in a local minimum.
    """
    scale = math.exp(float(np.mean(np.log(sizes))))
    x = (sizes / scale) ** -EXPONENTS[:, None]  # [B, S]
    w, wx, wxx = weights.sum(), (x @ weights)[:, None], (x**2 @ weights)[:, None]
    wy, wxy = errors @ weights, (x * weights) @ errors.T  # [R], [B, R]
    a = (w * wxy - wx * wy) / (w * wxx - wx**2)
    c = (wy - a * wx) / w
    a, c = np.where(c < 0, wxy / wxx, a), np.maximum(c, 0)
    a, c = np.maximum(a, 0), np.where(a < 0, wy / w, c)
    squares = a * (a * wxx + 2 * c * wx - 2 * wxy) + c * (c * w - 2 * wy)
    best = squares.argmin(0)
    row = np.arange(len(errors))
    b = EXPONENTS[best]
    return np.stack([a[best, row] * scale**b, b, c[best, row]], axis=-1)


def _error(laws: Floats, images: float | Floats) -> Floats:
    """Return the error of laws [..., 3] at a number of images."""
    a, b, c = laws[..., 0], laws[..., 1], laws[..., 2]
    error: Floats = np.clip(a * np.power(images, -b) + c, 0, 1)
    return error


def _needed(laws: Floats, target: float) -> Floats:
    a, b, c = laws[..., 0], laws[..., 1], laws[..., 2]
    gap = 1 - target - c
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        needed = np.ceil((a / np.where(gap > 0, gap, np.nan)) ** (1 / b))
    found: Floats = np.where(gap > 0, np.maximum(needed, 1), np.inf)
    return found


def _interval(values: Floats, middle: float) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    return Interval(min(float(low), middle), middle, max(float(high), middle))


def check_pilot(counts: Sequence[int], held: int) -> None:
    """Refuse a pilot set that is too small to draw a curve from.

    Args:
        counts: training images of each class.
        held: images to judge by.

    Raises:
        DataRefused: too few images in all, in a class, or to judge by.
    """
    wanted = math.ceil(PER_CLASS * len(counts) * math.sqrt(2) ** (FEWEST_SIZES - 1))
    for have, need, what in (
        (sum(counts), wanted, "training images"),
        (min(counts), FEWEST_IN_CLASS, "training images in its smallest class"),
        (held, FEWEST_HELD, "held-out images"),
    ):
        if have < need:
            raise DataRefused(
                f"The pilot set has {have} {what}; a learning curve needs at least {need}.",
                fix="Label some more first: about 15 a class are enough for a rough curve.",
                have=have,
                need=need,
            )


def subset_sizes(images: int, classes: int) -> list[int]:
    """Return sizes from about `PER_CLASS` images a class to all, in equal ratios of √2 or more."""
    smallest = PER_CLASS * classes
    steps = min(MOST_SIZES - 1, int(math.log(images / smallest) / math.log(math.sqrt(2))))
    return sorted({round(size) for size in np.geomspace(smallest, images, steps + 1)})


def subset(labels: Indices, size: int, seed: int) -> Indices:
    """Return sorted indices of `size` images, each class in its share but with two or more.

    Raises:
        UsageError: fewer than two images a class, or more than there are.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if not 2 * len(classes) <= size <= len(labels):
        raise UsageError(f"{size} images of {len(labels)} in {len(classes)} classes are no subset.")
    share = counts * size / len(labels)
    quota = np.maximum(np.floor(share).astype(int), 2)
    while (left := size - quota.sum()) > 0:
        quota[np.argmax(np.where(quota < counts, share - quota, -np.inf))] += 1
    for _ in range(-left):
        quota[np.argmin(np.where(quota > 2, share - quota, np.inf))] -= 1
    random = np.random.default_rng(seed)
    chosen = [
        random.permutation(np.flatnonzero(labels == label))[:number]
        for label, number in zip(classes, quota, strict=True)
    ]
    found: Indices = np.sort(np.concatenate(chosen))
    return found


def affordable(
    sizes: Sequence[int], seconds: Callable[[int], float], budget: float
) -> list[tuple[int, int]]:
    """Choose which trainings a budget of seconds pays: [(size, repeats)], largest first.

    The widest range of sizes comes first, then a second training of each but the largest,
    of which there is one subset only. Empty where not even `FEWEST_SIZES` fit.
    """
    for last in range(len(sizes), FEWEST_SIZES - 1, -1):
        ladder = sorted({*sizes[:last:2], *sizes[last - 1 : last]}, reverse=True)
        ladder = ladder if len(ladder) >= FEWEST_SIZES else sorted(sizes[:last], reverse=True)
        for repeats in (2, 1):
            chosen = [(one, 1 if one == max(sizes) else repeats) for one in ladder]
            if sum(count * seconds(one) for one, count in chosen) <= budget:
                return chosen
    return []


def as_document(curve: Curve, target: float | None) -> dict[str, Any]:
    """Return a curve as JSON: points, law, asymptote, and what `target` needs."""
    names = ("a", "b", "c")
    bounds = np.quantile(curve.laws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    document: dict[str, Any] = {
        "points": [vars(point) for point in curve.points],
        "law": {
            name: {"low": low, "middle": middle, "high": high}
            for name, low, middle, high in zip(
                names, *bounds[:1].tolist(), curve.law.tolist(), *bounds[1:].tolist(), strict=True
            )
        },
        "asymptote": curve.asymptote.as_dict(),
    }
    if target is not None:
        needed = curve.needed(target).as_dict()
        document["needed"] = {"verdict": curve.verdict(target), **needed}
    return document
