"""What every method of learning one task after the other looks like from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Protocol

from torch import Tensor

from clr.core.backbone import Backbone
from clr.core.baseline import Baseline
from clr.core.images import ImageSet, Preprocessing
from clr.errors import UsageError


@dataclass(frozen=True, eq=False)
class Lesson:
    """One task as methods see it: never its test split.

    Attributes:
        task: name.
        labels: class names in the order of the logits.
        images: the task's train split.
        preprocessing: from image file to input.
        baseline: of these images: which of them train and which validate, the probe.
    """

    task: str
    labels: tuple[str, ...]
    images: ImageSet
    preprocessing: Preprocessing
    baseline: Baseline

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.baseline.probe.bias):
            raise UsageError(
                f"The task {self.task} has {len(self.labels)} labels, but a baseline of "
                f"{len(self.baseline.probe.bias)}.",
                fix="Measure the baseline of this task.",
            )


@dataclass(frozen=True)
class Budget:
    """What a method may spend on one task; equal for all that are compared.

    Attributes:
        epochs: passes over the training part.
        seconds: of wall time; where given, it counts instead of `epochs`.
    """

    epochs: int = 8
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError(f"A budget of {self.epochs} epochs is none.", fix="Give 1 or more.")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise UsageError(
                f"A budget of {self.seconds} seconds is none.", fix="Give more than 0."
            )


@dataclass(frozen=True)
class Cost:
    """What one task added to the trusted backbone.

    Attributes:
        kernels: values that act on features between the backbone's layers.
        batch_norm: values of batch norms of the task's own, statistics included.
        head: values of the classifier.
        other: values of any other kind, e.g. changed copies of the backbone's weights.
        bytes: all of these and what else must be kept, e.g. images, as they would be stored,
            without the container's own header.
    """

    kernels: int = 0
    batch_norm: int = 0
    head: int = 0
    other: int = 0
    bytes: int = 0

    @classmethod
    def of_floats(
        cls, *, kernels: int = 0, batch_norm: int = 0, head: int = 0, other: int = 0
    ) -> Cost:
        """Return the cost of values that are stored as float32."""
        total = kernels + batch_norm + head + other
        return cls(kernels, batch_norm, head, other, 4 * total)

    def __add__(self, more: Cost) -> Cost:
        return Cost(*(one + two for one, two in zip(astuple(self), astuple(more), strict=True)))


class Learner(Protocol):
    """What a method has made of the tasks so far; one a sequence of tasks."""

    def learn(self, lesson: Lesson, budget: Budget, seed: int) -> None:
        """Learn one more task; equal arguments in equal order give equal bits.

        Raises:
            UsageError: the task was learned before; the training diverged.
        """

    def logits(self, batch: Tensor, task: str) -> Tensor:
        """Return logits [N, classes] of prepared images, as served, the task being known.

        Raises:
            UsageError: no such task was learned.
        """

    def cost(self, task: str) -> Cost:
        """Return what this task added.

        Raises:
            UsageError: no such task was learned.
        """


@dataclass(frozen=True)
class Method:
    """A way of learning one task after the other.

    Attributes:
        name: on the command line and in results.
        title: in reports.
        source: paper and section.
        shared: tasks share weights that later tasks change, so that a whole sequence is one
            unit of work; else each task is.
        start: makes a learner that has learned nothing; the backbone is never changed.
    """

    name: str
    title: str
    source: str
    shared: bool
    start: Callable[[Backbone], Learner]
