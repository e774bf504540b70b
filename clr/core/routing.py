"""Find the task of an image on the frozen backbone's features: Gaussians, shared covariance.

A task is described by sufficient statistics (class means and the scatter within
classes), so that it joins or leaves the router without any image of another
task, in any order, with the same result (linear discriminant analysis; Hastie,
Tibshirani & Friedman 2009, section 4.3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from clr.core.backbone import Backbone
from clr.core.images import Preprocessing
from clr.errors import IntegrityBroken

Floats = NDArray[np.float32]

DIMENSIONS = 256
"""Size to which features are projected: keeps a task's statistics at 260 kB."""

IMAGE_SIZE = 128
"""Side in pixels of what the router sees: one size for all tasks, since none is known yet."""

ROWS = 1024
"""Items that are routed at once; with 10,000 tasks of two classes their densities take 80 MB."""

SHRINKAGE = 0.1
"""Share of a round covariance that is mixed in, so that few images suffice."""


@dataclass(frozen=True, eq=False)
class TaskStatistics:
    """What the router knows of one task.

    Attributes:
        counts: int64 [C], images of each class.
        means: float32 [C, d], of each class.
        scatter: float32 [d, d], sum over images of outer products of deviations.
    """

    counts: NDArray[np.int64]
    means: Floats
    scatter: Floats

    def __post_init__(self) -> None:
        classes, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        fits = self.counts.shape == (classes,) and self.scatter.shape == (d, d)
        finite = np.isfinite(self.means).all() and np.isfinite(self.scatter).all()
        if not (classes and fits and finite and (self.counts > 0).all()):
            raise IntegrityBroken(
                "A task's routing statistics have a wrong shape or value.",
                fix="Restore its evidence from the registry.",
            )

    @property
    def digest(self) -> str:
        """The sha256 of all values."""
        digest = hashlib.sha256()
        for array in (self.counts, self.means, self.scatter):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return "sha256:" + digest.hexdigest()


@dataclass(frozen=True)
class Routed:
    """Which task one image is of, as the router sees it.

    Attributes:
        task: the one whose nearest class is nearest of all.
        second: the runner-up; empty where there is only one task.
        confidence: the router's probability of `task`, between 0 and 1.
        doubtful: the choice is not sure enough to be relied upon.
        unknown: the image is like those of no task.
    """

    task: str
    second: str
    confidence: float
    doubtful: bool = False
    unknown: bool = False


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


def statistics(projected: Floats, labels: NDArray[np.int64], classes: int) -> TaskStatistics:
    """Describe a task by projected training features [N, d] and their labels [N]."""
    counts = np.bincount(labels, minlength=classes)
    sums = np.zeros((classes, projected.shape[1]), dtype=np.float64)
    np.add.at(sums, labels, projected.astype(np.float64))
    means = sums / np.maximum(counts, 1)[:, None]
    deviations = projected - means[labels]
    scatter = deviations.T @ deviations
    return TaskStatistics(
        counts.astype(np.int64), means.astype(np.float32), scatter.astype(np.float32)
    )


class Gathering:
    """Statistics of tasks, summed as they come: ten thousand scatters need not be held at once."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.means: list[Floats] = []
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
        self._starts = np.cumsum([0, *map(len, gathered.means)])[:-1]

    def route(self, projected: Floats) -> NDArray[np.int64]:
        """Return int64 [N]: for each image the index in `tasks` of the one with the nearest class.

        Args:
            projected: float32 [N, d], see `project`.
        """
        nearest = self._densities(projected).argmax(1)
        tasks: NDArray[np.int64] = np.searchsorted(self._starts, nearest, side="right") - 1
        return tasks

    def choose(self, projected: Floats) -> list[Routed]:
        """Return the task of each image, and how sure that is; tasks are those of `route`.

        Args:
            projected: float32 [N, d], see `project`.
        """
        best = np.maximum.reduceat(self._densities(projected), self._starts, axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :2]  # [N, 2]; ties: first by name
        shares = np.exp(best - best.max(1, keepdims=True))
        confidences = 1 / shares.sum(1)
        seconds = order[:, 1] if order.shape[1] > 1 else [None] * len(order)
        return [
            Routed(self.tasks[first], "" if second is None else self.tasks[second], float(sure))
            for first, second, sure in zip(order[:, 0], seconds, confidences, strict=True)
        ]

    def _densities(self, projected: Floats) -> Floats:
        """Return float32 [N, classes]: log densities, up to a constant of the image."""
        densities: Floats = (projected @ self._whiten) @ self._means.T
        densities -= self._half_norms
        return densities


def found(router: Router, features: Mapping[str, Floats]) -> dict[str, NDArray[np.bool_]]:
    """Say which items a router sends to the task that they are of.

    Args:
        router: it knows every one of the tasks.
        features: float32 [n, d] of each task, see `project`.

    Returns:
        bool [n] of each task.
    """
    own = {name: at for at, name in enumerate(router.tasks)}
    answers: dict[str, NDArray[np.bool_]] = {}
    for names in _blocks({name: len(one) for name, one in features.items()}):
        chosen = router.route(np.concatenate([features[name] for name in names]))
        ends = np.cumsum([len(features[name]) for name in names])[:-1]
        for name, part in zip(names, np.split(chosen, ends), strict=True):
            answers[name] = part == own[name]
    return answers


def _blocks(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield names that make about `ROWS` items together: one matrix product for all of them."""
    block: list[str] = []
    rows = 0
    for name, size in sizes.items():
        if block and rows + size > ROWS:
            yield block
            block, rows = [], 0
        block.append(name)
        rows += size
    if block:
        yield block


def router_digest(digests: Mapping[str, str]) -> str:
    """Return the digest of a router from those of its tasks' statistics; "" without tasks."""
    if not digests:
        return ""
    text = "".join(f"{task} {digest}\n" for task, digest in sorted(digests.items()))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
