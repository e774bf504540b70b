"""What an adapter file holds of an adapter: rounded once, then exact, in one way only."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from clr.core.adapter import Adapter, AdapterSpec, adapter_bytes, new_adapter, parse_adapter
from clr.core.backbone import Backbone, load_backbone
from clr.core.compress import (
    QUANTISED,
    STORAGES,
    Storage,
    check_arrays,
    compress,
    kernels_kept,
    pack,
    unpack,
)
from clr.core.files import sha256_bytes
from clr.core.images import Preprocessing
from clr.core.prune import prune, pruned_share
from clr.core.quantise import FINEST, LEVELS, read_scales
from clr.errors import ClrError, IntegrityBroken, UsageError

MakeSpec = Callable[..., AdapterSpec]
Shaken = Callable[..., Adapter]
FAST = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
IDENTITY = torch.tensor([0.0, 0, 0, 0, 1, 0, 0, 0, 0]).reshape(1, 3, 3)
VALUES = st.floats(-40, 40, width=32) | st.sampled_from([0.0, -0.0, 1.0, 1e-30, 2.0**-13])


def parts(kernels: np.ndarray, weight: np.ndarray) -> dict[str, Tensor]:
    """Return tensors of two layers and a head."""
    whole = torch.from_numpy(kernels.copy()).reshape(-1, 1, 3, 3) + IDENTITY
    return {
        "kernels.a": whole[:3],
        "kernels.b": whole[3:],
        "head.weight": torch.from_numpy(weight.copy()),
        "head.bias": torch.tensor([1 / 3, -1e-9]),
    }


TENSORS = st.builds(
    parts, arrays(np.float32, (5, 9), elements=VALUES), arrays(np.float32, (2, 7), elements=VALUES)
)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Say whether tensors are equal bit by bit."""
    return one.keys() == other.keys() and all(
        torch.equal(one[name].view(torch.int32), other[name].view(torch.int32)) for name in one
    )


def read(stored: dict[str, Any], storage: Storage, like: dict[str, Tensor]) -> dict[str, Tensor]:
    return unpack(stored, storage, {name: tuple(tensor.shape) for name, tensor in like.items()})


# ---- rounding ---------------------------------------------------------------------------


@FAST
@given(tensors=TENSORS, storage=st.sampled_from(STORAGES))
def test_what_is_compressed_is_stored_exactly_and_compressed_again_the_same(
    tensors: dict[str, Tensor], storage: Storage
) -> None:
    found = compress(tensors, storage)
    assert same(read(pack(found, storage), storage, found), found)
    assert same(compress(found, storage), found)
    if storage == "float32":
        assert same(found, tensors)


def deviations(tensors: dict[str, Tensor]) -> np.ndarray:
    """Return float64 [5, 9]: all kernels less identity."""
    whole = torch.cat([tensors["kernels.a"], tensors["kernels.b"]]) - IDENTITY
    return whole.reshape(5, 9).double().numpy()


@FAST
@given(tensors=TENSORS, storage=st.sampled_from(["int8", "int4"]))
def test_a_value_moves_by_half_a_scale_at_most(
    tensors: dict[str, Tensor], storage: Storage
) -> None:
    found = compress(tensors, storage)
    stored = pack(found, storage)
    scales = np.full(5, FINEST)  # of a kernel that is not stored: the finest there is
    kept = np.unpackbits(stored["kernels.kept"], count=5, bitorder="little").astype(bool)
    scales[kept] = read_scales(stored["kernels.scales"], QUANTISED[storage].scales)
    before = deviations(tensors)
    moved = np.abs(before - deviations(found)).max(1)
    assert (moved <= 0.5 * scales * (1 + 1e-6)).all()
    # and a scale is no coarser than the largest deviation needs, but for its own few bits
    needed = np.maximum(np.abs(before).max(1) / LEVELS[storage], FINEST)
    assert (scales[kept] <= needed[kept] * (1 + 1 / 16)).all()

    moved = (tensors["head.weight"].double() - found["head.weight"].double()).abs().amax(1).numpy()
    steps, numbers = stored["head.scales"], np.finfo(np.float32)
    # a scale that is no normal number has few bits left, or none
    least = np.where(steps < numbers.tiny, LEVELS["int8"] * numbers.smallest_subnormal, 0)
    assert (moved <= 0.5 * steps * (1 + 1e-6) + least).all()
    assert torch.equal(found["head.bias"], tensors["head.bias"])


@FAST
@given(tensors=TENSORS)
def test_ternary_kernels_are_the_nearest_but_for_the_few_bits_of_their_scales(
    tensors: dict[str, Tensor],
) -> None:
    before = deviations(tensors)
    left = ((before - deviations(compress(tensors, "ternary"))) ** 2).sum(1)
    energy = (before**2).sum(1)
    sums = np.cumsum(-np.sort(-np.abs(before), axis=1), axis=1)
    best = energy - (sums**2 / np.arange(1, 10)).max(1)  # Li et al. 2016, equation 4
    # 1/16 off in a scale costs 1/256 of what it explains
    assert (left <= best + energy / 256 + 9 * FINEST**2).all()


@FAST
@given(tensors=TENSORS)
def test_float16_moves_a_deviation_by_its_last_bit(tensors: dict[str, Tensor]) -> None:
    found = compress(tensors, "float16")
    for name in ("kernels.a", "kernels.b"):
        deviation = (tensors[name] - IDENTITY).abs()
        moved = (found[name].double() - tensors[name].double()).abs()
        assert bool((moved <= deviation * 2.0**-11 + 2.0**-24).all())


@FAST
@given(tensors=TENSORS, storage=st.sampled_from(STORAGES), which=st.sets(st.integers(0, 2)))
def test_a_kernel_at_identity_stays_identity_and_is_not_stored(
    tensors: dict[str, Tensor], storage: Storage, which: set[int]
) -> None:
    before = kernels_kept(compress(tensors, storage))
    changed = [at for at in which if kernels_kept({"kernels.a": tensors["kernels.a"][at : at + 1]})]
    tensors["kernels.a"][list(which)] = IDENTITY
    found = compress(tensors, storage)
    for at in which:
        assert torch.equal(found["kernels.a"][at], IDENTITY)
    stored = pack(found, storage)
    name = "kernels.scales" if storage in QUANTISED else "kernels.values"
    assert len(stored[name]) == kernels_kept(found) >= before - len(changed)
    assert not any(1 << at & int(stored["kernels.kept"][0]) for at in which)


@pytest.mark.parametrize("storage", sorted(QUANTISED))
def test_a_deviation_too_small_for_the_finest_scale_is_none(storage: Storage) -> None:
    tensors = parts(np.full((5, 9), 2.0**-14, np.float32), np.ones((2, 7), np.float32))
    assert kernels_kept(tensors) == 5
    assert kernels_kept(compress(tensors, storage)) == 0


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_what_diverged_is_not_compressed(value: float, storage: Storage) -> None:
    tensors = parts(np.ones((5, 9), np.float32), np.ones((2, 7), np.float32))
    tensors["kernels.b"][1, 0, 2, 2] = value
    with pytest.raises(UsageError, match=r"kernels\.b.*diverged"):
        compress(tensors, storage)


@FAST
@given(tensors=TENSORS, storage=st.sampled_from(STORAGES), data=st.data())
def test_what_was_changed_since_it_was_compressed_is_not_stored_as_if_it_were_not(
    tensors: dict[str, Tensor], storage: Storage, data: st.DataObject
) -> None:
    found = compress(tensors, storage)
    # copies, since what needs no rounding is stored from the tensors' own memory
    before = {name: array.copy() for name, array in pack(found, storage).items()}
    name = data.draw(st.sampled_from(sorted(found)))
    values = found[name].view(torch.int32).reshape(-1)
    values[data.draw(st.integers(0, len(values) - 1))] ^= 1 << data.draw(st.integers(0, 30))
    try:
        after = pack(found, storage)
    except IntegrityBroken:
        return
    assert any(not np.array_equal(before[n], after[n]) for n in before)
    assert same(read(after, storage, found), found)


# ---- the file ---------------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("variant", "batch_norm"), [("reduced", "frozen"), ("mix", "batch")])
def test_a_file_is_what_it_is_read_as(
    storage: str, variant: str, batch_norm: str, backbone: Backbone, shaken: Shaken
) -> None:
    fields = {"storage": storage, "variant": variant, "batch_norm": batch_norm}
    adapter = shaken(backbone, **fields).compressed()
    prune(adapter.tensors, 0.4)
    data = adapter_bytes(adapter)
    reversed_order = dict(reversed(adapter.tensors.items()))
    assert adapter_bytes(Adapter(adapter.spec, reversed_order)) == data
    back = parse_adapter(data, backbone, sha256_bytes(data))
    assert back.spec == adapter.spec
    assert same(back.tensors, adapter.tensors)
    assert adapter_bytes(back) == data
    assert back.added_parameters == adapter.added_parameters


def test_fewer_bits_and_fewer_kernels_make_smaller_files(
    backbone: Backbone, shaken: Shaken
) -> None:
    def size(storage: str, sparsity: float) -> int:
        adapter = shaken(backbone, storage=storage).compressed()
        prune(adapter.tensors, sparsity)
        return len(adapter_bytes(adapter))

    values = sum(
        9 * m.out_channels for m in backbone.convolutions.values() if max(m.kernel_size) > 1
    )
    sizes = [size(storage, 0) for storage in STORAGES]
    assert sizes == sorted(sizes, reverse=True)
    assert size("int8", 0) < values * 11 / 9 + 3 * (backbone.channels + 8) + 2_000
    assert size("int4", 0) < values * 5.5 / 9 + 3 * (backbone.channels + 8) + 2_000
    assert size("ternary", 0) < values * 3 / 9 + 3 * (backbone.channels / 2 + 8) + 2_000
    for storage, full in zip(STORAGES, sizes, strict=True):
        assert size(storage, 0.5) < full - 0.4 * (full - size(storage, 1))


GOLDEN = {
    "float32": "sha256:4b68ed46218d5577e1b73f52aaa88748f67dc09807b43e7c609dda0d72e87da0",
    "float16": "sha256:bb2fa006da79c236d73df323b72c9393bd7ad0aa295aa786b9322974495b69ff",
    "int8": "sha256:a3cadf10a800eebf4c096cad056e8fe914caea2b4ca4ed9c9220bc446af62179",
    "int4": "sha256:b2065a8ae790e9493a8056adb99c5e0f004722ac711069410c013545a3d62254",
    "ternary": "sha256:ca2977518249c370de864c24c52632a72896c88eb716937cbe0dac181bc3259f",
}


@pytest.mark.parametrize("storage", STORAGES)
def test_the_form_of_files_of_schema_2_is_fixed(storage: Storage) -> None:
    """A change of these bytes orphans every adapter in every registry: raise the schema."""
    backbone = load_backbone("tf_efficientnet_lite0")
    spec = AdapterSpec(
        task="golden",
        labels=("a", "b"),
        backbone=backbone.name,
        backbone_digest=backbone.digest,
        preprocessing=Preprocessing(96, backbone.mean, backbone.std),
        recipe={"epochs": 12},
        storage=storage,
        library="0.0.0",
    )
    adapter = new_adapter(spec, backbone)
    kernel = adapter.tensors["kernels.conv_stem"]
    kernel[1::3] += torch.arange(9.0).reshape(3, 3) / 16  # two of three stay identity
    kernel[4] *= -1.3
    adapter.tensors["head.weight"] += torch.linspace(-1, 1, backbone.channels)
    adapter.tensors["head.bias"] += 0.1
    assert sha256_bytes(adapter_bytes(adapter.compressed())) == GOLDEN[storage]


# ---- what is refused --------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(backbone: Backbone, shaken: Shaken) -> dict[str, bytes]:
    """One file a storage."""

    def file(storage: str) -> bytes:
        adapter = shaken(backbone, labels=("a", "b"), storage=storage).compressed()
        prune(adapter.tensors, 0.25)
        return adapter_bytes(adapter)

    return {storage: file(storage) for storage in STORAGES}


@pytest.fixture(scope="module")
def small(files: dict[str, bytes]) -> bytes:
    return files["int8"]


def rewritten(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the file with its arrays changed and its spec as it was."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    stored = {name: one.copy() for name, one in safetensors.numpy.load(data).items()}
    change(stored)
    ordered = {name: stored[name] for name in sorted(stored)}
    return safetensors.numpy.save(ordered, header["__metadata__"])


def with_spec(data: bytes, **fields: object) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    spec = json.loads(header["__metadata__"]["spec"]) | fields
    header["__metadata__"]["spec"] = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    new = json.dumps(header, separators=(",", ":")).encode()
    new += b" " * (-len(new) % 8)
    return len(new).to_bytes(8, "little") + new + data[8 + length :]


def _one_bit_more(stored: dict[str, Any]) -> None:
    bits = np.unpackbits(stored["kernels.kept"], bitorder="little")
    bits[np.flatnonzero(bits == 0)[0]] = 1
    stored["kernels.kept"] = np.packbits(bits, bitorder="little")


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no kernels": (lambda s: s.pop("kernels.codes"), r"lacks.*kernels\.codes"),
    "no scales": (lambda s: s.pop("kernels.scales"), r"lacks.*kernels\.scales"),
    "no scales of the head": (lambda s: s.pop("head.scales"), r"lacks.*head\.scales"),
    "nothing says which": (lambda s: s.pop("kernels.kept"), r"lacks.*kernels\.kept"),
    "nothing": (lambda s: s.clear(), "lacks"),
    "a tensor more": (lambda s: s.update(evil=np.ones(1)), "unknown.*evil"),
    "a dense kernel": (
        lambda s: s.update({"kernels.conv1.0": np.ones((16, 1, 3, 3), np.float32)}), "unknown"
    ),
    "codes of 16 bits": (
        lambda s: s.update({"kernels.codes": s["kernels.codes"].astype(np.int16)}), "int16"
    ),
    "codes in rows of 3": (
        lambda s: s.update({"kernels.codes": s["kernels.codes"].reshape(-1, 3)}), "codes is int8"
    ),
    "scales of 32 bits": (
        lambda s: s.update({"kernels.scales": s["kernels.scales"].astype(np.float32)}), "float32"
    ),
    "a scale less": (lambda s: s.update({"kernels.scales": s["kernels.scales"][1:]}), "scales"),
    "a head of 32 bits": (
        lambda s: s.update({"head.weight": s["head.weight"].astype(np.float32)}), r"head\.weight"
    ),
    "a row more in the head": (
        lambda s: s.update({"head.weight": np.ones((3, s["head.weight"].shape[1]), np.int8)}),
        r"head\.weight",
    ),
    "which as numbers": (
        lambda s: s.update({"kernels.kept": np.arange(9, dtype=np.int64)}), r"kernels\.kept"
    ),
    "one more than stored": (_one_bit_more, "codes"),
    "a channel beyond the last": (
        lambda s: s.update({"kernels.kept": np.append(s["kernels.kept"], np.uint8(0))}),
        r"kernels\.kept",
    ),
    "NaN as scale": (lambda s: s["kernels.scales"].__setitem__(0, np.nan), "not finite"),
    "infinite scale": (lambda s: s["kernels.scales"].__setitem__(0, np.inf), "not finite"),
    "NaN as scale of the head": (lambda s: s["head.scales"].__setitem__(0, np.nan), "not finite"),
    "NaN as bias": (lambda s: s["head.bias"].__setitem__(0, np.nan), "not finite"),
    "negative scale": (lambda s: np.negative(s["kernels.scales"], s["kernels.scales"]), "another"),
    "a scale of zero": (lambda s: s["kernels.scales"].__setitem__(0, 0), "another"),
    "a code beyond the last": (lambda s: s["kernels.codes"].__setitem__((0, 0), -128), "another"),
    "identity stored": (lambda s: s["kernels.codes"].__setitem__(0, 0), "another"),
    "codes smaller than they need be": (
        lambda s: np.floor_divide(s["kernels.codes"], 2, s["kernels.codes"]), "another"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_arrays_must_be_exactly_those_of_its_kind_and_in_the_one_way(
    fault: str, small: bytes, backbone: Backbone
) -> None:
    change, says = FAULTS[fault]
    assert rewritten(small, lambda s: None) == small
    with pytest.raises(IntegrityBroken, match=says):
        parse_adapter(rewritten(small, change), backbone)


def test_a_channel_beyond_the_last_within_the_last_byte_is_refused() -> None:
    """Where the number of channels is no multiple of eight, some bits stand for nothing."""
    tensors = compress(parts(np.ones((5, 9), np.float32), np.ones((2, 7), np.float32)), "int8")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    stored = pack(tensors, "int8")
    check_arrays(stored, "int8", shapes)
    stored["kernels.kept"][0] |= 1 << 5
    for name in ("kernels.codes", "kernels.scales"):
        stored[name] = np.concatenate([stored[name], stored[name][-1:]])
    with pytest.raises(IntegrityBroken, match="others than the 5 kernels"):
        check_arrays(stored, "int8", shapes)


@pytest.mark.parametrize(
    "fields",
    [{"storage": "int4"}, {"storage": "float32"}, {"storage": None}, {"storage": ["int8"]},
     {"schema": "clr.adapter/1"}, {"schema": "clr.adapter/3"}, {"variant": "full"},
     {"labels": ["a", "b", "c"]}, {"batch_norm": "affine"}],
    ids=str,
)  # fmt: skip
def test_a_spec_of_another_form_than_the_arrays_is_refused(
    fields: dict[str, object], small: bytes, backbone: Backbone
) -> None:
    assert with_spec(small) == small
    with pytest.raises(IntegrityBroken):
        parse_adapter(with_spec(small, **fields), backbone)


def test_what_was_never_compressed_has_no_file(backbone: Backbone, shaken: Shaken) -> None:
    with pytest.raises(IntegrityBroken, match="int4 does not hold"):
        adapter_bytes(shaken(backbone, storage="int4"))


@pytest.mark.parametrize("storage", STORAGES)
@FAST
@given(data=st.data())
def test_a_changed_file_is_refused_or_is_the_file_of_what_it_is_read_as(
    storage: str, data: st.DataObject, backbone: Backbone, files: dict[str, bytes]
) -> None:
    raw = bytearray(files[storage])
    header = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.sampled_from([0, header]))
        at = data.draw(st.integers(start, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    try:
        found = parse_adapter(bytes(raw), backbone)
    except ClrError:
        return
    assert adapter_bytes(found) == raw


# ---- pruning ----------------------------------------------------------------------------


@FAST
@given(tensors=TENSORS, share=st.floats(0, 1))
def test_those_that_deviate_least_are_pruned_and_no_others_touched(
    tensors: dict[str, Tensor], share: float
) -> None:
    before = torch.cat([tensors["kernels.a"], tensors["kernels.b"]]).clone()
    others = {n: t.clone() for n, t in tensors.items() if n.startswith("head.")}
    prune(tensors, share)
    after = torch.cat([tensors["kernels.a"], tensors["kernels.b"]])
    deviation = (before - IDENTITY).flatten(1).norm(dim=1)
    gone = (after == IDENTITY).flatten(1).all(1)
    assert int(gone.sum()) >= int(share * 5)
    assert torch.equal(after[~gone], before[~gone])
    if 0 < int(gone.sum()) < 5:
        assert float(deviation[gone].max()) <= float(deviation[~gone].min())
    assert all(torch.equal(tensors[n], t) for n, t in others.items())


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.99))
def test_the_pruned_share_rises_to_the_sparsity_and_stays(
    early: float, late: float, sparsity: float
) -> None:
    early, late = sorted((early, late))
    assert 0 <= pruned_share(early, sparsity) <= pruned_share(late, sparsity) <= sparsity
    assert pruned_share(0, sparsity) == 0
    assert pruned_share(0.999, sparsity) == sparsity


def test_another_storage_does_not_change_what_an_adapter_is_for(
    backbone: Backbone, make_spec: MakeSpec
) -> None:
    start = new_adapter(make_spec(backbone), backbone)
    small = Adapter(replace(start.spec, storage="int4"), start.tensors).compressed()
    assert same(small.tensors, start.tensors)  # identity and zeros: nothing to round
    assert len(adapter_bytes(small)) < len(adapter_bytes(start))
