"""Ways of finding the task of an image, behind one interface: what clr does, and what it could do.

Each is built from the same training images, and returns scores: the task is that of the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clr.core.described import Floats, statistics
from clr.core.routing import Router

Scores = Callable[[Floats], Floats]
"""float32 [N, d] to [N, tasks], tasks by name."""


@dataclass(frozen=True, eq=False)
class Known:
    """What routers may learn a task from.

    Attributes:
        features: float32 [N, d], projected.
        labels: int64 [N].
    """

    features: Floats
    labels: NDArray[np.int64]

    @property
    def means(self) -> Floats:
        """Of each class: float32 [classes, d]."""
        return statistics(self.features, self.labels, self.labels.max() + 1).means


def shared_gaussian(tasks: Mapping[str, Known]) -> Scores:
    """The router in use: nearest class, one covariance for all."""
    router = joined(tasks)
    return lambda features: router._nearness(features @ router._whiten)


def joined(tasks: Mapping[str, Known]) -> Router:
    """Return the router in use, without calibration."""
    return Router(
        {name: statistics(t.features, t.labels, t.labels.max() + 1) for name, t in tasks.items()}
    )


def own_covariance(tasks: Mapping[str, Known], share: float = 0.1) -> Scores:
    """Each task's covariance, mixed into the shared one (Friedman 1989, with log determinants)."""
    inverse = np.linalg.inv(joined(tasks)._whiten)
    common = inverse.T @ inverse
    parts = []
    for name in sorted(tasks):
        one, means = tasks[name], tasks[name].means
        apart = one.features - means[one.labels]
        scatter = apart.T @ apart / (len(apart) - len(means))
        lower = np.linalg.cholesky(share * scatter + (1 - share) * common)
        whiten = np.linalg.inv(lower).T
        parts.append((whiten, means @ whiten, np.log(np.diag(lower)).sum()))

    def scores(features: Floats) -> Floats:
        found = []
        for whiten, means, determinant in parts:
            white = features @ whiten
            near = (white @ means.T - 0.5 * np.square(means).sum(1)).max(1)
            found.append(near - 0.5 * np.square(white).sum(1) - determinant)
        return np.stack(found, 1).astype(np.float32)

    return scores


def mixture(tasks: Mapping[str, Known], prototypes: int = 4) -> Scores:
    """Several Gaussians a class, at the ends of k-means, with the shared covariance."""
    whiten = joined(tasks)._whiten
    centres = [_prototypes(tasks[name], prototypes) @ whiten for name in sorted(tasks)]
    starts = np.cumsum([0, *map(len, centres)])[:-1]
    every = np.concatenate(centres)

    def scores(features: Floats) -> Floats:
        near = features @ whiten @ every.T - 0.5 * np.square(every).sum(1)
        return np.asarray(np.maximum.reduceat(near, starts, axis=1), dtype=np.float32)

    return scores


def neighbours(tasks: Mapping[str, Known], prototypes: int = 16, nearest: int = 5) -> Scores:
    """Votes of the nearest prototypes; the nearest decides between equal numbers."""
    whiten = joined(tasks)._whiten
    centres = [_prototypes(tasks[name], prototypes) @ whiten for name in sorted(tasks)]
    owner = np.repeat(np.arange(len(centres)), [len(one) for one in centres])
    every = np.concatenate(centres)

    def scores(features: Floats) -> Floats:
        near = features @ whiten @ every.T - 0.5 * np.square(every).sum(1)
        top = np.argsort(-near, axis=1)[:, :nearest]
        votes = np.zeros((len(features), len(centres)), dtype=np.float32)
        for place in range(nearest):
            rows = np.arange(len(features))
            votes[rows, owner[top[:, place]]] += 1 + 0.01 * (nearest - place)
        return votes

    return scores


def _prototypes(one: Known, count: int) -> Floats:
    """Return the ends of `count` means in each class (Lloyd 1982), from its first images."""
    found = []
    for label in range(one.labels.max() + 1):
        images = one.features[one.labels == label]
        centres = images[:count].copy()
        for _ in range(10):
            apart = np.square(images).sum(1)[:, None] - 2 * images @ centres.T
            nearest = (apart + np.square(centres).sum(1)).argmin(1)
            for at in np.unique(nearest):
                centres[at] = images[nearest == at].mean(0)
        found.append(centres)
    return np.concatenate(found)


ROUTERS: dict[str, Callable[[Mapping[str, Known]], Scores]] = {
    "Gaussian, shared covariance": shared_gaussian,
    "Gaussian, a tenth of the task's own covariance": own_covariance,
    "mixture of 4 a class, shared covariance": mixture,
    "5 nearest of 16 prototypes a class": neighbours,
}
