"""Sparsity in training: kernels that deviate least from identity become identity again.

A share of all kernels that rises during training (Zhu & Gupta 2017, section 3.1); what is
left learns to do without them. A kernel at identity is not stored, see `clr.core.compress`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

BEGIN, END = 0.25, 0.75
"""Progress of the training between which the share rises: from the peak of the learning rate
to where enough of it is left to make up for the last that were pruned."""


def pruned_share(progress: float, sparsity: float) -> float:
    """Return which share of the kernels is at identity at `progress` in 0 … 1.

    sparsity · (1 − (1 − t)³), where t rises from 0 to 1 between `BEGIN` and `END`: many
    early, while most are of little use, few late (Zhu & Gupta 2017, equation 1).
    """
    t = min(1.0, max(0.0, (progress - BEGIN) / (END - BEGIN)))
    return sparsity * (1 - (1 - t) ** 3)


@torch.no_grad()
def prune(tensors: Mapping[str, Tensor], share: float) -> None:
    """Set the `share` of all ``kernels.*`` [C, 1, 3, 3] that deviate least to identity, in place.

    The deviation is the Euclidean norm of kernel − identity, and all layers compete: those
    that a task has no use for end up with few kernels.
    """
    kernels = [tensors[name] for name in sorted(tensors) if name.startswith("kernels.")]
    count = int(share * sum(len(kernel) for kernel in kernels))
    if count == 0:
        return
    deviations = [_deviation(kernel) for kernel in kernels]
    limit = torch.cat(deviations).kthvalue(count).values
    for kernel, deviation in zip(kernels, deviations, strict=True):
        least = deviation <= limit
        kernel[least] = 0
        kernel[least, 0, 1, 1] = 1


def _deviation(kernel: Tensor) -> Tensor:
    """Return the norm of kernel − identity of each channel: float32 [C]."""
    moved = kernel.reshape(len(kernel), -1).clone()
    moved[:, moved.shape[1] // 2] -= 1
    norms: Tensor = torch.linalg.vector_norm(moved, dim=1)
    return norms
