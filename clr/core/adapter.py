"""The adapter of one task: what CLR adds to the frozen backbone, as one safetensors file.

After each k×k convolution a depthwise 3×3 kernel per channel, identity at birth
(Ge et al. 2023, section 3.2), and a linear head of the task's own. Batch-norm
tensors are stored only where the recipe trains them; the rest stays the backbone's.
In memory all tensors are float32 and of full shape; what the file makes of them says
`clr.core.compress`, or, in files of schema 1, nothing: each tensor as it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor, nn

from clr.core.adapter_spec import DENSE_SCHEMA, SCHEMA, parse_spec, spec_fields
from clr.core.adapter_spec import AdapterSpec as AdapterSpec
from clr.core.backbone import Backbone
from clr.core.compress import check_arrays, compress, kernels_kept, pack, unpack
from clr.core.files import canonical_json, sha256_bytes, write_atomic
from clr.core.sites import batch_norm_sites, kernel_sites, mixing_sites
from clr.errors import IntegrityBroken, UsageError

_BN_TENSORS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, eq=False)
class Adapter:
    """A spec and its tensors: ``kernels.*``, ``mix.*``, ``bn.*``, ``head.weight|bias``.

    Attributes:
        spec: what it is for.
        tensors: float32, by name.
        read: where it was read from a file, the file's digest and what `_values_digest` said
            then; so that what is in memory need not be encoded to know its file.
    """

    spec: AdapterSpec
    tensors: dict[str, Tensor]
    read: tuple[str, bytes] | None = None

    @property
    def added_parameters(self) -> int:
        """Number of values added to the backbone, without the head and without copies of it.

        A kernel that is identity counts where the file holds it: in schema 1.
        """
        kinds = ("mix.",) if self.spec.schema == SCHEMA else ("kernels.", "mix.")
        values = sum(t.numel() for n, t in self.tensors.items() if n.startswith(kinds))
        return values + (9 * kernels_kept(self.tensors) if self.spec.schema == SCHEMA else 0)

    def compressed(self) -> Adapter:
        """Return the nearest adapter that its storage holds exactly, see `compress`."""
        return Adapter(self.spec, compress(self.tensors, self.spec.storage))

    def detached(self) -> Adapter:
        """Return a copy on the CPU that no training changes any more."""
        copies = {n: t.detach().cpu().clone() for n, t in self.tensors.items()}
        return Adapter(self.spec, copies)


def shapes(spec: AdapterSpec, backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that an adapter of this kind must have."""
    found: dict[str, tuple[int, ...]] = {}
    for path in kernel_sites(backbone, spec.variant):
        found[f"kernels.{path}"] = (backbone.convolutions[path].out_channels, 1, 3, 3)
    if spec.variant == "mix":
        for path in mixing_sites(backbone):
            channels = backbone.convolutions[path].out_channels
            found[f"mix.{path}.down"] = (spec.rank, channels, 1, 1)
            found[f"mix.{path}.up"] = (channels, spec.rank, 1, 1)
    if spec.batch_norm != "frozen":
        for path, module in batch_norm_sites(backbone).items():
            found |= {f"bn.{path}.{name}": (module.num_features,) for name in _BN_TENSORS}
    found["head.weight"] = (len(spec.labels), backbone.channels)
    found["head.bias"] = (len(spec.labels),)
    return found


def new_adapter(
    spec: AdapterSpec, backbone: Backbone, head: tuple[Tensor, Tensor] | None = None
) -> Adapter:
    """Return the adapter at birth: with it the backbone computes exactly what it did without.

    Args:
        spec: what it is for.
        backbone: over which.
        head: weight [classes, channels] and bias [classes], e.g. a linear probe's; else zeros.
    """
    tensors: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    norms = {} if spec.batch_norm == "frozen" else batch_norm_sites(backbone)
    for name, shape in shapes(spec, backbone).items():
        kind, _, rest = name.partition(".")
        if kind == "bn":
            path, _, field_name = rest.rpartition(".")
            tensors[name] = getattr(norms[path], field_name).detach().cpu().clone()
            continue
        tensors[name] = torch.zeros(shape)
        if kind == "kernels":
            tensors[name][:, 0, 1, 1] = 1
        elif name.endswith(".down"):
            nn.init.kaiming_normal_(tensors[name], generator=generator)
    if head is not None:
        tensors["head.weight"], tensors["head.bias"] = (t.detach().cpu().clone() for t in head)
    adapter = Adapter(spec, tensors)
    check_adapter(adapter, backbone)
    return adapter


def check_adapter(adapter: Adapter, backbone: Backbone, where: str = "The adapter") -> None:
    """Refuse an adapter that does not belong to this backbone as it is.

    Raises:
        IntegrityBroken: another backbone; a tensor missing, too many, of wrong shape or
            dtype, or with values that are not finite.
    """
    _require_backbone(adapter.spec, backbone, where)
    wanted = shapes(adapter.spec, backbone)
    for what, names in (
        ("lacks", wanted.keys() - adapter.tensors.keys()),
        ("has unknown", adapter.tensors.keys() - wanted.keys()),
    ):
        if names:
            raise IntegrityBroken(
                f"{where} {what} tensors: {', '.join(sorted(names)[:3])} ({len(names)} in all).",
                fix="Fetch it again from the registry.",
            )
    for name, tensor in adapter.tensors.items():
        if tuple(tensor.shape) != wanted[name] or tensor.dtype != torch.float32:
            raise IntegrityBroken(
                f"{where}: {name} is {tensor.dtype} {list(tensor.shape)}, "
                f"not torch.float32 {list(wanted[name])}."
            )
    if not _finite(*adapter.tensors.values()):
        broken = next(name for name, tensor in adapter.tensors.items() if not _finite(tensor))
        raise IntegrityBroken(f"{where}: {broken} has values that are not finite.")


def _require_backbone(spec: AdapterSpec, backbone: Backbone, where: str) -> None:
    if spec.backbone_digest != backbone.digest:
        raise IntegrityBroken(
            f"{where} was trained on the backbone {spec.backbone} with "
            f"{spec.backbone_digest}, not on {backbone.name} with {backbone.digest}.",
            fix="Use the backbone that it was trained on.",
        )


def _finite(*tensors: Tensor) -> bool:
    """Say whether all values are finite; of many small tensors at once, which is quicker."""
    values = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    return bool(torch.isfinite(values).all())


def adapter_bytes(adapter: Adapter) -> bytes:
    """Return the adapter file's bytes; equal adapters give equal bytes.

    Raises:
        IntegrityBroken: its storage does not hold its values exactly: it was never
            compressed, or changed in memory.
    """
    spec = canonical_json(spec_fields(adapter.spec)).decode()
    # as arrays, which share memory with the tensors: a gate does this for every earlier task
    arrays = (
        {name: np.ascontiguousarray(t.numpy(force=True)) for name, t in adapter.tensors.items()}
        if adapter.spec.schema == DENSE_SCHEMA
        else pack(adapter.tensors, adapter.spec.storage)
    )
    ordered = {name: arrays[name] for name in sorted(arrays)}
    data: bytes = safetensors.numpy.save(ordered, metadata={"spec": spec})
    return data


def save_adapter(adapter: Adapter, path: Path) -> str:
    """Write the adapter file whole or not at all; return its digest ``sha256:<hex>``."""
    data = adapter_bytes(adapter)
    write_atomic(path, data)
    return sha256_bytes(data)


def load_adapter(path: Path, backbone: Backbone, expected_digest: str | None = None) -> Adapter:
    """Read and check an adapter file.

    Args:
        path: the file.
        backbone: it must have been trained on this one.
        expected_digest: what the file's digest must be, where known.

    Raises:
        UsageError: no such file.
        IntegrityBroken: see `parse_adapter`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"The adapter {path} cannot be read: {error.strerror}.",
            fix="Give the path of an adapter file.",
        ) from error
    return parse_adapter(data, backbone, expected_digest, str(path))


def parse_adapter(
    data: bytes, backbone: Backbone, expected_digest: str | None = None, where: str = "The adapter"
) -> Adapter:
    """Return the adapter whose file has the bytes `data`.

    Raises:
        IntegrityBroken: another digest, not safetensors, an unknown schema, what
            `check_adapter` or `check_arrays` refuses, or not the bytes that `adapter_bytes`
            gives, which others could not be told by their digest in memory.
    """
    digest = sha256_bytes(data)
    if expected_digest is not None and digest != expected_digest:
        raise IntegrityBroken(
            f"{where} has {digest}, not {expected_digest}.",
            fix="Restore it from the registry or from a backup.",
        )
    spec = parse_spec(data, where)
    _require_backbone(spec, backbone, where)
    dense = spec.schema == DENSE_SCHEMA
    try:
        parts = (safetensors.torch if dense else safetensors.numpy).load(data)
    except Exception as error:  # safetensors raises its own, unrelated type
        raise IntegrityBroken(f"{where} is not a whole safetensors file: {error}.") from error
    if not dense:
        wanted = shapes(spec, backbone)
        check_arrays(parts, spec.storage, wanted, where)
        parts = unpack(parts, spec.storage, wanted)
    adapter = Adapter(spec, parts)
    check_adapter(adapter, backbone, where)
    if not dense and not _is_bytes_of(adapter, data):
        raise IntegrityBroken(
            f"{where} says what it says in another way than this package writes it.",
            fix="Fetch it again from the registry.",
        )
    return replace(adapter, read=(digest, _values_digest(adapter)))


def adapter_digest(adapter: Adapter) -> str:
    """Return the digest that the adapter's file has or would have, of what is in memory now.

    Raises:
        IntegrityBroken: it holds values that no file of its storage does.
    """
    if adapter.read and _values_digest(adapter) == adapter.read[1]:
        return adapter.read[0]
    return sha256_bytes(adapter_bytes(adapter))


def _values_digest(adapter: Adapter) -> bytes:
    """Return the sha256 of spec and tensors, which is quicker than encoding them."""
    hasher = hashlib.sha256(canonical_json(spec_fields(adapter.spec)))
    for name in sorted(adapter.tensors):
        hasher.update(name.encode())
        hasher.update(np.ascontiguousarray(adapter.tensors[name].numpy(force=True)).data)
    return hasher.digest()


def _is_bytes_of(adapter: Adapter, data: bytes) -> bool:
    try:
        return adapter_bytes(adapter) == data
    except IntegrityBroken:  # scales or codes that this package does not choose
        return False
