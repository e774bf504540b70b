"""Efficient feature transformations (Verma et al. 2021, CVPR)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from clr.core.backbone import Backbone
from clr.core.methods.beside import altered, count, train_beside
from clr.core.methods.interface import Budget, Cost, Lesson
from clr.core.methods.separate import Served
from clr.core.sites import kernel_sites

GROUPWISE, POINTWISE = 8, 16
"""Channels a group, a and b in the paper; its released CIFAR-100 settings."""
LEARNING_RATE = 1e-3


class Transformation(nn.Module):
    """A convolution, and the sum of two cheap ones of its output, identity at birth.

    Groups have the most channels that divide both the paper's number and the layer's.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        """Follow `convolution`."""
        super().__init__()
        channels = convolution.out_channels
        groups = [channels // math.gcd(channels, size) for size in (GROUPWISE, POINTWISE)]
        self.convolution = convolution
        self.groupwise = nn.Conv2d(channels, channels, 3, padding=1, groups=groups[0])
        self.pointwise = nn.Conv2d(channels, channels, 1, groups=groups[1])
        for own in self.added:
            nn.init.zeros_(own)
        nn.init.dirac_(self.groupwise.weight, groups[0])

    @property
    def added(self) -> list[nn.Parameter]:
        """What the task has of its own."""
        return [*self.groupwise.parameters(), *self.pointwise.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        """Return the transformed output of the convolution."""
        output = self.convolution(x)
        transformed: Tensor = self.groupwise(output) + self.pointwise(output)
        return transformed


def learn(backbone: Backbone, lesson: Lesson, budget: Budget, seed: int) -> Served:
    """Train H = w^s ∗ F + w^d ∗ F after each k×k convolution's output F (section 3.1).

    w^s are 3×3 and w^d 1×1 convolutions in groups of 8 and 16 channels, with biases. They
    follow the k×k convolutions, as CLR's kernels do, and start as identity, since the
    backbone is a pretrained one and not, as in the paper, the network of the first task.
    Batch norm: all the backbone's own, frozen.
    """
    model, made = altered(backbone, lesson, kernel_sites(backbone, "reduced"), Transformation)
    added = [own for one in made.values() for own in one.added]
    head = list(model[1].parameters())
    train_beside(lesson, budget, seed, model, added, head, LEARNING_RATE)
    return Served(model, Cost.of_floats(kernels=count(added), head=count(head)))
