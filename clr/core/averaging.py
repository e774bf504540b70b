"""The mean of the last weights of a training instead of the very last ones.

Steps at a small learning rate still scatter around where they lead; their mean does not
(tail averaging, Polyak & Juditsky 1992; of networks, Izmailov et al. 2018).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

STEPS = "steps"


class TailAverage:
    """Running mean of tensors over the steps of the last part of a training."""

    def __init__(self, tensors: Mapping[str, Tensor], share: float) -> None:
        """Average `tensors`, which training changes in place, over the last `share` of it."""
        self._tensors, self._begin = tensors, 1 - share
        self._mean: dict[str, Tensor] = {}
        self._steps = 0

    @torch.no_grad()
    def update(self, progress: float) -> None:
        """Take in what the tensors are now, at `progress` in 0 … 1 of the training."""
        if progress <= self._begin:
            return
        self._steps += 1
        for name, tensor in self._tensors.items():
            if name in self._mean:
                self._mean[name].lerp_(tensor, 1 / self._steps)
            else:
                self._mean[name] = tensor.detach().clone()

    def value(self) -> dict[str, Tensor]:
        """Return the means by name; the tensors themselves where none was taken."""
        return {name: self._mean.get(name, tensor) for name, tensor in self._tensors.items()}

    def state(self) -> dict[str, Tensor]:
        """Return what `restore` needs, for a checkpoint."""
        return {**self._mean, STEPS: torch.tensor(self._steps)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._steps = int(state[STEPS])
        self._mean = {
            name: state[name].to(tensor.device, copy=True)
            for name, tensor in self._tensors.items()
            if name in state
        }
