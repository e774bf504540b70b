"""Where the tasks of one batch act in the backbone: each on its own images, in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise

import torch
from torch import Tensor, nn

from clr.core.backbone import Backbone
from clr.core.folding import folded, rest_of
from clr.core.mixing.convolve import Convolve
from clr.core.mixing.fold import Affine, FoldedAdapter
from clr.core.mixing.steps import Steps, normalise
from clr.core.places import Function, Places, plain, prepare

Instead = dict[nn.Module, Function]


@dataclass(frozen=True, eq=False)
class Part:
    """Images of one task, side by side in the batch.

    Attributes:
        adapter: the task's.
        rows: of the images in the batch as it was given.
    """

    adapter: FoldedAdapter
    rows: Sequence[int]


def in_order(parts: Sequence[Part]) -> list[Part]:
    """Return parts as `act` wants them: of one structure side by side, large ones first."""
    return sorted(parts, key=lambda part: (part.adapter.structure, -len(part.rows)))


@dataclass(frozen=True, eq=False)
class Alike:
    """What the images of all tasks have in common, in one backbone.

    Attributes:
        itself: by convolution, what it does by itself.
        instead: what acts where no task does anything of its own: batch norms in convolutions.
    """

    itself: Mapping[nn.Conv2d, Function]
    instead: Instead


def act(backbone: Backbone, alike: Alike, parts: Sequence[Part]) -> Places:
    """Return what acts where for a batch of these parts.

    Tasks of one structure act together. Where those of another do something else, they do it
    with their own images; what all do alike is done once for all.

    Args:
        backbone: to which the adapters belong.
        alike: what `common` returns for it, the same for every batch.
        parts: in the order of `in_order`.
    """
    sections = [list(some) for _, some in groupby(parts, lambda part: part.adapter.structure)]
    acts = [_section(backbone, alike, some) for some in sections]
    if len(acts) == 1:
        return Places(instead=acts[0])
    images = [sum(len(part.rows) for part in some) for some in sections]
    modules = {module for one in acts for module in one}
    return Places(instead={module: _joined(module, acts, images) for module in modules})


def allow(backbone: Backbone) -> None:
    """Let what `act` returns act in this backbone."""
    modules = [*backbone.convolutions.values()]
    norms = [m for m in backbone.module.modules() if isinstance(m, nn.BatchNorm2d)]
    prepare(Places(instead=dict.fromkeys([*modules, *norms], _same)))


def common(backbone: Backbone) -> Alike:
    """Return what is the same for every batch."""
    convolutions, pairs = backbone.convolutions, folded(backbone)
    twins = {convolutions[path]: pair.twin for path, pair in pairs.items()}
    then = dict(pairwise(convolutions.values()))
    itself = {one: Convolve(one, then.get(one)) for one in convolutions.values()}
    instead: Instead = {one: Convolve(twins.get(one, one), then.get(one)) for one in itself}
    instead |= {pair.norm: rest_of(pair.norm, in_place=True) for pair in pairs.values()}
    return Alike(itself, instead)


def _section(backbone: Backbone, alike: Alike, parts: Sequence[Part]) -> Instead:
    adapters = [part.adapter for part in parts]
    images = [len(part.rows) for part in parts]
    first, pairs, instead = adapters[0], folded(backbone), dict(alike.instead)
    for path, convolution in backbone.convolutions.items():
        step, pair = first.steps.get(path), pairs.get(path)
        if step is not None and not all(path in one.idle for one in adapters):
            steps = Steps([one.steps[path] for one in adapters], images)
            instead[convolution] = partial(_reprogrammed, alike.itself[convolution], steps)
            if pair is not None and step.shift is None:
                del instead[pair.norm]
        elif pair is not None and pair.norm in first.norms:
            instead[convolution] = alike.itself[convolution]
    for norm in first.norms:
        norms = [one.norms[norm] for one in adapters]
        instead[norm] = partial(_normalised, rest_of(norm, in_place=True), norms, images)
    return instead


def _reprogrammed(itself: Function, steps: Steps, x: Tensor) -> Tensor:
    return steps(itself(x))


def _normalised(
    rest: Function, norms: Sequence[Affine], images: Sequence[int], x: Tensor
) -> Tensor:
    return rest(normalise(x, norms, images))


def _same(x: Tensor) -> Tensor:
    return x


def _joined(
    module: nn.Module, acts: Sequence[Mapping[nn.Module, Function]], images: Sequence[int]
) -> Function:
    itself = partial(plain, module)
    functions = [one.get(module, itself) for one in acts]
    if all(function is functions[0] for function in functions):
        return functions[0]

    def each(x: Tensor) -> Tensor:
        return torch.cat([f(part) for f, part in zip(functions, x.split(images), strict=True)])

    return each
