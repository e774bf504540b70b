"""Elastic weight consolidation (Kirkpatrick et al. 2017, PNAS 114(13))."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clr.core.images import prepare
from clr.core.methods.interface import Cost, Lesson
from clr.core.recipe import Recipe

STRENGTH = 5000.0
"""λ of the penalty."""
FISHER_IMAGES = 200
"""How many images of the training part say which weights a task needs."""


class Consolidation:
    """Pull every weight to where earlier tasks left it, as strongly as they need it.

    The loss of a task is its own plus, for each earlier task k,
    λ/2 Σ_i F_k,i (θ_i − θ*_k,i)² (equation 3; F is the diagonal of the Fisher information).
    A sum of such quadratics is, but for a constant, one: with A = Σ_k F_k and
    m = Σ_k F_k θ*_k / A it is λ/2 Σ_i A_i (θ_i − m_i)², so two values a weight are kept,
    whatever the number of tasks (Huszár 2018). They are counted with the first task.
    """

    def __init__(self) -> None:
        """Remember nothing."""
        self._importance: list[Tensor] = []
        self._anchor: list[Tensor] = []
        self._first = ""

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """None: nothing of earlier tasks is trained."""
        return ()

    def penalty(self, network: nn.Module, recipe: Recipe) -> Callable[[], Tensor] | None:
        """Return the quadratic pull; None before the second task."""
        weights = list(network.parameters())
        if not self._importance:
            return None

        def pull() -> Tensor:
            terms = zip(self._importance, weights, self._anchor, strict=True)
            return (
                0.5 * STRENGTH * torch.stack([(f * (w - a) ** 2).sum() for f, w, a in terms]).sum()
            )

        return pull

    def remember(self, network: nn.Module, head: nn.Module, lesson: Lesson, seed: int) -> None:
        """Add the Fisher information of a task at the weights that it ends with.

        Labels are drawn from the network's own predictions, as the Fisher information asks
        (Kunstner et al. 2019 on why the true labels will not do), of images as they are.
        """
        generator = torch.Generator().manual_seed(seed)
        part = lesson.baseline.train
        chosen = part[torch.randperm(len(part), generator=generator)[:FISHER_IMAGES]]
        weights = list(network.parameters())
        device = weights[0].device

        def log_likelihoods() -> Iterable[Tensor]:
            for at in chosen.split(1):
                batch = prepare(lesson.images.batch(at), lesson.preprocessing, device)
                scores = F.log_softmax(head(network(batch))[0], 0)
                drawn = torch.multinomial(scores.detach().exp().cpu(), 1, generator=generator)
                yield scores[drawn.to(device)].sum()

        network.requires_grad_(True)
        importance = fisher(log_likelihoods(), weights)
        network.requires_grad_(False)
        self._first = self._first or lesson.task
        anchors = [weight.detach().clone() for weight in weights]
        self._importance, self._anchor = merged(self._importance, self._anchor, importance, anchors)

    def cost(self, task: str) -> Cost:
        """Return importance and anchor of every weight for the first task, else nothing."""
        kept = sum(tensor.numel() for tensor in (*self._importance, *self._anchor))
        return Cost.of_floats(other=kept) if task == self._first else Cost()


def fisher(log_likelihoods: Iterable[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Return the mean, over images, of each weight's squared gradient of the log-likelihood."""
    total = [torch.zeros_like(weight) for weight in weights]
    count = 0
    with torch.enable_grad():
        for value in log_likelihoods:
            gradients = torch.autograd.grad(value, list(weights), allow_unused=True)
            for sums, gradient in zip(total, gradients, strict=True):
                if gradient is not None:
                    sums += gradient**2
            count += 1
    return [sums / max(1, count) for sums in total]


def merged(
    importance: Sequence[Tensor],
    anchor: Sequence[Tensor],
    more: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Return (A, m) of the sum of two quadratics A (θ − m)², but for a constant.

    Args:
        importance: A so far; empty at first.
        anchor: m so far.
        more: A of the new one.
        weights: m of the new one.
    """
    if not importance:
        return list(more), list(weights)
    totals = [a + f for a, f in zip(importance, more, strict=True)]
    centres = [
        # where no task needs the weight, any anchor will do
        torch.where(t > 0, m + (w - m) * f / t.clamp_min(torch.finfo(t.dtype).tiny), w)
        for t, m, f, w in zip(totals, anchor, more, weights, strict=True)
    ]
    return totals, centres
