"""One backbone, many tasks: adapters are attached beside it and never touch its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clr.core.adapter import Adapter, check_adapter
from clr.core.backbone import Backbone
from clr.core.folding import Folded, folded, without_norms
from clr.core.places import Function, Places, acting, prepare
from clr.core.precision import strided_in_float32
from clr.core.sites import is_idle
from clr.errors import UsageError


@dataclass(frozen=True)
class Step:
    """What follows one convolution: a depthwise kernel, and perhaps a channel mixing."""

    kernel: Tensor | None
    down: Tensor | None = None
    up: Tensor | None = None
    norm: Folded | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Reprogram the convolution's output [N, C, H, W]; same shape."""
        kernel, shift = self.kernel, None
        if self.norm is not None and kernel is not None:
            kernel, shift = self.norm.kernel(kernel), self.norm.shift
        if kernel is not None:
            x = F.conv2d(x, kernel, shift, padding=1, groups=x.shape[1])
        if self.down is not None and self.up is not None:
            x = x + F.conv2d(F.conv2d(x, self.down), self.up)
        return x


class Program:
    """An adapter's tensors, tied to the places in the backbone where they act.

    The tensors are used as they are, so an optimiser that changes them changes what
    this computes.
    """

    def __init__(
        self, backbone: Backbone, tensors: Mapping[str, Tensor], *, fold: bool = False
    ) -> None:
        """Tie tensors to places; a kernel at identity that learns nothing acts nowhere.

        Args:
            backbone: they act in this one.
            tensors: names as in the adapter file, on the backbone's device.
            fold: fold the backbone's frozen batch norms into convolutions and kernels
                (`clr.core.folding`): less work, and logits that differ in the last bits.

        Raises:
            UsageError: `fold`, and batch norms of the task's own.
        """
        self.backbone = backbone
        self.head = tensors["head.weight"], tensors["head.bias"]
        steps, norms = _steps(backbone, tensors), norms_of(backbone, tensors)
        if fold:
            self._places = dict.fromkeys((False, True), _folded_places(backbone, steps, norms))
            return
        self._places = {
            training: Places(steps, {m: _twin(m, own, training) for m, own in norms.items()})
            for training in (False, True)
        }
        prepare(self._places[False])

    def features(self, batch: Tensor, *, batch_statistics: bool = False) -> Tensor:
        """Return the reprogrammed features [N, channels] of float images [N, 3, H, W].

        Args:
            batch: normalised images on the backbone's device.
            batch_statistics: normalise by the batch and update the task's own statistics.
        """
        with acting(self._places[batch_statistics]):
            output: Tensor = self.backbone.module(batch)
            return output

    def logits(self, batch: Tensor, *, batch_statistics: bool = False) -> Tensor:
        """Return logits [N, classes] of float images [N, 3, H, W]."""
        return F.linear(self.features(batch, batch_statistics=batch_statistics), *self.head)


def _steps(backbone: Backbone, tensors: Mapping[str, Tensor]) -> dict[nn.Module, Step]:
    found: dict[nn.Module, Step] = {}
    for path, module in backbone.convolutions.items():
        kernel = tensors.get(f"kernels.{path}")
        down, up = tensors.get(f"mix.{path}.down"), tensors.get(f"mix.{path}.up")
        if kernel is not None and down is None and is_idle(kernel):
            continue
        if kernel is not None or down is not None:
            found[module] = Step(kernel, down, up)
    return found


def _folded_places(
    backbone: Backbone, steps: Mapping[nn.Module, Step], norms: Mapping[nn.Module, object]
) -> Places:
    if norms:
        raise UsageError("Batch norms of the task's own cannot be folded.")
    mixed = {module for module, step in steps.items() if step.down is not None}
    pairs = {
        path: pair
        for path, pair in folded(backbone).items()
        if backbone.convolutions[path] not in mixed
    }
    own: dict[nn.Module, Folded] = {
        backbone.convolutions[path]: pair for path, pair in pairs.items()
    }
    after = {module: replace(step, norm=own.get(module)) for module, step in steps.items()}
    instead = without_norms(backbone, pairs, steps)
    for convolution in backbone.convolutions.values():
        if forward := strided_in_float32(convolution, instead.get(convolution)):
            instead[convolution] = forward
    places = Places(after, instead)
    prepare(places)
    return places


def norms_of(
    backbone: Backbone, tensors: Mapping[str, Tensor]
) -> dict[nn.Module, dict[str, Tensor]]:
    """Return the tensors of an adapter's own batch norms, by the backbone's module and name."""
    found: dict[nn.Module, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("bn."):
            path, _, leaf = name.removeprefix("bn.").rpartition(".")
            found.setdefault(backbone.module.get_submodule(path), {})[leaf] = tensor
    return found


def _twin(module: nn.Module, own: Mapping[str, Tensor], training: bool) -> Function:
    """Return forward of a batch norm like `module`, that shares all but the tensors in `own`."""
    twin = copy.copy(module)
    vars(twin).pop("forward", None)
    twin.training = training
    vars(twin)["_parameters"] = {name: own.get(name, t) for name, t in module._parameters.items()}
    twin._buffers = {name: own.get(name, t) for name, t in module._buffers.items()}
    if training:
        twin._buffers["num_batches_tracked"] = None
    forward: Function = twin.forward
    return forward


class ReprogrammedNetwork:
    """A frozen backbone with any number of named adapters beside it."""

    def __init__(self, backbone: Backbone) -> None:
        """Share `backbone`; nothing of it is copied."""
        self.backbone = backbone
        self._attached: dict[str, tuple[Adapter, Program]] = {}

    def attach(self, adapter: Adapter, name: str = "") -> None:
        """Attach an adapter under `name` (default: its task), in place of one of that name.

        Raises:
            IntegrityBroken: it does not belong to this backbone (see `check_adapter`).
        """
        check_adapter(adapter, self.backbone)
        device = self.backbone.device
        tensors = {name: t.detach().to(device) for name, t in adapter.tensors.items()}
        key = name or adapter.spec.task
        program = Program(self.backbone, tensors)
        self._attached[key] = replace(adapter, tensors=tensors), program

    def detach(self, name: str) -> None:
        """Forget the adapter of this name.

        Raises:
            UsageError: there is none.
        """
        self._find(name)
        self._attached.pop(name, None)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the attached adapters, sorted."""
        return tuple(sorted(self._attached))

    def adapter(self, name: str) -> Adapter:
        """Return the attached adapter of this name, its tensors on the backbone's device.

        Raises:
            UsageError: there is none; never the bare backbone instead.
        """
        return self._find(name)[0]

    @torch.inference_mode()
    def logits(self, batch: Tensor, name: str) -> Tensor:
        """Return logits [N, classes] of the adapter `name` for float images [N, 3, H, W].

        Raises:
            UsageError: no such adapter.
        """
        return self._find(name)[1].logits(batch.to(self.backbone.device))

    @torch.inference_mode()
    def features(self, batch: Tensor, name: str | None = None) -> Tensor:
        """Return features [N, channels]: the bare backbone's, or those of the adapter `name`.

        Raises:
            UsageError: no such adapter.
        """
        batch = batch.to(self.backbone.device)
        if name is None:
            output: Tensor = self.backbone.module(batch)
            return output
        return self._find(name)[1].features(batch)

    def _find(self, name: str) -> tuple[Adapter, Program]:
        found = self._attached.get(name)
        if found is None:
            known = ", ".join(self.names[:10]) or "none"
            raise UsageError(
                f"No adapter {name!r} is attached.", fix=f"Attached: {known}.", known=self.names
            )
        return found
