"""Training in bfloat16 where the processor multiplies it faster than float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial

import torch
from torch import Tensor, nn

from clr.core.places import Function, plain


def mixed_precision(device: torch.device, *, on_cpu: bool) -> AbstractContextManager[object]:
    """Let what computes inside use bfloat16 where that is faster.

    Weights, their gradients and the loss stay float32 (Micikevicius et al. 2018, section 3.1);
    bfloat16 has float32's range, so that the loss needs no scale (Kalamkar et al. 2019).

    Args:
        device: where it computes.
        on_cpu: whether it is faster on a CPU that prefers bfloat16, too: a folded
            `clr.core.network.Program` is, gradients of other strided or large depthwise
            convolutions are not.
    """
    if device.type == "cuda" or (device.type == "cpu" and on_cpu and cpu_prefers_bfloat16()):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@cache
def cpu_prefers_bfloat16() -> bool:
    """Say whether this processor trains faster in bfloat16 than in float32.

    Intel's do with AMX alone: where a virtual machine hides that, or there is none, a training
    takes longer in bfloat16 (docs/recipe.md, "What an epoch costs"); AMD's AVX-512 is faster in it.
    """
    capabilities: dict[str, bool | int | str] = getattr(torch.cpu, "get_capabilities", dict)()
    if str(capabilities.get("cpu_name", "")).startswith("Intel"):
        return bool(capabilities.get("amx_bf16"))
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))


def strided_in_float32(convolution: nn.Conv2d, forward: Function | None) -> Function | None:
    """Return what computes a convolution where the CPU is slow at its gradient in bfloat16.

    oneDNN has no fast path for the input's gradient of a strided depthwise convolution in
    bfloat16: it takes some thirty times as long as in float32.

    Args:
        convolution: of the backbone.
        forward: what acts instead of it; None: it itself does.
    """
    if convolution.groups == 1 or max(convolution.stride) == 1:
        return forward
    return partial(_in_float32, forward or partial(plain, convolution))


def _in_float32(forward: Function, x: Tensor) -> Tensor:
    if not (x.is_cpu and torch.is_autocast_enabled("cpu")):
        return forward(x)
    with torch.autocast("cpu", enabled=False):
        return forward(x.float())
