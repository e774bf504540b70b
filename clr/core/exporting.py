"""One task's network by itself: backbone, folded kernels and head as a plain PyTorch module."""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from clr.core.adapter import Adapter, check_adapter
from clr.core.backbone import Backbone
from clr.core.finetune import copied
from clr.core.folding import folded
from clr.core.mixing.fold import Affine, Step, fold


class ChannelMixing(nn.Module):
    """The low-rank step of the variant `mix`: x + up(down(x))."""

    def __init__(self, down: Tensor, up: Tensor) -> None:
        """Take weights [rank, channels, 1, 1] and [channels, rank, 1, 1]."""
        super().__init__()
        self.down, self.up = _convolution(down), _convolution(up)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the channels of [N, C, H, W]; same shape."""
        mixed: Tensor = x + self.up(self.down(x))
        return mixed


def standalone(backbone: Backbone, adapter: Adapter) -> nn.Module:
    """Return a module that maps float images [N, 3, H, W] to the task's logits [N, classes].

    It is a copy, on the CPU, that needs nothing of ours: batch norms are in the kernels and
    convolutions before them (`clr.core.folding`) wherever there are such.

    Raises:
        IntegrityBroken: the adapter does not belong to this backbone.
    """
    check_adapter(adapter, backbone)
    ready, pairs = fold(adapter, backbone), folded(backbone)
    module = copied(backbone)
    norms = {one: path for path, one in backbone.module.named_modules()}
    with torch.no_grad():
        for path, pair in pairs.items():
            step = None if path in ready.idle else ready.steps.get(path)
            if pair.norm in ready.norms or (step is not None and step.shift is None):
                continue
            if step is None:
                _fold_into(module.get_submodule(path), pair.scale, pair.shift)
            _replace(module, norms[pair.norm], _rest(pair.norm))
        for path, step in ready.steps.items():
            if path not in ready.idle:
                _replace(module, path, nn.Sequential(module.get_submodule(path), *_layers(step)))
        for norm, own in ready.norms.items():
            _set(module.get_submodule(norms[norm]), own)
        head = _linear(*ready.head)
    whole = nn.Sequential(OrderedDict(backbone=module, head=head))
    return whole.cpu().eval().requires_grad_(False)


def _fold_into(convolution: nn.Module, scale: Tensor, shift: Tensor) -> None:
    assert isinstance(convolution, nn.Conv2d)
    bias = 0 if convolution.bias is None else convolution.bias * scale
    convolution.weight.mul_(scale.view(-1, 1, 1, 1))
    convolution.bias = nn.Parameter(shift + bias)


def _layers(step: Step) -> list[nn.Module]:
    layers: list[nn.Module] = [_convolution(step.kernel, step.shift, groups=len(step.kernel))]
    if step.down is not None and step.up is not None:
        layers.append(ChannelMixing(step.down, step.up))
    return layers


def _convolution(weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> nn.Conv2d:
    rows, columns = weight.shape[0], weight.shape[1] * groups
    side = weight.shape[2]
    made = nn.Conv2d(columns, rows, side, padding=side // 2, groups=groups, bias=bias is not None)
    made.weight.copy_(weight)
    if bias is not None and made.bias is not None:
        made.bias.copy_(bias)
    return made


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.weight.copy_(weight)
    made.bias.copy_(bias)
    return made


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what a batch norm's module does besides: its activation in timm's."""
    if isinstance(norm, BatchNormAct2d):
        return nn.Sequential(copy.deepcopy(norm.drop), copy.deepcopy(norm.act))
    return nn.Identity()


def _set(norm: nn.Module, own: Affine) -> None:
    """Give a batch norm the task's own scale and shift."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.copy_(own.scale)
    norm.bias.copy_(own.shift)


def _replace(module: nn.Module, path: str, by: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(module.get_submodule(parent), leaf, by)
