"""bfloat16 in training: the same directions with less work, where the processor has it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clr.core.adapter import Adapter
from clr.core.backbone import Backbone
from clr.core.network import Program
from clr.core.precision import mixed_precision, strided_in_float32

CPU = torch.device("cpu")
Shaken = Callable[..., Adapter]


def test_a_processor_that_multiplies_bfloat16_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, told in ((True, True), (False, False)):
        monkeypatch.setattr("clr.core.precision._cpu_multiplies", lambda has=has: has)
        with mixed_precision(CPU, on_cpu=True):
            assert torch.is_autocast_enabled("cpu") is told
        with mixed_precision(CPU, on_cpu=False):
            assert not torch.is_autocast_enabled("cpu")


def test_gradients_point_the_same_way(backbone: Backbone, shaken: Shaken, batch: Tensor) -> None:
    found: list[Tensor] = []
    for mixed in (False, True):
        tensors = {n: t.requires_grad_() for n, t in shaken(backbone).tensors.items()}
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits = Program(backbone, tensors, fold=True).logits(batch)
        logits.float().square().sum().backward()
        assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in tensors.values())
        found.append(torch.cat([t.grad.flatten() for t in tensors.values() if t.grad is not None]))
    assert float(torch.cosine_similarity(*found, dim=0)) > 0.99


@pytest.mark.parametrize(
    ("convolution", "exact"),
    [
        (nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), True),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), False),
        (nn.Conv2d(8, 8, 3, stride=2, padding=1), False),
    ],
)
def test_what_is_slow_in_bfloat16_stays_float32(convolution: nn.Conv2d, exact: bool) -> None:
    x = torch.randn(2, 8, 9, 9)
    forward = strided_in_float32(convolution, None)
    assert (forward is not None) is exact
    with torch.autocast("cpu", torch.bfloat16):
        output = (forward or convolution)(x)
    assert output.dtype == (torch.float32 if exact else torch.bfloat16)
    if exact:
        assert torch.equal(output, convolution(x))
