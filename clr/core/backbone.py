"""The frozen backbone: any CNN of timm or torchvision, one in memory for all tasks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clr.core import weights
from clr.core.files import canonical_json
from clr.core.networks import drop_head, named_network
from clr.errors import IntegrityBroken, UsageError

_MIN_CONVOLUTIONS = 2
_SMALLEST_INPUT = 96
"""Side in pixels of the images that every backbone must take, see `clr.core.recipe`."""


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen CNN without its classification head, in eval mode.

    Attributes:
        name: what it was loaded by.
        module: maps float images [N, 3, H, W] to features [N, channels].
        digest: see `state_digest`.
        channels: number of features.
        parameters: of the network as published, head included (budgets are shares of it).
        mean: of the input per channel, for pixels in 0 … 1.
        std: of the input per channel, for pixels in 0 … 1.
        interpolation: ``bilinear`` or ``bicubic``.
        source: where the weights came from.
        licence: of the weights, empty where unknown.
        architecture: of a ``file:`` backbone.
        sha256: of a ``file:`` backbone's file.
        pretrained: False for the seeded random weights that tests use.
        unused: names in a checkpoint file that were not used, its heads.
        convolutions: every convolution by its path, in the order of definition.
    """

    name: str
    module: nn.Module
    digest: str
    channels: int
    parameters: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    source: str
    licence: str = ""
    architecture: str = ""
    sha256: str = ""
    pretrained: bool = True
    unused: tuple[str, ...] = ()
    convolutions: dict[str, nn.Conv2d] = field(default_factory=dict, repr=False)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.module.parameters()).device

    def check(self) -> None:
        """Recompute the digest of what is in memory.

        Raises:
            IntegrityBroken: a weight is no longer what was loaded.
        """
        found = state_digest(self.module)
        if found != self.digest:
            raise IntegrityBroken(
                f"The backbone {self.name} in memory has {found}, not {self.digest}.",
                fix="Restart; if it happens again, check the memory and reinstall the weights.",
            )


def find_device(wanted: str, threads: int = 0) -> str:
    """Return where torch computes: what is wanted, or for ``auto`` the best that is there.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: that torch may use on the CPU; 0: as many as it likes.

    Raises:
        UsageError: this machine does not have what is wanted.
    """
    if threads:
        torch.set_num_threads(threads)
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return next(name for name, is_there in there.items() if is_there)
    if not there[wanted]:
        raise UsageError(
            f"CLR_DEVICE is {wanted}, but PyTorch finds none on this machine.",
            fix="Set CLR_DEVICE=auto, or see to driver and PyTorch build.",
        )
    return wanted


def state_digest(module: nn.Module) -> str:
    """Return sha256 over the sorted (name, dtype, shape, bytes) of a module's state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]))
        digest.update(flat.view(torch.uint8).numpy().data)
    return "sha256:" + digest.hexdigest()


def load_backbone(
    name: str,
    *,
    architecture: str = "",
    sha256: str = "",
    pretrained: bool = True,
    device: str = "cpu",
) -> Backbone:
    """Load a CNN, drop its head, freeze it.

    Args:
        name: a timm or torchvision name (timm first; ``timm:`` or ``torchvision:`` decides),
            or ``file:<path>`` of a checkpoint.
        architecture: for ``file:``, the name of the network that the file is for.
        sha256: for ``file:``, the digest that its bytes must have.
        pretrained: False gives random weights from a fixed seed.
        device: where to put it.

    Raises:
        UsageError: unknown name (near ones are named), not a CNN, or no pinned digest.
        IntegrityBroken: a file with other bytes, with code in it, or of another network.
        ServiceUnavailable: weights that are not here and cannot be fetched.
    """
    if not name.startswith("file:"):
        network, facts = named_network(name, pretrained)
        parameters = _count(network)
        drop_head(network)
        return _frozen(network, device, name=name, parameters=parameters, **facts)
    path = _pinned_file(name, architecture, sha256)
    network, facts = named_network(architecture, pretrained=False)
    parameters = _count(network)
    drop_head(network)
    state, unused = weights.fit_state(weights.read_state(path, sha256), network, str(path))
    network.load_state_dict(state)
    facts |= {"source": name, "licence": "", "pretrained": True}
    facts |= {"architecture": architecture, "sha256": sha256, "unused": unused}
    return _frozen(network, device, name=name, parameters=parameters, **facts)


def _pinned_file(name: str, architecture: str, sha256: str) -> Path:
    path = Path(name.removeprefix("file:")).expanduser()
    if not architecture:
        raise UsageError(
            f"{name} does not say which network it is for.",
            fix="Set CLR_BACKBONE_ARCHITECTURE, e.g. resnet50.",
        )
    if not sha256:
        raise UsageError(
            f"{name} is not pinned: whoever can write the file could change the backbone.",
            fix="Set CLR_BACKBONE_SHA256 to the digest that its publisher gives "
            f"(sha256sum {path}).",
        )
    return path


def _frozen(network: nn.Module, device: str, *, name: str, **facts: Any) -> Backbone:
    convolutions = {
        path: module for path, module in network.named_modules() if isinstance(module, nn.Conv2d)
    }
    spatial = [m for m in convolutions.values() if max(m.kernel_size) > 1]
    if len(spatial) < _MIN_CONVOLUTIONS:
        raise UsageError(
            f"{name} is not a convolutional network: it has {len(spatial)} k×k convolutions.",
            fix="Choose a CNN such as tf_efficientnet_lite0, resnet50 or convnext_tiny.",
        )
    broken = [n for n, t in network.state_dict().items() if not _is_finite(t)]
    if broken:
        raise IntegrityBroken(f"{name} has values that are not finite in {broken[0]}.")
    network.eval().requires_grad_(False)
    for module in network.modules():  # a gradient step would copy what is overwritten in place
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    digest = state_digest(network)
    network.to(device)
    network.to(memory_format=torch.channels_last)
    features = _try(network, name, device)
    if features.ndim != 2:
        raise UsageError(
            f"{name} gives features of shape {list(features.shape)}, not one vector an image.",
            fix="Choose another CNN.",
        )
    return Backbone(name, network, digest, features.shape[1], convolutions=convolutions, **facts)


def _try(network: nn.Module, name: str, device: str) -> Tensor:
    side = _SMALLEST_INPUT
    try:
        with torch.inference_mode():
            features: Tensor = network(torch.zeros(1, 3, side, side, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"{name} does not take images of {side} × {side} pixels: {error}.",
            fix="Choose a CNN that is not tied to one image size, e.g. resnet50.",
        ) from error
    return features


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
