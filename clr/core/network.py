"""One backbone, many tasks: adapters are attached beside it and never touch its weights."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clr.core.adapter import Adapter, check_adapter
from clr.core.backbone import Backbone
from clr.errors import UsageError

_SWAP = threading.RLock()


@dataclass(frozen=True)
class Step:
    """What follows one convolution: a depthwise kernel, and perhaps a channel mixing."""

    kernel: Tensor | None
    down: Tensor | None = None
    up: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Reprogram the convolution's output [N, C, H, W]; same shape."""
        if self.kernel is not None:
            x = F.conv2d(x, self.kernel, padding=1, groups=x.shape[1])
        if self.down is not None and self.up is not None:
            x = x + F.conv2d(F.conv2d(x, self.down), self.up)
        return x


Steps = Mapping[nn.Module, Step]
_ACTIVE: ContextVar[Steps | None] = ContextVar("clr_active", default=None)
_HOOKED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _hook(module: nn.Module, _: object, output: Tensor) -> Tensor | None:
    steps = _ACTIVE.get()
    step = steps.get(module) if steps else None
    return step(output) if step is not None else None


class Program:
    """An adapter's tensors, tied to the places in the backbone where they act.

    The tensors are used as they are, so an optimiser that changes them changes what
    this computes.
    """

    def __init__(self, backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
        """Tie `tensors` (names as in the adapter file, on the backbone's device) to places."""
        self.backbone = backbone
        self.head = tensors["head.weight"], tensors["head.bias"]
        self._steps = _steps(backbone, tensors)
        self._norms = _norms(backbone, tensors)
        if not _HOOKED.get(backbone.module):
            _HOOKED[backbone.module] = True
            for module in backbone.convolutions.values():
                module.register_forward_hook(_hook)

    def features(self, batch: Tensor, *, batch_statistics: bool = False) -> Tensor:
        """Return the reprogrammed features [N, channels] of float images [N, 3, H, W].

        Args:
            batch: normalised images on the backbone's device.
            batch_statistics: normalise by the batch and update the task's own statistics.
        """
        token = _ACTIVE.set(self._steps)
        try:
            if not self._norms:
                output: Tensor = self.backbone.module(batch)
                return output
            with _swapped(self._norms, batch_statistics):
                output = self.backbone.module(batch)
                return output
        finally:
            _ACTIVE.reset(token)

    def logits(self, batch: Tensor, *, batch_statistics: bool = False) -> Tensor:
        """Return logits [N, classes] of float images [N, 3, H, W]."""
        return F.linear(self.features(batch, batch_statistics=batch_statistics), *self.head)


def _steps(backbone: Backbone, tensors: Mapping[str, Tensor]) -> Steps:
    found: dict[nn.Module, Step] = {}
    for path, module in backbone.convolutions.items():
        kernel = tensors.get(f"kernels.{path}")
        down, up = tensors.get(f"mix.{path}.down"), tensors.get(f"mix.{path}.up")
        if kernel is not None or down is not None:
            found[module] = Step(kernel, down, up)
    return found


def _norms(backbone: Backbone, tensors: Mapping[str, Tensor]) -> dict[nn.Module, dict[str, Tensor]]:
    found: dict[nn.Module, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("bn."):
            path, _, leaf = name.removeprefix("bn.").rpartition(".")
            found.setdefault(backbone.module.get_submodule(path), {})[leaf] = tensor
    return found


@contextmanager
def _swapped(norms: Mapping[nn.Module, Mapping[str, Tensor]], training: bool) -> Iterator[None]:
    """Let each batch norm use the task's tensors inside the block; one thread at a time."""
    with _SWAP:
        kept = {module: (dict(module._parameters), dict(module._buffers)) for module in norms}
        try:
            for module, own in norms.items():
                module.training = training
                for leaf, tensor in own.items():
                    home = module._parameters if leaf in module._parameters else module._buffers
                    home[leaf] = tensor  # type: ignore[assignment]
                if training:
                    module._buffers["num_batches_tracked"] = None
            yield
        finally:
            for module, (parameters, buffers) in kept.items():
                module._parameters.update(parameters)
                module._buffers.update(buffers)
                module.training = False


class ReprogrammedNetwork:
    """A frozen backbone with any number of named adapters beside it."""

    def __init__(self, backbone: Backbone) -> None:
        """Share `backbone`; nothing of it is copied."""
        self.backbone = backbone
        self._programs: dict[str, Program] = {}
        self._adapters: dict[str, Adapter] = {}

    def attach(self, adapter: Adapter, name: str = "") -> None:
        """Attach an adapter under `name` (default: its task), in place of one of that name.

        Raises:
            IntegrityBroken: it does not belong to this backbone (see `check_adapter`).
        """
        check_adapter(adapter, self.backbone)
        device = self.backbone.device
        tensors = {name: t.detach().to(device) for name, t in adapter.tensors.items()}
        key = name or adapter.spec.task
        self._programs[key] = Program(self.backbone, tensors)
        self._adapters[key] = Adapter(adapter.spec, tensors)

    def detach(self, name: str) -> None:
        """Forget the adapter of this name.

        Raises:
            UsageError: there is none.
        """
        self.adapter(name)
        del self._programs[name], self._adapters[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the attached adapters, sorted."""
        return tuple(sorted(self._programs))

    def adapter(self, name: str) -> Adapter:
        """Return the attached adapter of this name, its tensors on the backbone's device.

        Raises:
            UsageError: there is none; never the bare backbone instead.
        """
        if name not in self._adapters:
            known = ", ".join(self.names[:10]) or "none"
            raise UsageError(
                f"No adapter {name!r} is attached.", fix=f"Attached: {known}.", known=self.names
            )
        return self._adapters[name]

    @torch.inference_mode()
    def logits(self, batch: Tensor, name: str) -> Tensor:
        """Return logits [N, classes] of the adapter `name` for float images [N, 3, H, W].

        Raises:
            UsageError: no such adapter.
        """
        self.adapter(name)
        return self._programs[name].logits(batch.to(self.backbone.device))

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
        self.adapter(name)
        return self._programs[name].features(batch)
