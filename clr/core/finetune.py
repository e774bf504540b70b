"""Full fine-tuning of a copy of the backbone: what CLR exists to avoid, as a reference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from clr.core.backbone import Backbone, state_digest
from clr.core.baseline import Baseline, measure_baseline
from clr.core.images import ImageSet, Preprocessing
from clr.core.probe import Probe
from clr.core.recipe import Recipe
from clr.core.training import Training, train_to_end

LEARNING_RATE = 3e-4
"""Peak of all weights; AdamW's other settings are its defaults."""


def copied(backbone: Backbone, *, shared: bool = False) -> nn.Module:
    """Return a copy of the backbone's module that no adapter acts in.

    Args:
        backbone: left as it is.
        shared: modules are copied, but not the frozen tensors in them.
    """
    tensors = [*backbone.module.parameters(), *backbone.module.buffers()] if shared else []
    module = copy.deepcopy(backbone.module, {id(tensor): tensor for tensor in tensors})
    for one in module.modules():
        one._forward_hooks.clear()
        vars(one).pop("forward", None)
    return module


def classifier(module: nn.Module, probe: Probe, device: torch.device) -> nn.Sequential:
    """Return `module` with a linear head that starts as `probe`."""
    classes, channels = probe.weight.shape
    head = nn.utils.skip_init(nn.Linear, channels, classes)
    head.load_state_dict({"weight": probe.weight, "bias": probe.bias})
    return nn.Sequential(module, head.to(device))


def fine_tune(
    model: nn.Module,
    images: ImageSet,
    baseline: Baseline,
    preprocessing: Preprocessing,
    recipe: Recipe,
    *,
    seconds: float | None = None,
    penalty: Callable[[], Tensor] | None = None,
    also: Sequence[nn.Module] = (),
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Train all weights of a classifier in place, with AdamW and the one-cycle schedule.

    Batch norms keep their pretrained statistics and learn weight and bias: statistics of a
    few hundred images cost more accuracy than their fit to the task brings.

    Args:
        model: in eval mode; left so.
        images: the task's train split.
        baseline: of the same images.
        preprocessing: of the task.
        recipe: batch size, augmentation, label smoothing, number of epochs, seed.
        seconds: of wall time to spend, instead of the recipe's epochs.
        penalty: added to the loss of each step.
        also: what else the penalty trains.
        on_epoch: called as (number from 1, mean loss).

    Raises:
        UsageError: the loss is not finite any more.
    """
    trained = nn.ModuleList([model, *also]).requires_grad_(True)
    parameters = list(trained.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    device = parameters[0].device
    training = Training(
        model, model, images, baseline, preprocessing, recipe, device, seconds, penalty=penalty
    )
    train_to_end(training, optimiser, parameters, on_epoch)
    trained.requires_grad_(False)


def finetuned(
    backbone: Backbone,
    images: ImageSet,
    preprocessing: Preprocessing,
    classes: int,
    *,
    epochs: int = 3,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Backbone:
    """Return a copy of the backbone, all of its weights trained on one task.

    Args:
        backbone: left as it is.
        images: labelled images of the task.
        preprocessing: of the task.
        classes: number of labels.
        epochs: passes over the training part.
        seed: of validation part, order and augmentation.
        on_epoch: called as (number from 1, mean loss).
    """
    recipe = Recipe(epochs=epochs, seed=seed, flips=False)
    baseline = measure_baseline(backbone, images, preprocessing, recipe, classes)
    module = copied(backbone)
    model = classifier(module, baseline.probe, backbone.device)
    fine_tune(model, images, baseline, preprocessing, recipe, on_epoch=on_epoch)
    convolutions = {
        path: one
        for path, one in module.named_modules()
        if path in backbone.convolutions and isinstance(one, nn.Conv2d)
    }
    return replace(
        backbone,
        name=f"{backbone.name} (fine-tuned)",
        module=module,
        digest=state_digest(module),
        convolutions=convolutions,
        source="fine-tuned",
    )
