"""Batch norm only: each task has its own scales and biases, nothing else."""

from __future__ import annotations

from clr.core.backbone import Backbone
from clr.core.methods.beside import count, train_beside
from clr.core.methods.interface import Budget, Cost, Lesson
from clr.core.methods.separate import Served
from clr.core.network import Program
from clr.core.recipe import Recipe
from clr.core.sites import batch_norm_sites


def learn(backbone: Backbone, lesson: Lesson, budget: Budget, seed: int) -> Served:
    """Train weight and bias of every batch norm, and the head from the probe on.

    A "model patch" of scales and biases a task, Mudrakarta et al. 2019, "K for the Price of
    1". Statistics stay the pretrained ones, as those of few images are poor; learning rates
    and everything else are CLR's.

    Raises:
        UsageError: the backbone has no batch norm.
    """
    probe = lesson.baseline.probe
    norms = {
        f"bn.{path}.{name}": tensor.detach().clone()
        for path, module in batch_norm_sites(backbone).items()
        for name, tensor in module.named_parameters()
    }
    head = {
        "head.weight": probe.weight.to(backbone.device, copy=True),
        "head.bias": probe.bias.to(backbone.device, copy=True),
    }
    logits = Program(backbone, norms | head).logits
    added, classifier = list(norms.values()), list(head.values())
    train_beside(lesson, budget, seed, logits, added, classifier, Recipe().kernel_lr)
    return Served(logits, Cost.of_floats(batch_norm=count(added), head=count(classifier)))
