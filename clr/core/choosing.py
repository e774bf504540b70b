"""Say how sure the choice of a task is: from what was held out of the tasks' statistics.

Pure: log densities in, choices out. The promises are told in `clr.core.routing.Router.calibrate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clr.core.conformal import limit

Floats = NDArray[np.float32]

TEMPERATURES = np.geomspace(0.25, 64, 49)
"""That are tried; log densities of many features are far too sure of themselves."""


@dataclass(frozen=True)
class Routed:
    """Which task one image is of, as the router sees it.

    Attributes:
        task: the one whose nearest class is nearest of all.
        second: the runner-up; where `doubtful`, of the tasks on whose account; empty where there
            is only one task.
        confidence: the router's probability of `task`, between 0 and 1.
        doubtful: the choice is not sure enough to be relied upon.
        unknown: the image is like those of no task.
    """

    task: str
    second: str
    confidence: float
    doubtful: bool = False
    unknown: bool = False

    @property
    def doubt(self) -> str:
        """Why the choice is doubtful, as a sentence; empty where it is not."""
        if not self.doubtful:
            return ""
        sure = f"{100 * self.confidence:.0f} %"
        return f"It may be of {self.second}: the router gives {self.task} {sure}."


@dataclass(frozen=True, eq=False)
class Calibrated:
    """How a router sees the m images that were held out of one task's statistics.

    Attributes:
        margins: float32 [m], log density of the best other task less that of their own;
            negative where the choice is right, -inf where there is no other task.
        distances: float32 [m], half the squared Mahalanobis distance from the nearest class
            of their own task.
    """

    margins: Floats
    distances: Floats


def calibrated(nearness: Floats, lengths: Floats, own: int) -> Calibrated:
    """Return margins and distances of images of one task.

    Args:
        nearness: float32 [m, tasks], log density of each task's nearest class, up to a constant.
        lengths: float32 [m], that constant: half the squared length of the whitened features.
        own: index of their task.
    """
    mine = nearness[:, own]
    others = np.delete(nearness, own, axis=1).max(1, initial=-np.inf)
    return Calibrated(others - mine, lengths - mine)


def temperature(known: Iterable[Calibrated | None]) -> float:
    """Return what log densities are divided by to become probabilities; 1 without calibration.

    Of `TEMPERATURES` the one under which held-out images are likeliest to be of their own task
    rather than of the best other one (Guo et al. 2017, section 4.2); every task weighs the same.
    """
    margins = [one.margins for one in known if one is not None and np.isfinite(one.margins).all()]
    if not margins:
        return 1.0
    shares = np.concatenate([np.full(len(one), 1 / len(one)) for one in margins])
    pooled = np.concatenate(margins).astype(np.float64)
    losses = [float(shares @ np.logaddexp(0, pooled / one)) for one in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


@dataclass(frozen=True, eq=False)
class Thresholds:
    """What choices are compared with.

    Attributes:
        leads: float32 [tasks], the lead over each task at or below which a choice is doubtful.
        distances: float32 [tasks], the distance beyond which an image is unknown to each.
        temperature: see `temperature`.
    """

    leads: Floats
    distances: Floats
    temperature: float


def lead_limit(known: Calibrated | None, doubt: float) -> float:
    """Return the lead over a task at or below which a choice is doubtful; none is without images.

    Args:
        known: its calibration images; None where it has none.
        doubt: share of its images that may be given to another task without a word.
    """
    return -np.inf if known is None else limit(known.margins, doubt)


def thresholds(known: Sequence[Calibrated | None], doubt: float, unknown: float) -> Thresholds:
    """Return the conformal limits of every task; none where it has no calibration images."""
    leads = [lead_limit(one, doubt) for one in known]
    distances = [np.inf if one is None else limit(one.distances, unknown) for one in known]
    return Thresholds(
        np.array(leads, dtype=np.float32),
        np.array(distances, dtype=np.float32),
        temperature(known),
    )


def choose(
    tasks: Sequence[str], nearness: Floats, lengths: Floats, limits: Thresholds
) -> list[Routed]:
    """Return the choice for each image.

    Args:
        tasks: their names.
        nearness: float32 [N, tasks], see `calibrated`.
        lengths: float32 [N], see `calibrated`.
        limits: of the same tasks.
    """
    rows, first = np.arange(len(nearness)), nearness.argmax(1)
    best = nearness[rows, first]
    leads = best[:, None] - nearness
    confidences = 1 / np.exp(-leads / limits.temperature).sum(1)
    leads[rows, first] = np.inf
    near = leads <= limits.leads
    doubtful = near.any(1)
    seconds = np.where(near | ~doubtful[:, None], leads, np.inf).argmin(1)
    unknown = lengths - best > limits.distances[first]
    return [
        Routed(
            task=tasks[first[at]],
            second=tasks[seconds[at]] if len(tasks) > 1 else "",
            confidence=float(confidences[at]),
            doubtful=bool(doubtful[at]),
            unknown=bool(unknown[at]),
        )
        for at in rows
    ]
