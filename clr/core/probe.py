"""The linear probe: the baseline before any adapter, and where the adapter's head starts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clr.errors import UsageError

STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
"""L2 penalties that are tried, on features scaled to a mean variance of 1."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Multinomial logistic regression on frozen features.

    Attributes:
        weight: float32 [classes, channels], for features as they are.
        bias: float32 [classes].
        strength: the L2 penalty that was best on the validation part.
    """

    weight: Tensor
    bias: Tensor
    strength: float

    def logits(self, features: Tensor) -> Tensor:
        """Return logits [N, classes] of features [N, channels]."""
        return F.linear(features, self.weight, self.bias)


def fit_probe(
    features: Tensor, labels: Tensor, validation: tuple[Tensor, Tensor], weights: Tensor
) -> Probe:
    """Fit by L-BFGS, strong penalties first, and keep the one with the best validation loss.

    Two in a row that are worse than the best end the search: the weak ones that are left
    take longest and overfit more.

    Args:
        features: float32 [N, channels].
        labels: int64 [N].
        validation: features and labels that choose the strength.
        weights: float32 [classes], weight of each class in the loss.

    Raises:
        UsageError: fewer than two images.
    """
    if len(features) < 2:
        raise UsageError("There are not enough images to fit the linear probe on.")
    scaler = _Scaler.of(features)
    standard = scaler(features)
    held = scaler(validation[0])
    start = torch.zeros(len(weights), features.shape[1] + 1, dtype=torch.float32)
    best: tuple[float, Probe] | None = None
    worse = 0
    for strength in sorted(STRENGTHS, reverse=True):  # each starts from the stronger one's end
        start = _minimise(start, standard, labels, weights, strength)
        loss = float(F.cross_entropy(_linear(start, held), validation[1], weight=weights))
        if best is None or loss < best[0]:
            best, worse = (loss, scaler.probe(start, strength)), 0
            continue
        worse += 1
        if worse == 2:
            break
    assert best is not None
    return best[1]


def fit_probe_at(features: Tensor, labels: Tensor, weights: Tensor, strength: float) -> Probe:
    """Fit by L-BFGS at one strength; arguments as for `fit_probe`."""
    scaler = _Scaler.of(features)
    start = torch.zeros(len(weights), features.shape[1] + 1, dtype=torch.float32)
    return scaler.probe(_minimise(start, scaler(features), labels, weights, strength), strength)


@dataclass(frozen=True, eq=False)
class _Scaler:
    """Centred features, one scale for all.

    A scale for each feature would blow up those that are nearly constant in training.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Tensor) -> _Scaler:
        return cls(features.mean(0), features.var(0).mean().sqrt().clamp_min(1e-6))

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std

    def probe(self, parameters: Tensor, strength: float) -> Probe:
        weight = parameters[:, :-1] / self.std
        return Probe(weight, parameters[:, -1] - weight @ self.mean, strength)


def _minimise(start: Tensor, x: Tensor, y: Tensor, weights: Tensor, strength: float) -> Tensor:
    parameters = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(_linear(parameters, x), y, weight=weights)
        loss = loss + 0.5 * strength * parameters[:, :-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    return parameters.detach()


def _linear(parameters: Tensor, x: Tensor) -> Tensor:
    return F.linear(x, parameters[:, :-1], parameters[:, -1])
