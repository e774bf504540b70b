"""The head of an adapter: a mean of two, one of which every image has a say in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clr.core.baseline import Baseline, fit_probes
from clr.core.heads import mean_heads

TRAIN, HELD, CHANNELS, CLASSES = 24, 9, 5, 3
SEEDS = st.integers(0, 10_000)


def drawn(seed: int) -> tuple[Tensor, Tensor, Baseline]:
    """Features in the order of the baseline's images, their labels, and the baseline."""
    generator = torch.Generator().manual_seed(seed)
    count = TRAIN + HELD
    labels = torch.arange(count) % CLASSES
    features = torch.randn(count, CHANNELS, generator=generator)
    features[:, 0] += 2 * labels
    train, held = torch.arange(TRAIN), torch.arange(TRAIN, count)
    weights = torch.ones(CLASSES)
    probe, whole = fit_probes(features, labels, train, held, weights)
    return features, labels, Baseline(probe, whole, train, held, (), weights)


def penalised(
    weight: Tensor, bias: Tensor, features: Tensor, labels: Tensor, strength: float
) -> float:
    """Return the loss of a head with the probe's penalty, on features of a mean variance of 1."""
    loss = F.cross_entropy(F.linear(features, weight, bias), labels)
    return float(loss + 0.5 * strength * (weight * features.var(0).mean().sqrt()).square().sum())


@given(SEEDS)
@settings(max_examples=20)
def test_kernels_that_changed_nothing_leave_the_probe(seed: int) -> None:
    features, labels, baseline = drawn(seed)
    probe, whole = baseline.probe, baseline.whole
    heads = mean_heads((probe.weight, probe.bias), features, labels, baseline, 0.0)
    for found, wanted, seen in ((heads.judged, probe, TRAIN), (heads.kept, whole, TRAIN + HELD)):
        given = features[:seen], labels[:seen], wanted.strength
        # what is minimised, not weights: under a weak penalty many do as well
        best = penalised(wanted.weight, wanted.bias, *given)
        assert penalised(*found, *given) == pytest.approx(best, abs=2e-5)
        shifted = found[0], found[1] + torch.tensor([0.3, 0.0, 0.0])
        assert penalised(*shifted, *given) > best + 2e-5


@given(SEEDS)
@settings(max_examples=20)
def test_what_is_judged_has_not_seen_the_images_that_judge(seed: int) -> None:
    features, labels, baseline = drawn(seed)
    trained = torch.randn(CLASSES, CHANNELS), torch.zeros(CLASSES)
    before = mean_heads(trained, features, labels, baseline, 0.5)
    other = features.clone()
    other[TRAIN:] = -other[TRAIN:]
    after = mean_heads(trained, other, labels, baseline, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(before.judged, after.judged, strict=True))
    assert not torch.allclose(before.kept[0], after.kept[0])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_its_share_of_the_trained_head_is_what_was_asked_for(share: float) -> None:
    features, labels, baseline = drawn(0)
    zero = torch.zeros(CLASSES, CHANNELS), torch.zeros(CLASSES)
    step = torch.ones(CLASSES, CHANNELS), torch.arange(CLASSES).float()
    low, high = (mean_heads(head, features, labels, baseline, share) for head in (zero, step))
    for one, other in ((low.judged, high.judged), (low.kept, high.kept)):
        torch.testing.assert_close(other[0] - one[0], share * step[0])
        torch.testing.assert_close(other[1] - one[1], share * step[1])
