"""Images through a network in batches; counts of what came out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from clr.core.backbone import Backbone
from clr.core.evaluate import EVALUATION_BATCH, confusion, predicted, run
from clr.core.images import ImageSet, Preprocessing, prepare

CPU = torch.device("cpu")


def test_every_image_is_evaluated_once_in_order(
    backbone: Backbone, images: ImageSet, preprocessing: Preprocessing
) -> None:
    sizes: list[int] = []

    def noted(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return backbone.module(batch)

    found = run(noted, images, preprocessing, CPU)
    assert sizes == [EVALUATION_BATCH, len(images) - EVALUATION_BATCH]
    whole = images.batch(torch.arange(EVALUATION_BATCH))
    with torch.inference_mode():
        expected = backbone.module(prepare(whole, preprocessing))
    assert torch.equal(found[:EVALUATION_BATCH], expected)
    assert found.dtype == torch.float32
    assert not found.requires_grad


def test_a_part_is_evaluated_in_the_order_that_is_asked_for(
    backbone: Backbone, images: ImageSet, preprocessing: Preprocessing
) -> None:
    chosen = torch.tensor([7, 3, 99])
    found = run(backbone.module, images, preprocessing, CPU, chosen)
    every = run(backbone.module, images, preprocessing, CPU)
    torch.testing.assert_close(found, every[chosen], rtol=1e-4, atol=1e-4)


def test_images_can_be_turned_first(images: ImageSet, preprocessing: Preprocessing) -> None:
    def left(batch: Tensor) -> Tensor:
        return batch[:, :, :, :1].mean((1, 2))

    upright = run(lambda b: b[:, :, :, -1:].mean((1, 2)), images, preprocessing, CPU)
    mirrored = run(left, images, preprocessing, CPU, turn=lambda batch: batch.flip(-1))
    torch.testing.assert_close(mirrored, upright)


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_no_images_give_no_rows(
    cache_mb: int,
    backbone: Backbone,
    task_files: tuple[list[Path], list[int]],
    preprocessing: Preprocessing,
) -> None:
    images = ImageSet(*task_files, preprocessing, cache_mb=cache_mb)
    none = torch.tensor([], dtype=torch.int64)
    assert len(run(backbone.module, images, preprocessing, CPU, none)) == 0


def test_of_equal_logits_the_first_label_is_predicted() -> None:
    found = predicted(torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]]))
    assert found.dtype == np.int64
    assert found.tolist() == [0, 1]


def test_confusion_has_truth_in_rows() -> None:
    labels, predictions = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    assert confusion(labels, predictions, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert confusion(labels[:0], predictions[:0], 2).tolist() == [[0, 0], [0, 0]]
