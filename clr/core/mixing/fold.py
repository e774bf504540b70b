"""An adapter as inference wants it: batch norms in its kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clr.core.adapter import Adapter
from clr.core.backbone import Backbone
from clr.core.folding import folded
from clr.core.network import norms_of
from clr.core.sites import is_idle

Structure = tuple[str, str, int]


@dataclass(frozen=True, eq=False)
class Affine:
    """A frozen batch norm: `scale` and `shift`, float32 [channels]."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True, eq=False)
class Step:
    """What one adapter does to the output of one convolution.

    Attributes:
        kernel: depthwise, float32 [channels, 1, 3, 3]; with the batch norm's scale in it where
            that is folded.
        shift: float32 [channels], which a folded batch norm adds.
        down: of the channel mixing, float32 [rank, channels, 1, 1].
        up: of the channel mixing, float32 [channels, rank, 1, 1].
    """

    kernel: Tensor
    shift: Tensor | None = None
    down: Tensor | None = None
    up: Tensor | None = None


@dataclass(frozen=True, eq=False)
class FoldedAdapter:
    """The tensors of one adapter, ready to act.

    Attributes:
        structure: variant, batch norm, rank: equal where the same parts act at the same places.
        steps: by path of the convolution.
        idle: paths of those of them that change nothing, save for the batch norm in them.
        norms: batch norms of the task's own that no kernel takes in.
        head: weight [classes, channels] and bias [classes].
    """

    structure: Structure
    steps: Mapping[str, Step]
    idle: frozenset[str]
    norms: Mapping[nn.BatchNorm2d, Affine]
    head: tuple[Tensor, Tensor]

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        tensors = [*self.head]
        for step in self.steps.values():
            tensors += [t for t in (step.kernel, step.down, step.up) if t is not None]
        for norm in self.norms.values():
            tensors += [norm.scale, norm.shift]
        return sum(tensor.nbytes for tensor in tensors)


@torch.inference_mode()
def fold(adapter: Adapter, backbone: Backbone) -> FoldedAdapter:
    """Return the adapter with each batch norm in the kernel before it, where there is one.

    Nothing that mixes channels may stand between the two.
    """
    tensors = {name: t.detach().to(backbone.device) for name, t in adapter.tensors.items()}
    own, pairs = _own_norms(backbone, tensors), folded(backbone)
    steps: dict[str, Step] = {}
    idle: set[str] = set()
    for path in backbone.convolutions:
        kernel = tensors.get(f"kernels.{path}")
        if kernel is None:
            continue
        down, up = tensors.get(f"mix.{path}.down"), tensors.get(f"mix.{path}.up")
        pair = pairs.get(path) if down is None else None
        shift = None
        if down is None and (pair is None or pair.norm not in own) and is_idle(kernel):
            idle.add(path)
        if pair is not None:
            norm = own.pop(pair.norm, Affine(pair.scale, pair.shift))
            kernel, shift = kernel * norm.scale.view(-1, 1, 1, 1), norm.shift
        steps[path] = Step(kernel.contiguous(), shift, down, up)
    spec = adapter.spec
    structure = spec.variant, spec.batch_norm, spec.rank if spec.variant == "mix" else 0
    return FoldedAdapter(
        structure, steps, frozenset(idle), own, (tensors["head.weight"], tensors["head.bias"])
    )


def _own_norms(backbone: Backbone, tensors: Mapping[str, Tensor]) -> dict[nn.BatchNorm2d, Affine]:
    found: dict[nn.BatchNorm2d, Affine] = {}
    for module, own in norms_of(backbone, tensors).items():
        assert isinstance(module, nn.BatchNorm2d)  # as `check_adapter` found it
        weight, bias, mean, variance = (
            own[leaf].double() for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight * torch.rsqrt(variance + module.eps)
        found[module] = Affine(scale.float(), (bias - mean * scale).float())
    return found
