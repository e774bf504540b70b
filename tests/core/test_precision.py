"""bfloat16 in training: the same directions with less work, where the processor has it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clr.core.adapter import Adapter
from clr.core.backbone import Backbone
from clr.core.network import Program
from clr.core.precision import cpu_prefers_bfloat16, mixed_precision, strided_in_float32

CPU = torch.device("cpu")
Shaken = Callable[..., Adapter]


@pytest.mark.parametrize(
    ("processor", "told"),
    [
        ({"cpu_name": "AMD EPYC 9R14", "avx512_bf16": True}, True),
        ({"cpu_name": "AMD EPYC 7B13", "avx512_bf16": False}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({}, False),
    ],
)
def test_a_processor_that_multiplies_bfloat16_faster_is_used(
    processor: dict[str, bool | str], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: processor)
    monkeypatch.setattr("clr.core.precision.cpu_prefers_bfloat16", cpu_prefers_bfloat16.__wrapped__)
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
