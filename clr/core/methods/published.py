"""CLR as released with the paper, but with honest model selection."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from clr.core.adapter import AdapterSpec, new_adapter
from clr.core.backbone import Backbone
from clr.core.methods.interface import Budget, Lesson
from clr.core.methods.reprogramming import cost_of
from clr.core.methods.separate import Served
from clr.core.network import Program
from clr.core.recipe import Recipe
from clr.core.training import Training, restore

LEARNING_RATE = 1e-3
PENALTY = 1e-5
PATIENCE = 21


def step_decay(progress: float) -> float:
    """Return a tenth of the rate after each third of the training."""
    return float(0.1 ** min(2, int(3 * progress)))


def learn(backbone: Backbone, lesson: Lesson, budget: Budget, seed: int) -> Served:
    """Train as main.py of github.com/gyhandy/Channel-wise-Lightweight-Reprogramming does.

    Depthwise 3×3 kernels after k×k convolutions, Dirac at birth; a head with PyTorch's
    random start; batch norms trained whole, with the statistics of batches and running ones
    for serving; Adam at 1e-3, a tenth of it after each third; batches of 32 images as they
    are; cross-entropy plus 1e-5 times the sum of the Euclidean norms of all trained tensors.
    The epoch with the best accuracy is kept, the earliest of equals, and training ends when
    21 epochs brought none better; here that is accuracy on the validation part, there it was
    accuracy on the very images whose accuracy was reported.
    """
    recipe = Recipe(epochs=budget.epochs, batch_size=32, label_smoothing=0.0, shift=0.0, seed=seed)
    tensors = _at_birth(backbone, lesson, seed)
    trained = [t for n, t in tensors.items() if not n.endswith(("running_mean", "running_var"))]
    for tensor in trained:
        tensor.requires_grad_()
    program = Program(backbone, tensors)
    training = Training(
        lambda batch: program.logits(batch, batch_statistics=True),
        program.logits,
        lesson.images,
        replace(lesson.baseline, turns=(), weights=torch.ones(len(lesson.labels))),
        lesson.preprocessing,
        recipe,
        backbone.device,
        budget.seconds,
        schedule=step_decay,
        penalty=lambda: PENALTY * torch.stack([t.norm() for t in trained]).sum(),
    )
    _train_to_the_best(training, trained, list(tensors.values()))
    return Served(program.logits, cost_of(tensors))


def _at_birth(backbone: Backbone, lesson: Lesson, seed: int) -> dict[str, Tensor]:
    # as `nn.Linear` draws, but not from the generator that other threads draw from, too
    generator, bound = torch.Generator().manual_seed(seed), backbone.channels**-0.5
    weight, bias = (
        torch.empty(len(lesson.labels), backbone.channels),
        torch.empty(len(lesson.labels)),
    )
    for tensor in (weight, bias):
        tensor.uniform_(-bound, bound, generator=generator)
    spec = AdapterSpec(
        lesson.task,
        lesson.labels,
        backbone.name,
        backbone.digest,
        lesson.preprocessing,
        batch_norm="batch",
    )
    adapter = new_adapter(spec, backbone, (weight, bias))
    return {name: tensor.to(backbone.device) for name, tensor in adapter.tensors.items()}


def _train_to_the_best(training: Training, trained: list[Tensor], tensors: list[Tensor]) -> None:
    optimiser = torch.optim.Adam(trained, lr=LEARNING_RATE)
    best, best_number, kept = -1.0, 0, tensors
    for number in training.epochs(1):
        training.epoch(optimiser, number)
        accuracy = training.validate()["val_accuracy"]
        if accuracy > best:
            best, best_number = accuracy, number
            kept = [tensor.detach().clone() for tensor in tensors]
        elif number - best_number > PATIENCE:
            break
    restore(tensors, kept)
