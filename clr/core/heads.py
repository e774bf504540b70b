"""The head of a trained adapter: the mean of two that err on different images.

One was trained together with the kernels. The other is fitted to the features that these give
now, as the linear probe is to the frozen ones. Of models whose errors differ the mean errs less
than either, and of linear heads it is one linear head again (as the weights are that Wortsman et
al. 2022, "Model soups", average).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clr.core.baseline import Baseline
from clr.core.probe import Probe, fit_probe_at

Head = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Heads:
    """Weight [classes, channels] and bias [classes], float32 on the CPU, twice.

    Attributes:
        judged: has seen the training part alone, so that the validation part can judge it.
        kept: has seen that as well, which has done its work then. Of few images it is a
            large share: as the probe does that is fitted to all of them.
    """

    judged: Head
    kept: Head


@torch.no_grad()
def mean_heads(
    trained: Head, features: Tensor, labels: Tensor, baseline: Baseline, share: float
) -> Heads:
    """Return means of a trained head and of one fitted anew, at the probe's penalty.

    Args:
        trained: weight and bias, on the CPU, trained on the training part.
        features: float32 [N, channels] of the baseline's `images`, as kernels give them.
        labels: int64 [N].
        baseline: of the same images.
        share: of the trained head, in 0 … 1; the rest is that of the other.
    """
    count, strength = len(baseline.train), baseline.probe.strength
    part = fit_probe_at(features[:count], labels[:count], baseline.weights, strength)
    whole = fit_probe_at(features, labels, baseline.weights, strength)
    return Heads(_mean(part, trained, share), _mean(whole, trained, share))


def _mean(probe: Probe, head: Head, share: float) -> Head:
    return torch.lerp(probe.weight, head[0], share), torch.lerp(probe.bias, head[1], share)
