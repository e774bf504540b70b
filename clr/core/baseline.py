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
from clr.core.probe import Probe, fit_probe, fit_probe_at
from clr.core.recipe import Recipe

TURN_IMAGES = 480
"""How many images say which turns keep their label."""
TURN_LOSS = 0.06
"""Accuracy that a turn may cost: on eight tasks, turns that keep labels cost up to 0.06
with the error counted in, turns that do not 0.10 and more."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """What is known before any adapter is trained.

    Attributes:
        probe: linear probe on the training part, where an adapter starts.
        whole: the same fitted to all images, the validation part too, once that has chosen
            the penalty: what an adapter is compared with.
        train: int64 indices of the images that are trained on.
        validation: int64 indices of the images that choose among models.
        turns: mirrored and turned images that keep their label, see `label_keeping_turns`.
        weights: float32 [classes], of each class in the loss.
    """

    probe: Probe
    whole: Probe
    train: Tensor
    validation: Tensor
    turns: tuple[str, ...]
    weights: Tensor

    @property
    def images(self) -> Tensor:
        """Indices of all images, int64: those of the training part, then the validation part's."""
        return torch.cat([self.train, self.validation])


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
    probe, whole = fit_probes(features, images.labels, train, validation, weights)
    turns: tuple[str, ...] = ()
    if recipe.flips:
        turns = label_keeping_turns(
            backbone, images, preprocessing, features, probe.strength, recipe.seed
        )
    return Baseline(probe, whole, train, validation, turns, weights)


def fit_probes(
    features: Tensor, labels: Tensor, train: Tensor, validation: Tensor, weights: Tensor
) -> tuple[Probe, Probe]:
    """Return the `probe` and the `whole` of a `Baseline`.

    Args:
        features: float32 [N, channels], frozen, of all images.
        labels: int64 [N].
        train: int64 indices of the training part.
        validation: int64 indices of the validation part.
        weights: float32 [classes], of each class in the loss.
    """
    held = features[validation], labels[validation]
    probe = fit_probe(features[train], labels[train], held, weights)
    both = torch.cat([train, validation])
    return probe, fit_probe_at(features[both], labels[both], weights, probe.strength)


def label_keeping_turns(
    backbone: Backbone,
    images: ImageSet,
    preprocessing: Preprocessing,
    upright: Tensor,
    strength: float,
    seed: int,
) -> tuple[str, ...]:
    """Return the turns under which probes that know upright images only are as good.

    A mirrored digit is another or no digit; a mirrored scratch is a scratch. Two probes,
    each fitted on one half of a sample and asked about the other half, tell: a turn is used
    where they lose at most `TURN_LOSS` of accuracy, the standard error of it counted in.

    Args:
        backbone: frozen.
        images: the task's train split.
        preprocessing: of the task.
        upright: float32 [N, channels], features of all images as they are.
        strength: of the probes.
        seed: draws the sample and its halves.
    """
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(len(images), generator=generator)[:TURN_IMAGES]
    # of each class, one half of its images goes into either half
    order = sample[torch.argsort(images.labels[sample], stable=True)]
    halves = order[::2], order[1::2]
    labels, classes = images.labels, int(images.labels.max()) + 1
    probes = [fit_probe_at(upright[h], labels[h], torch.ones(classes), strength) for h in halves]

    def right(turn: Callable[[Tensor], Tensor] | None) -> Tensor:
        found = []
        for probe, half in zip(probes, reversed(halves), strict=True):
            features = (
                run(backbone.module, images, preprocessing, backbone.device, half, turn)
                if turn
                else upright[half]
            )
            found.append(probe.logits(features).argmax(1) == labels[half])
        return torch.cat(found).float()

    before, kept = right(None), []
    for name, turn in TURNS.items():
        loss = before - right(turn)
        error = float(loss.std()) / math.sqrt(len(loss))
        if float(loss.mean()) + error <= TURN_LOSS:
            kept.append(name)
    return tuple(kept)
