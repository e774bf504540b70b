"""Supermasks in superposition (SupSup, Wortsman et al. 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clr.core.backbone import Backbone
from clr.core.methods.beside import Reweighted, altered, count, settle, train_beside
from clr.core.methods.interface import Budget, Cost, Lesson
from clr.core.methods.separate import Served

KEPT = 0.9
"""Share of the weights of each layer that the mask keeps."""
LEARNING_RATE = 0.01


class _Mask(torch.autograd.Function):
    """1 for the largest scores, 0 for the others; gradients pass straight through."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        dropped = round((1 - KEPT) * scores.numel())
        if not dropped:
            return torch.ones_like(scores)
        return (scores > scores.flatten().kthvalue(dropped).values).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class Masked(Reweighted):
    """A convolution with the weights that have the largest scores, and 0 for the others."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        """Mask `convolution`; scores start as its weights' sizes, of mean 1."""
        super().__init__(convolution)
        size = convolution.weight.detach().abs().contiguous()
        self.scores = nn.Parameter(size / size.mean().clamp_min(1e-12))

    def weight(self) -> Tensor:
        """Return the masked weight."""
        masked: Tensor = self.convolution.weight * _Mask.apply(self.scores)
        return masked


def learn(backbone: Backbone, lesson: Lesson, budget: Budget, seed: int) -> Served:
    """Train a mask for every convolution's fixed weights, and the head from the probe on.

    Scores by edge-popup (Ramanujan et al. 2020, section 3), as in section 3.1 of the paper,
    where the fixed weights are random. Pretrained ones are worth keeping: scores start as
    the sizes of the weights and nine tenths are kept. A mask is stored as a bit a weight.
    Batch norm: all the backbone's own, frozen; the paper has statistics a task.
    """
    model, made = altered(backbone, lesson, backbone.convolutions, Masked)
    scores = [one.scores for one in made.values()]
    head = list(model[1].parameters())
    train_beside(lesson, budget, seed, model, scores, head, LEARNING_RATE)
    settle(model, made)
    bits = count(scores)
    return Served(model, Cost.of_floats(head=count(head)) + Cost(other=bits, bytes=-(-bits // 8)))
