"""The linear probe: multinomial logistic regression, against an independent solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clr.core.probe import STRENGTHS, Probe, fit_probe
from clr.errors import UsageError


def blobs(seed: int, n: int, spread: float = 1.0, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Gaussian clouds around corners of a simplex, features of unlike scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    noise = torch.randn(n, 6, generator=generator)
    features = 3 * F.one_hot(labels, 6).float() + spread * noise
    return features * torch.tensor([1, 10, 2, 1, 5, 0.1]) + 7, labels


def test_it_separates_what_is_separable() -> None:
    features, labels = blobs(0, 120, 0.3)
    probe = fit_probe(features, labels, blobs(1, 60, 0.3), torch.ones(3))
    held, truth = blobs(2, 300, 0.3)
    assert (probe.logits(held).argmax(1) == truth).float().mean() > 0.98
    assert probe.weight.shape == (3, 6)
    assert probe.bias.shape == (3,)
    assert probe.strength in STRENGTHS
    assert not probe.weight.requires_grad


def test_it_minimises_the_penalised_loss_on_centred_features_of_one_scale() -> None:
    """The gradient there is nought: checked in double precision with numpy."""
    features, labels = blobs(3, 90, 1.5)
    weights = torch.tensor([1.0, 2.0, 0.5])
    probe = fit_probe(features, labels, blobs(4, 90, 1.5), weights)
    x = features.double().numpy()
    mean, std = x.mean(0), np.sqrt(x.var(0, ddof=1).mean())
    standard = (x - mean) / std
    w = probe.weight.double().numpy() * std
    b = probe.bias.double().numpy() + probe.weight.double().numpy() @ mean
    logits = standard @ w.T + b
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    truth = np.eye(3)[labels.numpy()]
    each = weights.double().numpy()[labels.numpy()]
    error = (share - truth) * (each / each.sum())[:, None]
    assert np.abs(error.T @ standard + probe.strength * w).max() < 2e-3
    assert np.abs(error.sum(0)).max() < 2e-3


def test_the_validation_part_chooses_the_penalty() -> None:
    noise, labels = torch.randn(60, 40, generator=torch.Generator().manual_seed(0)), blobs(0, 60)[1]
    other = torch.randn(60, 40, generator=torch.Generator().manual_seed(1)), labels
    assert fit_probe(noise, labels, other, torch.ones(3)).strength == max(STRENGTHS)
    easy = blobs(5, 120, 0.1)
    assert fit_probe(*easy, blobs(6, 60, 0.1), torch.ones(3)).strength == min(STRENGTHS)


def test_it_is_the_same_every_time_and_draws_nothing() -> None:
    torch.manual_seed(0)
    first = fit_probe(*blobs(0, 60), blobs(1, 30), torch.ones(3))
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == drawn
    second = fit_probe(*blobs(0, 60), blobs(1, 30), torch.ones(3))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_a_feature_that_never_changes_does_no_harm() -> None:
    features, labels = blobs(0, 90, 0.3)
    features[:, 4] = 3.0
    probe = fit_probe(features, labels, (features, labels), torch.ones(3))
    assert bool(torch.isfinite(probe.weight).all())
    assert (probe.logits(features).argmax(1) == labels).float().mean() > 0.95


def test_weights_turn_the_decision_towards_the_rare_class() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(200) >= 180).long()
    features = labels[:, None] + 1.5 * torch.randn(200, 1, generator=generator)
    even = fit_probe(features, labels, (features, labels), torch.ones(2))
    weighted = fit_probe(features, labels, (features, labels), torch.tensor([0.2, 1.8]))

    def found(probe: Probe) -> int:
        return int((probe.logits(features).argmax(1)[labels == 1] == 1).sum())

    assert found(weighted) > found(even)


def test_no_images_are_refused() -> None:
    none = torch.empty(0, 6), torch.empty(0, dtype=torch.int64)
    with pytest.raises(UsageError):
        fit_probe(*none, none, torch.ones(3))
