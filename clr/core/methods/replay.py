"""Experience replay: some images of earlier tasks are kept and trained on again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clr.core.augment import augment
from clr.core.images import Preprocessing, prepare
from clr.core.methods.interface import Cost, Lesson
from clr.core.recipe import Recipe

CAPACITY = 200
"""Images that are kept, of all tasks together."""

T = TypeVar("T")


class Reservoir(Generic[T]):
    """A uniform sample, of bounded size, of all that was ever offered.

    Algorithm R of Vitter 1985, "Random Sampling with a Reservoir".

    Attributes:
        items: the sample.
        seen: how many were offered.
    """

    def __init__(self, capacity: int) -> None:
        """Hold at most `capacity` items."""
        self.items: list[T] = []
        self.seen = 0
        self._capacity = capacity

    def offer(self, item: T, generator: torch.Generator) -> None:
        """Keep `item` with probability capacity / seen, in place of any of those kept."""
        self.seen += 1
        if len(self.items) < self._capacity:
            self.items.append(item)
            return
        place = int(torch.randint(self.seen, (1,), generator=generator))
        if place < self._capacity:
            self.items[place] = item


@dataclass(frozen=True, eq=False)
class _Task:
    head: nn.Module
    preprocessing: Preprocessing
    turns: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Kept:
    pixels: Tensor
    label: int
    task: str


class Rehearsal:
    """With each batch of the new task one as large from the reservoir.

    Experience replay with reservoir sampling as in Chaudhry et al. 2019, "On Tiny Episodic
    Memories in Continual Learning", algorithms 1 and 2. The replayed images come on top of
    the budget of epochs, but not on top of one of seconds. Of each image its decoded pixels
    are kept, and counted with its task.
    """

    def __init__(self) -> None:
        """Remember nothing."""
        self._reservoir: Reservoir[_Kept] = Reservoir(CAPACITY)
        self._tasks: dict[str, _Task] = {}

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """Those of all earlier tasks: they follow the network."""
        return tuple(task.head for task in self._tasks.values())

    def penalty(self, network: nn.Module, recipe: Recipe) -> Callable[[], Tensor] | None:
        """Return the mean loss of a batch drawn from the reservoir; None while it is empty."""
        items = self._reservoir.items
        if not items:
            return None
        generator = torch.Generator().manual_seed(recipe.seed)

        def rehearse() -> Tensor:
            places = torch.randperm(len(items), generator=generator)[: recipe.batch_size]
            drawn = [items[place] for place in places.tolist()]
            losses = [
                self._loss(network, [one for one in drawn if one.task == task], recipe, generator)
                for task in dict.fromkeys(one.task for one in drawn)
            ]
            return torch.stack(losses).sum() / len(drawn)

        return rehearse

    def _loss(
        self, network: nn.Module, kept: list[_Kept], recipe: Recipe, generator: torch.Generator
    ) -> Tensor:
        """Return the sum of the losses of images of one task."""
        task = self._tasks[kept[0].task]
        device = next(network.parameters()).device
        pixels = torch.stack([one.pixels for one in kept])
        pixels = augment(pixels, task.turns, recipe.shift, generator)
        logits = task.head(network(prepare(pixels, task.preprocessing, device)))
        return F.cross_entropy(
            logits,
            torch.tensor([one.label for one in kept], device=device),
            label_smoothing=recipe.label_smoothing,
            reduction="sum",
        )

    def remember(self, network: nn.Module, head: nn.Module, lesson: Lesson, seed: int) -> None:
        """Offer every image of the training part to the reservoir once, in random order."""
        generator = torch.Generator().manual_seed(seed)
        part = lesson.baseline.train
        for at in part[torch.randperm(len(part), generator=generator)].tolist():
            pixels = lesson.images.batch(torch.tensor([at]))[0]
            self._reservoir.offer(
                _Kept(pixels, int(lesson.images.labels[at]), lesson.task), generator
            )
        self._tasks[lesson.task] = _Task(head, lesson.preprocessing, lesson.baseline.turns)

    def cost(self, task: str) -> Cost:
        """Return the pixels that are kept of this task now, a byte each."""
        kept = [one.pixels.numel() for one in self._reservoir.items if one.task == task]
        return Cost(bytes=sum(kept))
