"""One network that learns task after task, with a head for each: it forgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from clr.core.backbone import Backbone
from clr.core.baseline import Baseline
from clr.core.evaluate import run
from clr.core.finetune import classifier, copied, fine_tune
from clr.core.methods.interface import Budget, Cost, Lesson
from clr.core.methods.separate import find, require_new
from clr.core.probe import fit_probe_at
from clr.core.recipe import Recipe


class Memory(Protocol):
    """What is kept of earlier tasks against forgetting."""

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """Heads of earlier tasks that its penalty trains further."""

    def penalty(self, network: nn.Module, recipe: Recipe) -> Callable[[], Tensor] | None:
        """Return what to add to each step's loss while `network` learns; None: nothing."""

    def remember(self, network: nn.Module, head: nn.Module, lesson: Lesson, seed: int) -> None:
        """Keep what later tasks will need of a task that was just learned."""

    def cost(self, task: str) -> Cost:
        """Return what is kept of this task."""


class Sequential:
    """A copy of the backbone that every task goes on training, and a head for each.

    Training is `clr.core.finetune.fine_tune`'s. Batch norm: pretrained statistics for all
    tasks, weight and bias trained; statistics that follow the last task would be one more
    way of forgetting. A head starts as the probe on the features of the network as the tasks
    before have left it. The copy is counted with the first task.
    """

    def __init__(self, backbone: Backbone, memory: Memory | None = None) -> None:
        """Start from a copy of `backbone`."""
        self._device = backbone.device
        self._network = copied(backbone)
        self._heads: dict[str, nn.Module] = {}
        self._memory = memory

    def learn(self, lesson: Lesson, budget: Budget, seed: int) -> None:
        """See `clr.core.methods.interface.Learner`."""
        require_new(self._heads, lesson)
        memory = self._memory
        recipe = replace(Recipe(), epochs=budget.epochs, seed=seed)
        start = self._baseline(lesson) if self._heads else lesson.baseline
        model = classifier(self._network, start.probe, self._device)
        fine_tune(
            model,
            lesson.images,
            lesson.baseline,
            lesson.preprocessing,
            recipe,
            seconds=budget.seconds,
            penalty=memory.penalty(self._network, recipe) if memory else None,
            also=memory.heads if memory else (),
        )
        self._heads[lesson.task] = model[1]
        if memory:
            memory.remember(self._network, model[1], lesson, seed)

    @torch.inference_mode()
    def logits(self, batch: Tensor, task: str) -> Tensor:
        """See `clr.core.methods.interface.Learner`."""
        head = find(self._heads, task)
        logits: Tensor = head(self._network(batch.to(self._device)))
        return logits

    def cost(self, task: str) -> Cost:
        """See `clr.core.methods.interface.Learner`."""
        head, first = find(self._heads, task), next(iter(self._heads))
        own = Cost.of_floats(
            head=sum(p.numel() for p in head.parameters()),
            other=sum(p.numel() for p in self._network.parameters()) if task == first else 0,
        )
        return own + self._memory.cost(task) if self._memory else own

    def _baseline(self, lesson: Lesson) -> Baseline:
        known, part = lesson.baseline, lesson.baseline.train
        features = run(self._network, lesson.images, lesson.preprocessing, self._device, part)
        labels = lesson.images.labels[part]
        probe = fit_probe_at(features, labels, known.weights, known.probe.strength)
        return replace(known, probe=probe)
