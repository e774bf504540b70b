"""Epochs of gradient training of anything that maps images to logits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from clr.core.augment import augment
from clr.core.baseline import Baseline
from clr.core.checkpoint import Epoch
from clr.core.evaluate import run
from clr.core.images import ImageSet, Preprocessing, prepare
from clr.core.precision import mixed_precision
from clr.core.recipe import Recipe
from clr.errors import UsageError

Logits = Callable[[Tensor], Tensor]
OnStep = Callable[[int, int, int], None]
AfterStep = Callable[[float], None]
"""Called with the progress in 0 … 1."""
DOUBT = 0.1
"""Level of the test by which a training is said to have done harm."""
WARM_UP = 0.25
"""Share of all steps in which the learning rate rises (one-cycle, Smith & Topin 2018)."""


def one_cycle(progress: float) -> float:
    """Return the share of the peak learning rate at `progress` in 0 … 1 of the training.

    Linear rise over `WARM_UP`, then half a cosine down to zero (Smith & Topin 2018;
    Loshchilov & Hutter 2017).
    """
    if progress < WARM_UP:
        return 0.04 + 0.96 * progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


@dataclass(frozen=True, eq=False)
class Training:
    """One model, one data set.

    Attributes:
        train_logits: logits [N, classes] of float images, with gradients.
        logits: the same as they would be served.
        images: the task's train split.
        baseline: which of them train and which validate; class weights; turns.
        preprocessing: of the task.
        recipe: batch size, augmentation, label smoothing, number of epochs.
        device: where the model computes.
        seconds: of wall time since this object was made; where given, training goes on
            until they are over, whatever number of epochs that is.
        schedule: share of the peak learning rate at a progress in 0 … 1.
        mixed_on_cpu: the model is fast in bfloat16 on a CPU, too (`clr.core.precision`).
        penalty: added to the loss of each step, e.g. a pull to what earlier tasks need.
    """

    train_logits: Logits
    logits: Logits
    images: ImageSet
    baseline: Baseline
    preprocessing: Preprocessing
    recipe: Recipe
    device: torch.device
    seconds: float | None = None
    schedule: Callable[[float], float] = one_cycle
    mixed_on_cpu: bool = False
    penalty: Callable[[], Tensor] | None = None
    started: float = field(default_factory=time.monotonic)

    def epochs(self, first: int = 0) -> Iterator[int]:
        """Yield numbers of epochs from `first` until the budget is spent; 0 is the start."""
        number = first
        while number == 0 or (
            number <= self.recipe.epochs if self.seconds is None else self._elapsed() < 1
        ):
            yield number
            number += 1

    def epoch(
        self,
        optimiser: torch.optim.Optimizer,
        number: int,
        on_step: OnStep | None = None,
        after_step: AfterStep = lambda progress: None,
    ) -> float | None:
        """Run epoch `number` (from 1) and return its mean loss; epoch 0 is the start itself.

        With a budget of seconds, the last epoch ends with them, after one step at least.
        """
        if number == 0:
            return None
        recipe = self.recipe
        # of this epoch alone, so that a resumed training draws what an unbroken one does
        generator = torch.Generator().manual_seed(recipe.seed * 100_003 + number)
        order = self.baseline.train[torch.randperm(len(self.baseline.train), generator=generator)]
        # one image alone has no statistics that a batch norm could learn by
        batches = [part for part in order.split(recipe.batch_size) if len(part) > 1]
        peaks = [group.setdefault("peak", group["lr"]) for group in optimiser.param_groups]
        total, seen = 0.0, 0
        for at, part in enumerate(batches):
            progress = self._progress((number - 1) * len(batches) + at, len(batches))
            factor = self.schedule(progress)
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            total += self._step(optimiser, part, generator) * len(part)
            seen += len(part)
            after_step(progress)
            if on_step:
                on_step(number, at + 1, len(batches))
            if self.seconds is not None and self._elapsed() >= 1:
                break
        return total / seen

    def _progress(self, steps: int, each: int) -> float:
        if self.seconds is not None:
            return min(1.0, self._elapsed())
        return (steps + 1) / (self.recipe.epochs * each + 1)

    def _elapsed(self) -> float:
        """Share of the seconds that are over."""
        assert self.seconds is not None
        return (time.monotonic() - self.started) / self.seconds

    def _step(
        self, optimiser: torch.optim.Optimizer, part: Tensor, generator: torch.Generator
    ) -> float:
        pixels = augment(self.images.batch(part), self.baseline.turns, self.recipe.shift, generator)
        batch = prepare(pixels, self.preprocessing, self.device)
        labels = self.images.labels[part].to(self.device)
        optimiser.zero_grad(set_to_none=True)
        with mixed_precision(self.device, on_cpu=self.mixed_on_cpu):
            logits = self.train_logits(batch)
        loss = F.cross_entropy(
            logits.float(),
            labels,
            weight=self.baseline.weights.to(self.device),
            label_smoothing=self.recipe.label_smoothing,
        )
        if self.penalty is not None:
            loss = loss + self.penalty()
        value = float(loss.detach())
        _require_finite(value)
        loss.backward()
        optimiser.step()
        return value

    def validate(self) -> Epoch:
        """Return loss and accuracy on the validation part."""
        logits, labels = self._held_out()
        loss = F.cross_entropy(logits, labels, weight=self.baseline.weights)
        accuracy = (logits.argmax(1) == labels).float().mean()
        _require_finite(float(loss))  # what the last step of an epoch broke shows here first
        return {"val_loss": float(loss), "val_accuracy": float(accuracy)}

    def right(self) -> Tensor:
        """Return which images of the validation part are labelled right: bool [N]."""
        logits, labels = self._held_out()
        return logits.argmax(1) == labels

    def _held_out(self) -> tuple[Tensor, Tensor]:
        held = self.baseline.validation
        logits = run(self.logits, self.images, self.preprocessing, self.device, held)
        return logits, self.images.labels[held]


def is_worse(start: Tensor, end: Tensor) -> bool:
    """Say whether a training has done harm, as far as a validation part can tell.

    One-sided exact sign test of the images that only one of the two labels right (McNemar
    1947) at the level `DOUBT`. In the few images of a validation part a count that is a
    little lower says nothing, and training helps far more often than it harms.

    Args:
        start: bool [N], which images are labelled right before training.
        end: bool [N], the same after it.
    """
    lost, won = int((start & ~end).sum()), int((end & ~start).sum())
    differ = lost + won
    tail: float = sum(math.comb(differ, count) for count in range(lost, differ + 1)) / 2**differ
    return tail < DOUBT


def train_to_end(
    training: Training,
    optimiser: torch.optim.Optimizer,
    tensors: Sequence[Tensor],
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Spend the budget; put `tensors` back where the end is worse on the validation part.

    Args:
        training: what to do.
        optimiser: of what is trained.
        tensors: all that training changes.
        on_epoch: called as (number from 1, mean loss).

    Raises:
        UsageError: the loss is not finite: a learning rate far too high.
    """
    start = [tensor.detach().clone() for tensor in tensors]
    before = training.right()
    for number in training.epochs(1):
        loss = training.epoch(optimiser, number)
        if on_epoch and loss is not None:
            on_epoch(number, loss)
    if is_worse(before, training.right()):
        restore(tensors, start)


@torch.no_grad()
def restore(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Write `values` into `tensors`."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _require_finite(loss: float) -> None:
    if not math.isfinite(loss):
        raise UsageError(
            "The training diverged: its loss is not finite any more.",
            fix="Lower recipe.kernel_lr and recipe.head_lr in task.yaml.",
        )
