"""What is known before any adapter is trained: split, class weights, probe, symmetries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from clr.core.augment import TURNS
from clr.core.backbone import Backbone
from clr.core.evaluate import run
from clr.core.images import ImageSet, Preprocessing
from clr.core.probe import Probe, fit_probe
from clr.core.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Baseline:
    """What is known before any adapter is trained.

    Attributes:
        probe: linear probe on the training part.
        train: int64 indices of the images that are trained on.
        validation: int64 indices of the images that choose among models.
        turns: mirrored and turned images that keep their label, see `label_keeping_turns`.
        weights: float32 [classes], of each class in the loss.
    """

    probe: Probe
    train: Tensor
    validation: Tensor
    turns: tuple[str, ...]
    weights: Tensor


def split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split indices per class into (train, validation); each class keeps one or more in both.

    Args:
        labels: int64 [N].
        share: of validation.
        seed: decides which.
    """
    generator = torch.Generator().manual_seed(seed)
    train, validation = [], []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        cut = min(max(1, round(share * len(members))), len(members) - 1)
        validation.append(members[:cut])
        train.append(members[cut:])
    return torch.cat(train).sort().values, torch.cat(validation).sort().values


def class_weights(labels: Tensor, classes: int, balance: bool) -> Tensor:
    """Return float32 [classes]: inverse frequencies with mean 1 over images, or ones."""
    counts = torch.bincount(labels, minlength=classes).clamp_min(1).float()
    if not balance or float(counts.max() / counts.min()) < 1.5:
        return torch.ones(classes)
    return len(labels) / (classes * counts)


def measure_baseline(
    backbone: Backbone, images: ImageSet, preprocessing: Preprocessing, recipe: Recipe, classes: int
) -> Baseline:
    """Fit the linear probe on frozen features and find which turned images keep their label."""
    train, validation = split(images.labels, recipe.validation_share, recipe.seed)
    device = backbone.device
    features = run(backbone.module, images, preprocessing, device)
    weights = class_weights(images.labels[train], classes, recipe.balance)
    held = features[validation], images.labels[validation]
    probe = fit_probe(features[train], images.labels[train], held, weights)
    turns: tuple[str, ...] = ()
    if recipe.flips:
        turns = label_keeping_turns(backbone, images, preprocessing, probe, validation)
    return Baseline(probe, train, validation, turns, weights)


def label_keeping_turns(
    backbone: Backbone,
    images: ImageSet,
    preprocessing: Preprocessing,
    probe: Probe,
    validation: Tensor,
) -> tuple[str, ...]:
    """Return the turns under which the probe, trained on upright images, is as good.

    A mirrored digit is another or no digit; a mirrored scratch is a scratch. The probe
    tells: a turn is used where it loses less than two standard errors on validation.
    """
    labels = images.labels[validation]

    def right(turn: Callable[[Tensor], Tensor] | None) -> Tensor:
        found = run(backbone.module, images, preprocessing, backbone.device, validation, turn)
        return (probe.logits(found).argmax(1) == labels).float()

    upright, kept = right(None), []
    for name, turn in TURNS.items():
        change = upright - right(turn)
        error = float(change.std()) / math.sqrt(len(change)) if len(change) > 1 else 1.0
        if float(change.mean()) <= max(0.01, 2 * error) and float(change.mean()) < 0.05:
            kept.append(name)
    return tuple(kept)
