"""What is known before training: split, class weights, probe, symmetries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clr.core.backbone import Backbone
from clr.core.baseline import class_weights, measure_baseline, split
from clr.core.evaluate import run
from clr.core.images import ImageSet, Preprocessing
from clr.core.probe import fit_probe_at
from clr.core.recipe import Recipe

LABELS = st.lists(st.integers(0, 4), min_size=10, max_size=80)


@given(LABELS, st.floats(0.05, 0.5), st.integers(0, 5))
def test_every_image_is_in_one_part_and_every_class_is_trained_on(
    labels: list[int], share: float, seed: int
) -> None:
    tensor = torch.tensor(labels)
    train, validation = split(tensor, share, seed)
    assert sorted(train.tolist() + validation.tolist()) == list(range(len(labels)))
    for label in set(labels):
        count = labels.count(label)
        held = int((tensor[validation] == label).sum())
        assert 0 <= held < count
        assert held >= min(1, count - 1)
        assert abs(held - share * count) <= 1


def test_the_split_is_drawn_by_its_seed_alone() -> None:
    labels = torch.arange(100) % 4
    torch.manual_seed(1)
    first = split(labels, 0.2, 3)
    torch.manual_seed(2)
    second = split(labels, 0.2, 3)
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[1], split(labels, 0.2, 4)[1])


def test_a_class_weighs_by_the_inverse_of_its_frequency() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    found = class_weights(labels, 3, balance=True)
    torch.testing.assert_close(found, torch.tensor([100 / 180, 100 / 90, 100 / 30]))
    assert float(found[labels].mean()) == pytest.approx(1)


def test_even_classes_and_those_that_shall_not_be_balanced_weigh_the_same() -> None:
    even = torch.tensor([0] * 12 + [1] * 10)
    assert class_weights(even, 2, balance=True).tolist() == [1, 1]
    assert class_weights(torch.tensor([0] * 50 + [1]), 2, balance=False).tolist() == [1, 1]


def test_a_class_without_images_has_a_finite_weight() -> None:
    assert bool(torch.isfinite(class_weights(torch.tensor([0, 0, 0, 1]), 3, True)).all())


def test_the_probe_is_fitted_on_frozen_features_of_the_training_part(
    backbone: Backbone, images: ImageSet, preprocessing: Preprocessing
) -> None:
    baseline = measure_baseline(backbone, images, preprocessing, Recipe(flips=False), 3)
    features = run(backbone.module, images, preprocessing, torch.device("cpu"))
    right = baseline.probe.logits(features).argmax(1) == images.labels
    assert float(right[baseline.train].float().mean()) > 0.9
    assert float(right[baseline.validation].float().mean()) > 0.4  # of three classes
    assert baseline.images.sort().values.tolist() == list(range(len(images)))
    whole = fit_probe_at(
        features[baseline.images], images.labels[baseline.images],
        baseline.weights, baseline.probe.strength,
    )  # fmt: skip
    torch.testing.assert_close(baseline.whole.weight, whole.weight)
    assert not torch.allclose(baseline.whole.weight, baseline.probe.weight, atol=1e-3)
    assert baseline.turns == ()
    backbone.check()


def test_it_is_the_same_every_time(
    backbone: Backbone, images: ImageSet, preprocessing: Preprocessing
) -> None:
    first = measure_baseline(backbone, images, preprocessing, Recipe(), 3)
    second = measure_baseline(backbone, images, preprocessing, Recipe(), 3)
    assert torch.equal(first.probe.weight, second.probe.weight)
    assert torch.equal(first.validation, second.validation)
    assert first.turns == second.turns


def test_a_turn_that_changes_the_label_is_not_used(
    backbone: Backbone, images: ImageSet, preprocessing: Preprocessing
) -> None:
    """A quarter turn makes lying stripes standing ones."""
    assert "quarter" not in measure_baseline(backbone, images, preprocessing, Recipe(), 3).turns


def test_turns_that_keep_the_label_are_used(
    tmp_path: Path, backbone: Backbone, preprocessing: Preprocessing
) -> None:
    random = np.random.default_rng(0)
    paths = []
    for number in range(120):
        colour = np.array([(220, 60, 60), (60, 220, 60)][number % 2])
        pixels = (colour + random.normal(0, 20, (32, 32, 3))).clip(0, 255).astype(np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    colours = ImageSet(paths, [n % 2 for n in range(120)], preprocessing)
    baseline = measure_baseline(backbone, colours, preprocessing, Recipe(), 2)
    assert set(baseline.turns) == {"mirror", "upside-down", "quarter"}


def test_the_split_does_not_depend_on_how_images_are_read(
    backbone: Backbone,
    task_files: tuple[list[Path], list[int]],
    preprocessing: Preprocessing,
    images: ImageSet,
) -> None:
    streaming = ImageSet(*task_files, replace(preprocessing), cache_mb=0)
    first = measure_baseline(backbone, images, preprocessing, Recipe(), 3)
    second = measure_baseline(backbone, streaming, preprocessing, Recipe(), 3)
    assert torch.equal(first.probe.weight, second.probe.weight)
