"""What methods share that add something to a frozen backbone, task by task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clr.core.backbone import Backbone
from clr.core.finetune import classifier, copied
from clr.core.methods.interface import Budget, Lesson
from clr.core.recipe import Recipe
from clr.core.training import Logits, Training, train_to_end

Altered = TypeVar("Altered", bound=nn.Module)


def train_beside(
    lesson: Lesson,
    budget: Budget,
    seed: int,
    logits: Logits,
    added: Sequence[Tensor],
    head: Sequence[Tensor],
    rate: float,
) -> None:
    """Train `added` and `head` in place, with the optimiser and the recipe of CLR.

    Args:
        lesson: the task.
        budget: what to spend.
        seed: of order and augmentation.
        logits: what they compute.
        added: what the method adds to the backbone.
        head: weight and bias of the classifier.
        rate: peak learning rate of `added`.
    """
    recipe = replace(Recipe(), epochs=budget.epochs, seed=seed)
    groups = [{"params": added, "lr": rate}, {"params": head, "lr": recipe.head_lr}]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
    tensors = [*added, *head]
    for tensor in tensors:
        tensor.requires_grad_()
    training = Training(
        logits,
        logits,
        lesson.images,
        lesson.baseline,
        lesson.preprocessing,
        recipe,
        head[0].device,
        budget.seconds,
    )
    train_to_end(training, optimiser, tensors)
    for tensor in tensors:
        tensor.requires_grad_(False)


class Reweighted(nn.Module):
    """A convolution with another weight than its own, made from that."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        """Take the place of `convolution`."""
        super().__init__()
        self.convolution = convolution

    def weight(self) -> Tensor:
        """Return the other weight, with gradients to what it is made of."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of `x` with the other weight."""
        output: Tensor = functional_call(self.convolution, {"weight": self.weight()}, (x,))
        return output

    def settled(self) -> nn.Conv2d:
        """Return the convolution with the other weight for good; the backbone's is kept."""
        self.convolution.weight = nn.Parameter(self.weight().detach(), requires_grad=False)
        return self.convolution


def altered(
    backbone: Backbone,
    lesson: Lesson,
    paths: Iterable[str],
    alter: Callable[[nn.Conv2d], Altered],
) -> tuple[nn.Sequential, dict[str, Altered]]:
    """Return the backbone with the probe's head and with other modules for convolutions.

    Args:
        backbone: left as it is; its tensors are shared, not copied.
        lesson: whose probe is the head.
        paths: which convolutions.
        alter: makes the module that takes a convolution's place, on the CPU.

    Returns:
        The classifier, and what `alter` made, by path.
    """
    module = copied(backbone, shared=True)
    made: dict[str, Altered] = {}
    for path in paths:
        convolution = module.get_submodule(path)
        assert isinstance(convolution, nn.Conv2d)
        made[path] = alter(convolution).eval().to(backbone.device)
        _put(module, path, made[path])
    return classifier(module, lesson.baseline.probe, backbone.device), made


def settle(model: nn.Sequential, made: Mapping[str, Reweighted]) -> None:
    """Serve the weights of `made` as plain convolutions, as quick as the backbone's."""
    for path, one in made.items():
        _put(model[0], path, one.settled())


def _put(module: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)


def count(tensors: Iterable[Tensor]) -> int:
    """Return the number of values."""
    return sum(tensor.numel() for tensor in tensors)
