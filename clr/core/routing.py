"""Find the task of an image on the frozen backbone's features: Gaussians, shared covariance.

A task is described by sufficient statistics (class means and the scatter within
classes), so that it joins or leaves the router without any image of another
task, in any order, with the same result (linear discriminant analysis; Hastie,
Tibshirani & Friedman 2009, section 4.3).

Some of its images are held out of them and kept as projected features: by these the router
says which choices are doubtful and which images are like those of no task, with limits that
hold for any distribution (`clr.core.conformal`). What it promises is told in `Router.calibrate`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from clr.core.backbone import Backbone
from clr.core.choosing import (
    Calibrated,
    Routed,
    Thresholds,
    calibrated,
    choose,
    lead_limit,
    thresholds,
)
from clr.core.described import TaskStatistics
from clr.core.images import Preprocessing
from clr.errors import IntegrityBroken

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DIMENSIONS = 256
"""Size to which features are projected: keeps a task's statistics at 260 kB."""

IMAGE_SIZE = 128
"""Side in pixels of what the router sees: one size for all tasks, since none is known yet."""

SHRINKAGE = 0.1
"""Share of a round covariance that is mixed in, so that few images suffice."""

DOUBT, UNKNOWN = 0.05, 0.02
"""Shares that `Router.calibrate` promises by default."""


@lru_cache(maxsize=8)
def _projection(channels: int) -> Floats:
    if channels <= DIMENSIONS:
        return np.eye(channels, dtype=np.float32)
    normal = np.random.default_rng(0).standard_normal((channels, DIMENSIONS))
    basis, _ = np.linalg.qr(normal)
    return basis.astype(np.float32)


def project(features: Floats) -> Floats:
    """Return features [N, channels] in the router's form: float32 [N, d], d ≤ `DIMENSIONS`.

    Scaled to unit length, then turned by a fixed random orthonormal projection, which
    keeps distances (Johnson & Lindenstrauss 1984).
    """
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(length, 1e-12)
    projected: Floats = (unit @ _projection(features.shape[1])).astype(np.float32)
    return projected


def preprocessing(backbone: Backbone) -> Preprocessing:
    """Return the one way in which the router sees every image."""
    return Preprocessing(IMAGE_SIZE, backbone.mean, backbone.std, backbone.interpolation)


class Gathering:
    """Statistics of tasks, summed as they come: ten thousand scatters need not be held at once."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.means: list[Floats] = []
        self.calibration: list[NDArray[np.float16] | None] = []
        self.scatter: NDArray[np.float64] | None = None
        self.freedom = 0

    def add(self, task: str, described: TaskStatistics, digest: str = "") -> None:
        """Let a task join; tasks come in the order of their names.

        Args:
            task: its name.
            described: its statistics.
            digest: theirs, where it is known already.

        Raises:
            IntegrityBroken: they were computed on features of another size than the others'.
        """
        if self.means and self.means[0].shape[1] != described.means.shape[1]:
            raise IntegrityBroken(
                "The tasks' routing statistics are of different backbones.",
                fix="Onboard the tasks again on one backbone.",
            )
        if self.scatter is None:
            self.scatter = np.zeros(described.scatter.shape, dtype=np.float64)
        self.scatter += described.scatter
        self.freedom += int(described.counts.sum()) - len(described.counts)
        self.means.append(described.means)
        self.calibration.append(described.calibration)
        self.digests[task] = digest or described.digest


class Router:
    """Chooses among tasks; made anew from statistics whenever the tasks change."""

    def __init__(self, tasks: Mapping[str, TaskStatistics] | Gathering) -> None:
        """Join the statistics of `tasks`; their order does not matter.

        Raises:
            IntegrityBroken: they were computed on features of different size.
        """
        gathered = tasks if isinstance(tasks, Gathering) else Gathering()
        if not isinstance(tasks, Gathering):
            for name in sorted(tasks):
                gathered.add(name, tasks[name])
        self.tasks = tuple(gathered.digests)
        self.digest = router_digest(gathered.digests)
        if gathered.scatter is None:
            return
        covariance = np.asarray(gathered.scatter / max(gathered.freedom, 1))
        d = len(covariance)
        round_part = np.trace(covariance) / d * np.eye(d) + 1e-9 * np.eye(d)
        covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * round_part
        self._whiten = np.linalg.inv(np.linalg.cholesky(covariance)).T.astype(np.float32)
        self._means = np.concatenate(gathered.means) @ self._whiten
        self._half_norms = 0.5 * np.square(self._means).sum(1)
        ends = np.cumsum([0, *map(len, gathered.means)])
        self._starts, self._ends = ends[:-1], ends[1:]
        self._calibration = gathered.calibration
        self._seen: dict[int, Calibrated | None] = {}
        self._limits: Thresholds | None = None

    def route(self, projected: Floats) -> Ints:
        """Return int64 [N]: for each image the index in `tasks` of the one with the nearest class.

        Args:
            projected: float32 [N, d], see `project`.
        """
        return self._task_of(self._densities(projected @ self._whiten).argmax(1))

    def lead(self, projected: Floats, over: str) -> tuple[Ints, Floats]:
        """Return where each image goes, see `route`, and its lead there over another task.

        Args:
            projected: float32 [N, d], see `project`.
            over: name of a task.

        Returns:
            int64 [N], and float32 [N]: difference of log densities, 0 where it goes to `over`.
        """
        densities = self._densities(projected @ self._whiten)
        nearest = densities.argmax(1)
        at = self.tasks.index(over)
        own = densities[:, self._starts[at] : self._ends[at]].max(1)
        leads: Floats = densities[np.arange(len(nearest)), nearest] - own
        return self._task_of(nearest), leads

    def calibrate(self, doubt: float = DOUBT, unknown: float = UNKNOWN) -> None:
        """Decide what `choose` calls doubtful and unknown.

        Doubtful: for some other task t, the lead over t is within the limit of t, which is the
        conformal limit of (best log density of the other tasks - that of t) on t's own
        calibration images. Unknown: the Mahalanobis distance from the nearest class (Lee et al.
        2018) exceeds the conformal limit of its task.

        Promised for every task t with m calibration images, if these and a new image of t are
        drawn alike, over the draw of all of them:

            P(it is given to another task, and not doubtful) ≤ max(doubt, 1 / (m + 1))
            P(it is given to t, and unknown) ≤ max(unknown, 1 / (m + 1))

        A task without calibration images (evidence of earlier versions, few images) makes no
        choice doubtful and no image that goes to it unknown, and nothing is promised for it.

        Args:
            doubt: share of a task's images that may be given to another without a word.
            unknown: share of a task's images that may be called unknown.
        """
        known = [self._known(at) for at in range(len(self.tasks))]
        self._limits = thresholds(known, doubt, unknown)

    def choose(self, projected: Floats) -> list[Routed]:
        """Return the task of each image, that of `route`, and how far to rely on it.

        Where `calibrate` was not called, the first call does so with the default shares.

        Args:
            projected: float32 [N, d], see `project`.
        """
        if self._limits is None:
            self.calibrate()
        assert self._limits is not None
        white = projected @ self._whiten
        return choose(self.tasks, self._nearness(white), _lengths(white), self._limits)

    def distances(self, projected: Floats) -> Floats:
        """Return float32 [N]: squared Mahalanobis distance from the nearest class of any task.

        Args:
            projected: float32 [N, d], see `project`.
        """
        white = projected @ self._whiten
        found: Floats = 2 * (_lengths(white) - self._nearness(white).max(1))
        return found

    def doubt_limit(self, task: str) -> float:
        """Return the lead over `task` at or below which `DOUBT` says that a choice is doubtful."""
        return lead_limit(self._known(self.tasks.index(task)), DOUBT)

    def _known(self, at: int) -> Calibrated | None:
        """Return how a task's calibration images are seen; computed once."""
        if at not in self._seen:
            held = self._calibration[at]
            if held is None:
                self._seen[at] = None
            else:
                white = held.astype(np.float32) @ self._whiten
                self._seen[at] = calibrated(self._nearness(white), _lengths(white), at)
        return self._seen[at]

    def _nearness(self, white: Floats) -> Floats:
        """Return float32 [N, tasks]: log density of each task's nearest class."""
        best: Floats = np.maximum.reduceat(self._densities(white), self._starts, axis=1)
        return best

    def _densities(self, white: Floats) -> Floats:
        """Return float32 [N, classes]: log densities, up to a constant of the image."""
        densities: Floats = white @ self._means.T
        densities -= self._half_norms
        return densities

    def _task_of(self, classes: Ints) -> Ints:
        tasks: Ints = np.searchsorted(self._starts, classes, side="right") - 1
        return tasks


def _lengths(white: Floats) -> Floats:
    half: Floats = 0.5 * np.square(white).sum(1)
    return half


def router_digest(digests: Mapping[str, str]) -> str:
    """Return the digest of a router from those of its tasks' statistics; "" without tasks."""
    if not digests:
        return ""
    text = "".join(f"{task} {digest}\n" for task, digest in sorted(digests.items()))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
