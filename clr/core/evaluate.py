"""Run images through the backbone or an adapter, in batches, without gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clr.core.images import ImageSet, Preprocessing, prepare

Labels = NDArray[np.int64]
EVALUATION_BATCH = 64
"""Images a pass. Fixed: sums of floats, and with them the last bits, depend on it."""


def run(
    function: Callable[[Tensor], Tensor],
    images: ImageSet,
    preprocessing: Preprocessing,
    device: torch.device,
    indices: Tensor | None = None,
    turn: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return `function` of every image: float32 [N, K] on the CPU.

    Args:
        function: maps float images [B, 3, S, S] to [B, K], e.g. ``program.logits``.
        images: the files.
        preprocessing: of the task.
        device: where `function` computes.
        indices: int64, a part of the images, in this order; all of them by default.
        turn: applied to the decoded batch, see `clr.core.augment.TURNS`.
    """
    chosen = torch.arange(len(images)) if indices is None else indices
    parts = []
    with torch.inference_mode():
        for part in chosen.split(EVALUATION_BATCH):
            batch = images.batch(part)
            batch = turn(batch) if turn else batch
            parts.append(function(prepare(batch, preprocessing, device)).float().cpu())
    return torch.cat(parts) if parts else torch.empty(0)


def predicted(logits: Tensor) -> Labels:
    """Return the label of the largest logit: int64 [N]; the first of equal ones."""
    best: Labels = logits.argmax(1).numpy().astype(np.int64)
    return best


def confidences(logits: Tensor) -> NDArray[np.float32]:
    """Return the probability of each row's largest logit: float32 [N]."""
    highest: NDArray[np.float32] = logits.float().softmax(1).amax(1).numpy()
    return highest


def confusion(labels: Labels, predictions: Labels, classes: int) -> NDArray[np.int64]:
    """Return counts [classes, classes]: row the true label, column the predicted one."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix
