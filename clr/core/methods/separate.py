"""Methods whose tasks have nothing in common but the frozen backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from clr.core.backbone import Backbone
from clr.core.methods.interface import Budget, Cost, Learner, Lesson
from clr.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Served:
    """One task as learned.

    Attributes:
        logits: [N, classes] of prepared images.
        cost: what the task added.
    """

    logits: Callable[[Tensor], Tensor]
    cost: Cost


Learn = Callable[[Backbone, Lesson, Budget, int], Served]


def separate(learn: Learn) -> Callable[[Backbone], Learner]:
    """Return the start of a method that learns each task by `learn`, apart from all others."""
    return lambda backbone: _Separate(backbone, learn)


class _Separate:
    def __init__(self, backbone: Backbone, learn: Learn) -> None:
        self._backbone, self._learn = backbone, learn
        self._tasks: dict[str, Served] = {}

    def learn(self, lesson: Lesson, budget: Budget, seed: int) -> None:
        require_new(self._tasks, lesson)
        self._tasks[lesson.task] = self._learn(self._backbone, lesson, budget, seed)

    @torch.inference_mode()
    def logits(self, batch: Tensor, task: str) -> Tensor:
        return find(self._tasks, task).logits(batch.to(self._backbone.device))

    def cost(self, task: str) -> Cost:
        return find(self._tasks, task).cost


def require_new(tasks: dict[str, T], lesson: Lesson) -> None:
    """Refuse a task that was learned before.

    Raises:
        UsageError: it was.
    """
    if lesson.task in tasks:
        raise UsageError(
            f"The task {lesson.task} was learned before.", fix="Start another learner."
        )


def find(tasks: dict[str, T], task: str) -> T:
    """Return what was made of `task`.

    Raises:
        UsageError: it was not learned.
    """
    if task not in tasks:
        known = ", ".join(tasks) or "none"
        raise UsageError(f"The task {task!r} was not learned.", fix=f"Learned: {known}.")
    return tasks[task]
