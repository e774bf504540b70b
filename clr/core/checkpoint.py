"""The state of an unfinished training, as one safetensors file: nothing to unpickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from clr.core.files import canonical_json, sha256_bytes, write_atomic

Epoch = dict[str, float]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a resumed training needs besides what its inputs determine.

    Attributes:
        tensors: trained tensors by name, as after the last epoch.
        moments: optimiser state by ``<name>/<field>``.
        history: metrics of the epochs so far, epoch 0 first.
    """

    tensors: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    history: tuple[Epoch, ...]


def save_checkpoint(checkpoint: Checkpoint, path: Path, key: str) -> None:
    """Write the checkpoint whole or not at all.

    Args:
        checkpoint: what to keep.
        path: where.
        key: digest of what determines the training; another one ignores the file.
    """
    parts = {"now": checkpoint.tensors, "optimiser": checkpoint.moments}
    tensors = {
        f"{part}:{name}": tensor.detach().cpu().contiguous()
        for part, values in parts.items()
        for name, tensor in values.items()
    }
    about = {"key": key, "history": list(checkpoint.history)}
    data: bytes = safetensors.torch.save(tensors, {"about": canonical_json(about).decode()})
    write_atomic(path, sha256_bytes(data).encode() + data)


def load_checkpoint(path: Path, key: str) -> Checkpoint | None:
    """Return the checkpoint, or None where there is none to trust: training starts anew."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    digest, data = raw[:71], raw[71:]
    if sha256_bytes(data).encode() != digest:
        return None
    try:
        return _parse(data, key)
    except Exception:  # made by another program; whatever is wrong with it, it is of no use
        return None


def _parse(data: bytes, key: str) -> Checkpoint | None:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about = json.loads(header["__metadata__"]["about"])
    if about["key"] != key:
        return None
    parts: dict[str, dict[str, Tensor]] = {"now": {}, "optimiser": {}}
    for name, tensor in safetensors.torch.load(data).items():
        part, _, rest = name.partition(":")
        parts[part][rest] = tensor
    return Checkpoint(parts["now"], parts["optimiser"], tuple(about["history"]))
