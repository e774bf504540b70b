"""How an adapter's tensors are stored: fewer bits a value, and nothing for kernels at identity.

Storing loses nothing: what loses is `compress`, once, at the end of training, by rounding
tensors to values that their storage holds exactly. So what is judged, served and stored are
the same numbers, and `pack` refuses any others.

A kernel of one channel is stored as its deviation from identity (Ge et al. 2023, section
3.2), and one without deviation not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clr.core.quantise import (
    FINEST,
    Codes,
    Scales,
    quantise,
    read_codes,
    read_scales,
    store_codes,
    store_scales,
    stored_form,
)
from clr.errors import IntegrityBroken, UsageError

Storage = Literal["float32", "float16", "int8", "int4", "ternary"]
STORAGES: tuple[str, ...] = get_args(Storage)
Array = NDArray[Any]
Arrays = dict[str, Array]
Shapes = Mapping[str, tuple[int, ...]]
_TAPS = 9
_CENTRE = 4


@dataclass(frozen=True)
class Quantised:
    """Codes of kernels and of the head's rows, and scales of kernels."""

    kernels: Codes
    scales: Scales
    head: Codes


QUANTISED: dict[Storage, Quantised] = {
    "int8": Quantised("int8", "float16", "int8"),
    "int4": Quantised("int4", "byte", "int8"),
    "ternary": Quantised("ternary", "byte", "int4"),
}


def compress(tensors: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Return the nearest tensors that `storage` holds exactly, on their devices.

    ``float16`` rounds kernels, mixing and the head's weight. ``int8``, ``int4`` and ``ternary``
    quantise each kernel, and each row of the head's weight in 8, 8 and 4 bits; the mixing they
    round to float16. Batch norm and the head's bias stay float32. Done twice, it changes
    nothing more.

    Raises:
        UsageError: a value is not finite, or too large for float16.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()) or float(tensor.detach().abs().max()) > 65_000:
            raise UsageError(
                f"{name} is too large to be stored as {storage}: the training diverged.",
                fix="Lower recipe.kernel_lr and recipe.head_lr in task.yaml.",
            )
    read = unpack(_encode(tensors, storage), storage, shapes)
    return {name: read[name].to(tensor.device) for name, tensor in tensors.items()}


def pack(tensors: Mapping[str, Tensor], storage: Storage) -> Arrays:
    """Return the arrays of the adapter file; equal tensors give equal arrays.

    Returns:
        Of C kernels in all, sorted by path, of which K differ from identity:
        ``kernels.kept`` uint8 [⌈C/8⌉], a bit a kernel, the lowest first, 1 where it is stored;
        ``kernels.values`` [K, 9], in float16 the deviations, in float32 the kernels; or
        ``kernels.codes`` and ``kernels.scales`` of the deviations (see `clr.core.quantise`):
        int8 [K, 9] and float16 [K], uint8 [⌈9K/2⌉] and uint8 [K], or uint16 [K] and uint8 [K].
        ``head.weight`` has ``head.scales`` float32 [classes] beside it where it is quantised:
        int8 [classes, channels], or uint8 [⌈classes·channels/2⌉]. All else keeps its shape.

    Raises:
        IntegrityBroken: values that `storage` does not hold exactly, see `compress`.
    """
    arrays = _encode(tensors, storage)
    read = unpack(arrays, storage, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    for name, tensor in tensors.items():
        if not np.array_equal(_bits(read[name]), _bits(tensor)):
            raise IntegrityBroken(
                f"{name} has values that {storage} does not hold.",
                fix="Compress the adapter first; if it was loaded, its memory was changed.",
            )
    return arrays


def unpack(arrays: Mapping[str, Array], storage: Storage, shapes: Shapes) -> dict[str, Tensor]:
    """Return the float32 tensors that `arrays`, checked by `check_arrays`, stand for."""
    found: dict[str, Array] = {}
    for name, shape in shapes.items():
        if name.startswith("kernels."):
            continue
        array = arrays[name]
        if name == "head.weight" and storage in QUANTISED:
            array = read_codes(array, QUANTISED[storage].head, *shape)
            array = array * arrays["head.scales"][:, None]
        array = array.astype(np.float32)
        found[name] = array.reshape(shape)
    return {name: torch.from_numpy(array) for name, array in found.items()} | dict(
        _read_kernels(arrays, storage, shapes)
    )


def check_arrays(
    arrays: Mapping[str, Array], storage: Storage, shapes: Shapes, where: str = "The adapter"
) -> None:
    """Refuse arrays that are not exactly those of an adapter with tensors of `shapes`.

    Raises:
        IntegrityBroken: one is missing, too many, or of another shape or type.
    """
    channels = sum(shapes[name][0] for name in _kernel_names(shapes))
    kept = arrays.get("kernels.kept")
    bits = np.unpackbits(kept, bitorder="little") if kept is not None and _is_bytes(kept) else None
    stored = 0 if bits is None else int(bits.sum())
    wanted = _forms(storage, shapes, channels, stored)
    for what, names in (
        ("lacks", wanted.keys() - arrays.keys()),
        ("has unknown", arrays.keys() - wanted.keys()),
    ):
        if names:
            raise IntegrityBroken(
                f"{where} {what} tensors: {', '.join(sorted(names)[:3])} ({len(names)} in all)."
            )
    for name, (kind, shape) in wanted.items():
        array = arrays[name]
        if array.dtype != kind or array.shape != shape:
            raise IntegrityBroken(
                f"{where}: {name} is {array.dtype} {list(array.shape)}, not {kind} {list(shape)}."
            )
    if bits is None or bits[channels:].any():
        raise IntegrityBroken(
            f"{where}: kernels.kept names others than the {channels} kernels there are."
        )


def kernels_kept(tensors: Mapping[str, Tensor]) -> int:
    """Return how many kernels differ from identity."""
    return int(_differs_from_identity(_flat(tensors)).sum())


def _forms(
    storage: Storage, shapes: Shapes, channels: int, stored: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of every array by name."""
    narrow = "float32" if storage == "float32" else "float16"
    forms: dict[str, tuple[str, tuple[int, ...]]] = {
        "kernels.kept": ("uint8", (-(-channels // 8),))
    }
    head = (narrow, shapes["head.weight"])
    if storage in QUANTISED:
        form = QUANTISED[storage]
        forms["kernels.codes"] = stored_form(form.kernels, stored, _TAPS)
        forms["kernels.scales"] = ("uint8" if form.scales == "byte" else form.scales, (stored,))
        head = stored_form(form.head, *shapes["head.weight"])
        forms["head.scales"] = ("float32", shapes["head.weight"][:1])
    else:
        forms["kernels.values"] = (narrow, (stored, _TAPS))
    for name, shape in shapes.items():
        if name == "head.weight":
            forms[name] = head
        elif name.startswith("mix."):
            forms[name] = (narrow, shape)
        elif not name.startswith("kernels."):
            forms[name] = ("float32", shape)
    return forms


def _encode(tensors: Mapping[str, Tensor], storage: Storage) -> Arrays:
    """Return the nearest that `storage` can say of `tensors`."""
    arrays = _encode_kernels(_flat(tensors), storage)
    for name, tensor in tensors.items():
        if name.startswith("kernels."):
            continue
        array = np.ascontiguousarray(tensor.numpy(force=True))
        if name == "head.weight" and storage in QUANTISED:
            kind = QUANTISED[storage].head
            codes, arrays["head.scales"] = quantise(array.T, kind, "float32", 0)
            array = store_codes(codes.T, kind)
        elif name.startswith("mix.") or (name == "head.weight" and storage == "float16"):
            array = array.astype(np.float32 if storage == "float32" else np.float16)
        arrays[name] = array
    return arrays


def _encode_kernels(kernels: Array, storage: Storage) -> Arrays:
    """Return the arrays of kernels, given as float32 [9, C]: taps first, which is quicker."""
    deviation = kernels.copy()
    deviation[_CENTRE] -= 1
    if storage in QUANTISED:
        form = QUANTISED[storage]
        codes, scales = quantise(deviation, form.kernels, form.scales, FINEST)
        kept = codes.any(axis=0)
        values = {
            "kernels.codes": store_codes(codes[:, kept].T, form.kernels),
            "kernels.scales": store_scales(scales[kept], form.scales),
        }
    else:
        narrow = deviation.astype(np.float16) if storage == "float16" else kernels
        kept = narrow.any(axis=0) if storage == "float16" else _differs_from_identity(kernels)
        values = {"kernels.values": np.ascontiguousarray(narrow[:, kept].T)}
    return {"kernels.kept": np.packbits(kept, bitorder="little"), **values}


def _read_kernels(
    arrays: Mapping[str, Array], storage: Storage, shapes: Shapes
) -> Iterator[tuple[str, Tensor]]:
    names = _kernel_names(shapes)
    channels = sum(shapes[name][0] for name in names)
    kept = np.unpackbits(arrays["kernels.kept"], count=channels, bitorder="little").astype(bool)
    stored = int(kept.sum())
    if storage in QUANTISED:
        form = QUANTISED[storage]
        codes = read_codes(arrays["kernels.codes"], form.kernels, stored, _TAPS)
        values = codes * read_scales(arrays["kernels.scales"], form.scales)[:, None]
    else:
        values = arrays["kernels.values"].astype(np.float32)
    kernels = np.zeros((channels, _TAPS), dtype=np.float32)
    if storage == "float32":
        kernels[:, _CENTRE] = 1
        kernels[kept] = values
    else:
        kernels[kept] = values
        kernels[:, _CENTRE] += 1
    at = 0
    for name in names:
        size = shapes[name][0]
        yield name, torch.from_numpy(kernels[at : at + size].reshape(shapes[name]))
        at += size


def _kernel_names(names: Mapping[str, object]) -> list[str]:
    return sorted(name for name in names if name.startswith("kernels."))


def _flat(tensors: Mapping[str, Tensor]) -> Array:
    """Return all kernels as float32 [9, C]."""
    rows = [tensors[n].numpy(force=True).reshape(-1, _TAPS) for n in _kernel_names(tensors)]
    return np.ascontiguousarray(np.concatenate(rows).T) if rows else np.zeros((_TAPS, 0), "f4")


def _differs_from_identity(kernels: Array) -> Array:
    identity = np.zeros((_TAPS, 1), dtype=np.float32)
    identity[_CENTRE] = 1
    differs: Array = (kernels.view(np.int32) != identity.view(np.int32)).any(axis=0)
    return differs


def _bits(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.numpy(force=True)).view(np.int32)


def _is_bytes(array: Array) -> bool:
    return array.dtype == np.uint8 and array.ndim == 1
