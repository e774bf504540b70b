"""Where in a backbone an adapter acts: its convolutions and batch norms, by path."""

from __future__ import annotations

import threading
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import nn

from clr.core.backbone import Backbone
from clr.errors import UsageError

Variant = Literal["reduced", "full", "mix"]
BatchNorm = Literal["frozen", "affine", "batch"]
BATCH_NORMS: tuple[str, ...] = get_args(BatchNorm)
_SINGLE: WeakKeyDictionary[Backbone, frozenset[str]] = WeakKeyDictionary()


def kernel_sites(backbone: Backbone, variant: Variant) -> tuple[str, ...]:
    """Return the paths of the convolutions that a reprogramming kernel follows.

    ``reduced`` and ``mix``: those with k > 1 (Ge et al. 2023, section 3.2, the reduced
    variant). ``full``: those with k = 1 as well, except where the output is a single pixel
    (squeeze-and-excitation), on which a spatial kernel has nothing to act.
    """
    if variant != "full":
        return tuple(p for p, m in backbone.convolutions.items() if max(m.kernel_size) > 1)
    single = _SINGLE.get(backbone)
    if single is None:
        single = _SINGLE.setdefault(backbone, _single_pixel(backbone))
    return tuple(path for path in backbone.convolutions if path not in single)


def _single_pixel(backbone: Backbone) -> frozenset[str]:
    single: set[str] = set()
    own = threading.get_ident()  # others may compute with this backbone at the same time

    def note(path: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, __: object, output: torch.Tensor) -> None:
            if threading.get_ident() == own and output.shape[-2:] == (1, 1):
                single.add(path)

        return backbone.convolutions[path].register_forward_hook(hook)

    handles = [note(path) for path in backbone.convolutions]
    try:
        with torch.inference_mode():
            backbone.module(torch.zeros(1, 3, 128, 128, device=backbone.device))
    finally:
        for handle in handles:
            handle.remove()
    return frozenset(single)


def mixing_sites(backbone: Backbone) -> tuple[str, ...]:
    """Return the path of the last k×k convolution of each block (module that holds some)."""
    last = {path.rpartition(".")[0]: path for path in kernel_sites(backbone, "reduced")}
    return tuple(last.values())


def batch_norm_sites(backbone: Backbone) -> dict[str, nn.BatchNorm2d]:
    """Return every batch norm with affine parameters and statistics, by path.

    Raises:
        UsageError: the backbone has none (ConvNeXt has layer norms).
    """
    found = {
        path: module
        for path, module in backbone.module.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.affine and module.track_running_stats
    }
    if not found:
        raise UsageError(
            f"{backbone.name} has no batch norm that a task could have of its own.",
            fix="Set the recipe's batch_norm to frozen.",
        )
    return found
