"""Low-rank adaptation of convolutions (LoRA, Hu et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clr.core.backbone import Backbone
from clr.core.methods.beside import Reweighted, altered, count, settle, train_beside
from clr.core.methods.interface import Budget, Cost, Lesson
from clr.core.methods.separate import Served

RANK = 4
LEARNING_RATE = 1e-3


class LowRank(Reweighted):
    """A convolution whose weight W [out, in/groups, k, k] is W + B A, as a matrix.

    B is [out, r] and zero at birth, A is [r, in/groups · k · k]; r is at most the rank that
    the matrix can have.
    """

    def __init__(self, convolution: nn.Conv2d, generator: torch.Generator) -> None:
        """Adapt `convolution`; `generator` draws A."""
        super().__init__(convolution)
        out, rest = convolution.weight.flatten(1).shape
        rank = min(RANK, out, rest)
        self.down = nn.Parameter(torch.empty(rank, rest))
        self.up = nn.Parameter(torch.zeros(out, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5), generator=generator)

    def weight(self) -> Tensor:
        """Return W + B A."""
        own = self.convolution.weight
        return own + (self.up @ self.down).view_as(own)


def learn(backbone: Backbone, lesson: Lesson, budget: Budget, seed: int) -> Served:
    """Train W + B A for every convolution (section 4.1, equation 3; α = r).

    A is drawn as in the released loralib. Batch norm: all the backbone's own, frozen.
    """
    generator = torch.Generator().manual_seed(seed)
    model, made = altered(
        backbone, lesson, backbone.convolutions, lambda one: LowRank(one, generator)
    )
    added = [own for one in made.values() for own in (one.down, one.up)]
    head = list(model[1].parameters())
    train_beside(lesson, budget, seed, model, added, head, LEARNING_RATE)
    settle(model, made)
    return Served(model, Cost.of_floats(kernels=count(added), head=count(head)))
