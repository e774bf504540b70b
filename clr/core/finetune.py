"""Full fine-tuning of a copy of the backbone: what CLR exists to avoid, as a reference."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from clr.core.augment import augment
from clr.core.backbone import Backbone, state_digest
from clr.core.images import ImageSet, Preprocessing, prepare

LEARNING_RATE = 1e-3


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
    """Return a copy of the backbone, all of its weights trained on one task (AdamW).

    Args:
        backbone: left as it is.
        images: labelled images of the task.
        preprocessing: of the task.
        classes: number of labels.
        epochs: passes over the images.
        seed: of head, order and augmentation.
        on_epoch: called as (number from 1, mean loss).
    """
    module = copy.deepcopy(backbone.module).requires_grad_(True)
    for one in module.modules():  # the copy must not act on other tasks' adapters' behalf
        one._forward_hooks.clear()
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(backbone.channels, classes).to(backbone.device)
    nn.init.normal_(head.weight, std=0.01, generator=_on(head.weight.device, seed))
    optimiser = torch.optim.AdamW([*module.parameters(), *head.parameters()], lr=LEARNING_RATE)
    module.train()
    for epoch in range(1, epochs + 1):
        order, total = torch.randperm(len(images), generator=generator), 0.0
        for part in order.split(32):
            if len(part) < 2:
                continue
            pixels = augment(images.batch(part), (), 0.08, generator)
            features = module(prepare(pixels, preprocessing, backbone.device))
            loss = F.cross_entropy(head(features), images.labels[part].to(backbone.device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(part)
        if on_epoch:
            on_epoch(epoch, total / len(order))
    module.eval().requires_grad_(False)
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


def _on(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(seed)
