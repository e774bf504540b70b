"""Batch norm only: each task has its own scales and biases, nothing else."""

from __future__ import annotations

from dataclasses import replace

import torch

from clr.core.backbone import Backbone
from clr.core.methods.interface import Budget, Cost, Lesson
from clr.core.methods.separate import Served
from clr.core.network import Program
from clr.core.recipe import Recipe
from clr.core.sites import batch_norm_sites
from clr.core.training import Training, train_to_end


def learn(backbone: Backbone, lesson: Lesson, budget: Budget, seed: int) -> Served:
    """Train weight and bias of every batch norm, and the head from the probe on.

    A "model patch" of scales and biases a task, Mudrakarta et al. 2019, "K for the Price of
    1". Statistics stay the pretrained ones, as those of few images are poor;
    learning rates and everything else are CLR's.

    Raises:
        UsageError: the backbone has no batch norm.
    """
    recipe = replace(Recipe(), epochs=budget.epochs, seed=seed)
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
    tensors = norms | head
    for tensor in tensors.values():
        tensor.requires_grad_()
    program = Program(backbone, tensors)
    optimiser = torch.optim.AdamW(
        [
            {"params": list(norms.values()), "lr": recipe.kernel_lr},
            {"params": list(head.values()), "lr": recipe.head_lr},
        ],
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )
    training = Training(
        program.logits,
        program.logits,
        lesson.images,
        lesson.baseline,
        lesson.preprocessing,
        recipe,
        backbone.device,
        budget.seconds,
    )
    train_to_end(training, optimiser, list(tensors.values()))
    cost = Cost.of_floats(
        batch_norm=sum(t.numel() for t in norms.values()),
        head=sum(t.numel() for t in head.values()),
    )
    return Served(program.logits, cost)
