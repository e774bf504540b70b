"""The linear probe: multinomial logistic regression on frozen features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from clr.core.backbone import Backbone
from clr.core.methods.interface import Budget, Cost, Lesson
from clr.core.methods.separate import Served


def learn(backbone: Backbone, lesson: Lesson, budget: Budget, seed: int) -> Served:
    """Take the probe of the baseline: fitted by L-BFGS to all images, its penalty chosen before.

    Batch norm: the backbone's own statistics. The budget is left unspent: the fit is to the
    optimum, on features of one pass.
    """
    probe = lesson.baseline.whole
    weight, bias = probe.weight.to(backbone.device), probe.bias.to(backbone.device)

    def logits(batch: Tensor) -> Tensor:
        return F.linear(backbone.module(batch), weight, bias)

    return Served(logits, Cost.of_floats(head=weight.numel() + bias.numel()))
