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
_SIDE = 128
"""Of the image that is asked how small the outputs of convolutions are."""
_SIDES: WeakKeyDictionary[Backbone, dict[str, int]] = WeakKeyDictionary()


def kernel_sites(backbone: Backbone, variant: Variant) -> tuple[str, ...]:
    """Return the paths of the convolutions that a reprogramming kernel follows.

    ``reduced`` and ``mix``: those with k > 1 (Ge et al. 2023, section 3.2, the reduced
    variant). ``full``: those with k = 1 as well, except where the output is a single pixel
    (squeeze-and-excitation), on which a spatial kernel has nothing to act.
    """
    if variant != "full":
        return tuple(p for p, m in backbone.convolutions.items() if max(m.kernel_size) > 1)
    sides = _output_sides(backbone)
    return tuple(path for path in backbone.convolutions if sides.get(path) != 1)


def late_sites(backbone: Backbone, stride: int) -> frozenset[str]:
    """Return the paths of the convolutions whose output is `stride` times smaller than the image.

    Or smaller still; all of them where a backbone has no such k×k convolution.
    """
    sides = _output_sides(backbone)
    late = {path for path in backbone.convolutions if sides.get(path, 0) * stride <= _SIDE}
    return frozenset(late if late & {*kernel_sites(backbone, "reduced")} else backbone.convolutions)


def is_early(name: str, late: frozenset[str]) -> bool:
    """Say whether an adapter's tensor is of a kernel or a mixing outside of the sites `late`."""
    kind, _, path = name.partition(".")
    site = path if kind == "kernels" else path.rpartition(".")[0]
    return kind in ("kernels", "mix") and site not in late


def _output_sides(backbone: Backbone) -> dict[str, int]:
    """Return the longer side in pixels of each convolution's output for an image of `_SIDE`."""
    sides = _SIDES.get(backbone)
    if sides is None:
        sides = _SIDES.setdefault(backbone, _measured_sides(backbone))
    return sides


def _measured_sides(backbone: Backbone) -> dict[str, int]:
    sides: dict[str, int] = {}
    own = threading.get_ident()  # others may compute with this backbone at the same time

    def note(path: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, __: object, output: torch.Tensor) -> None:
            if threading.get_ident() == own:
                sides[path] = max(output.shape[-2:])

        return backbone.convolutions[path].register_forward_hook(hook)

    handles = [note(path) for path in backbone.convolutions]
    try:
        with torch.inference_mode():
            backbone.module(torch.zeros(1, 3, _SIDE, _SIDE, device=backbone.device))
    finally:
        for handle in handles:
            handle.remove()
    return sides


def is_idle(kernel: torch.Tensor) -> bool:
    """Say whether a kernel [C, 1, 3, 3] is identity and no training will change that."""
    if kernel.requires_grad or not bool((kernel[:, 0, 1, 1] == 1).all()):
        return False
    return int(kernel.count_nonzero()) == len(kernel)


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
