"""Batch norm folded into the convolution before it: the same numbers with less work.

A frozen batch norm multiplies and shifts each channel, so that it can be part of the
convolution that it follows (Jacob et al. 2018, section 3.2): of the task's depthwise kernel
where there is one, else of the backbone's own, whose folded weights all tasks share.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from clr.core.backbone import Backbone
from clr.core.places import Function, Places, acting, prepare

TOLERANCE = 1e-4
"""Largest difference that folding may make on a probe input, as a share of the largest feature."""
_FOLDED: WeakKeyDictionary[Backbone, Mapping[str, Folded]] = WeakKeyDictionary()
_FOLDING = threading.Lock()
_NORMS = (nn.BatchNorm2d, BatchNormAct2d)


@dataclass(frozen=True, eq=False)
class Folded:
    """A convolution and the frozen batch norm that its output goes to, and nowhere else.

    Attributes:
        norm: the batch norm.
        scale: float32 [channels], by which it multiplies.
        shift: float32 [channels], which it adds.
        twin: a copy of the convolution that does both.
        rest: what the batch norm's module does besides (its activation in timm's).
    """

    norm: nn.BatchNorm2d
    scale: Tensor
    shift: Tensor
    twin: nn.Conv2d
    rest: Function

    def kernel(self, kernel: Tensor) -> Tensor:
        """Return a depthwise kernel [channels, 1, 3, 3] that scales too, with gradients."""
        return kernel * self.scale.view(-1, 1, 1, 1)


def folded(backbone: Backbone) -> Mapping[str, Folded]:
    """Return by path of the convolution what can be folded; found once a backbone.

    A batch norm counts that gets the very tensor which the convolution gives. That nothing
    else reads this tensor is seen by computing with both: a pair that changes the features
    by more than `TOLERANCE` is left as it is.
    """
    with _FOLDING:
        if backbone not in _FOLDED:
            _FOLDED[backbone] = _find(backbone)
        return _FOLDED[backbone]


@torch.inference_mode(False)  # training reads these tensors too
@torch.no_grad()
def _find(backbone: Backbone) -> Mapping[str, Folded]:
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(1, 3, 64, 64, generator=generator).to(backbone.device)
    pairs = {
        path: _pair(backbone.convolutions[path], norm)
        for path, norm in _neighbours(backbone, batch).items()
    }
    if _agree(backbone, pairs, batch):
        return pairs
    return {path: pair for path, pair in pairs.items() if _agree(backbone, {path: pair}, batch)}


def _neighbours(backbone: Backbone, batch: Tensor) -> dict[str, nn.BatchNorm2d]:
    outputs: dict[int, tuple[str, Tensor]] = {}  # with the tensor, lest its id be used again
    found: dict[str, nn.BatchNorm2d] = {}
    handles = [
        module.register_forward_hook(
            lambda _, __, output, path=path: outputs.update({id(output): (path, output)})
        )
        for path, module in backbone.convolutions.items()
    ]
    handles += [
        module.register_forward_pre_hook(
            lambda norm, given: found.update(
                {outputs[id(given[0])][0]: norm} if id(given[0]) in outputs else {}
            )
        )
        for module in backbone.module.modules()
        if type(module) in _NORMS
    ]
    try:
        backbone.module(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _pair(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Folded:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    scale = scale * norm.weight.double() if norm.affine else scale
    shift = (norm.bias.double() if norm.affine else 0) - norm.running_mean.double() * scale
    twin = copy.copy(convolution)
    vars(twin).pop("forward", None)
    bias = shift if convolution.bias is None else shift + convolution.bias.double() * scale
    weight = convolution.weight.double() * scale.view(-1, 1, 1, 1)
    vars(twin)["_parameters"] = {
        "weight": nn.Parameter(weight.to(convolution.weight), requires_grad=False),
        "bias": nn.Parameter(bias.to(convolution.weight), requires_grad=False),
    }
    return Folded(
        norm,
        scale.to(convolution.weight),
        shift.to(convolution.weight),
        twin,
        rest_of(norm),
    )


def rest_of(norm: nn.BatchNorm2d, *, in_place: bool = False) -> Function:
    """Return what a batch norm's module does besides: its activation in timm's.

    Args:
        norm: the batch norm.
        in_place: where the activation can be, for what nobody else has and no gradient needs.
    """
    if not isinstance(norm, BatchNormAct2d):
        return lambda x: x
    activation = norm.act
    if in_place and hasattr(activation, "inplace"):
        activation = copy.copy(activation)
        vars(activation)["inplace"] = True
    return lambda x: activation(norm.drop(x))


def _agree(backbone: Backbone, pairs: Mapping[str, Folded], batch: Tensor) -> bool:
    places = Places(instead=without_norms(backbone, pairs))
    prepare(places)
    plain = backbone.module(batch)
    with acting(places):
        other = backbone.module(batch)
    return bool((plain - other).abs().max() <= TOLERANCE * plain.abs().max())


def without_norms(
    backbone: Backbone, pairs: Mapping[str, Folded], kernels: Mapping[nn.Module, object] = {}
) -> dict[nn.Module, Function]:
    """Return what acts instead of modules where `pairs` are folded.

    Args:
        backbone: whose modules.
        pairs: what is folded.
        kernels: convolutions that stay as they are, since what follows them does the scaling.
    """
    instead: dict[nn.Module, Function] = {pair.norm: pair.rest for pair in pairs.values()}
    for path, pair in pairs.items():
        if backbone.convolutions[path] not in kernels:
            instead[backbone.convolutions[path]] = pair.twin.forward
    return instead
