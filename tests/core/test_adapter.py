"""The adapter file: equal adapters give equal bytes, and nothing hostile is loaded."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clr.core.adapter import (
    Adapter,
    AdapterSpec,
    adapter_bytes,
    load_adapter,
    new_adapter,
    parse_adapter,
    save_adapter,
    shapes,
)
from clr.core.backbone import Backbone, load_backbone
from clr.core.files import canonical_json, sha256_bytes
from clr.core.images import Preprocessing
from clr.errors import ClrError, IntegrityBroken, UsageError

MakeSpec = Callable[..., AdapterSpec]
Shaken = Callable[..., Adapter]
KINDS = [(v, b) for v in ("reduced", "full", "mix") for b in ("frozen", "affine", "batch")]


# ---- what it is made of -----------------------------------------------------------------


def test_after_each_spatial_convolution_there_is_one_kernel_a_channel(
    backbone: Backbone, make_spec: MakeSpec
) -> None:
    adapter = new_adapter(make_spec(backbone), backbone)
    spatial = {p: m for p, m in backbone.convolutions.items() if max(m.kernel_size) > 1}
    for path, convolution in spatial.items():
        kernel = adapter.tensors[f"kernels.{path}"]
        assert kernel.shape == (convolution.out_channels, 1, 3, 3)
        identity = torch.zeros(3, 3)
        identity[1, 1] = 1
        assert torch.equal(kernel, identity.expand_as(kernel))
    assert set(adapter.tensors) == {f"kernels.{p}" for p in spatial} | {"head.weight", "head.bias"}


def test_kernels_count_as_added_once_they_differ_from_identity(
    backbone: Backbone, make_spec: MakeSpec, shaken: Shaken
) -> None:
    spatial = [m for m in backbone.convolutions.values() if max(m.kernel_size) > 1]
    every = sum(9 * m.out_channels for m in spatial)
    assert new_adapter(make_spec(backbone), backbone).added_parameters == 0
    adapter = shaken(backbone)
    assert adapter.added_parameters == every
    adapter.tensors["kernels.conv1.0"][:3] = new_adapter(adapter.spec, backbone).tensors[
        "kernels.conv1.0"
    ][:3]
    assert adapter.added_parameters == every - 27
    dense = new_adapter(make_spec(backbone, schema="clr.adapter/1"), backbone)
    assert dense.added_parameters == every  # its file holds them all


def test_full_adds_pointwise_convolutions_but_not_those_on_a_single_pixel(
    load: Callable[[str], Backbone], make_spec: MakeSpec
) -> None:
    backbone = load("test_efficientnet")  # with squeeze-and-excitation
    names = shapes(make_spec(backbone, variant="full"), backbone)
    assert any("conv_pw" in name for name in names)
    assert not [name for name in names if ".se." in name]


def test_mix_adds_a_low_rank_mixing_that_starts_at_nothing(
    backbone: Backbone, make_spec: MakeSpec
) -> None:
    adapter = new_adapter(make_spec(backbone, variant="mix", rank=3), backbone)
    downs = {n: t for n, t in adapter.tensors.items() if n.endswith(".down")}
    ups = {n: t for n, t in adapter.tensors.items() if n.endswith(".up")}
    assert len(downs) == len(ups) > 0
    assert all(t.shape[0] == 3 and bool(t.any()) for t in downs.values())
    assert all(t.shape[1] == 3 and not bool(t.any()) for t in ups.values())


@pytest.mark.parametrize("batch_norm", ["affine", "batch"])
def test_a_task_s_own_batch_norm_starts_as_a_copy_of_the_backbone_s(
    batch_norm: str, backbone: Backbone, make_spec: MakeSpec
) -> None:
    adapter = new_adapter(make_spec(backbone, batch_norm=batch_norm), backbone)
    own = {n.removeprefix("bn."): t for n, t in adapter.tensors.items() if n.startswith("bn.")}
    state = backbone.module.state_dict()
    assert len(own) == 4 * sum(n.endswith("running_mean") for n in state)
    for name, tensor in own.items():
        assert torch.equal(tensor, state[name])
        assert tensor.data_ptr() != state[name].data_ptr()


def test_a_backbone_without_batch_norm_cannot_have_one_a_task(
    load: Callable[[str], Backbone], make_spec: MakeSpec
) -> None:
    backbone = load("test_convnext")
    with pytest.raises(UsageError, match="no batch norm"):
        new_adapter(make_spec(backbone, batch_norm="affine"), backbone)


def test_a_given_head_is_copied(backbone: Backbone, make_spec: MakeSpec) -> None:
    weight, bias = torch.ones(3, backbone.channels), torch.ones(3)
    adapter = new_adapter(make_spec(backbone), backbone, (weight, bias))
    weight.zero_()
    assert bool(adapter.tensors["head.weight"].all())


@pytest.mark.parametrize("shape", [(2, 96), (3, 95)])
def test_a_head_of_the_wrong_size_is_refused(
    shape: tuple[int, int], backbone: Backbone, make_spec: MakeSpec
) -> None:
    with pytest.raises(IntegrityBroken, match=r"head\.weight"):
        new_adapter(make_spec(backbone), backbone, (torch.zeros(shape), torch.zeros(3)))


@pytest.mark.parametrize(
    "fields",
    [{"task": "Parts"}, {"task": ""}, {"task": "-a"}, {"task": "a" * 64}, {"task": "a/b"},
     {"task": 7}, {"labels": ("one",)}, {"labels": ()}, {"labels": ("a", "a")}, {"labels": "ab"},
     {"labels": (1, 2)}, {"labels": None}, {"variant": "half"}, {"batch_norm": "off"},
     {"rank": 0}, {"rank": 65}, {"rank": 2.5}, {"rank": True}, {"preprocessing": None},
     {"recipe": [1]}, {"backbone": 3}, {"library": None}, {"storage": "int2"}, {"storage": None},
     {"schema": "clr.adapter/3"}, {"schema": "clr.adapter/1", "storage": "int8"}],
    ids=str,
)  # fmt: skip
def test_a_spec_that_makes_no_sense_is_refused(
    fields: dict[str, Any], backbone: Backbone, make_spec: MakeSpec
) -> None:
    with pytest.raises(UsageError):
        make_spec(backbone, **fields)


# ---- the file ---------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "batch_norm"), KINDS)
def test_a_file_reads_back_as_what_was_written(
    variant: str, batch_norm: str, backbone: Backbone, shaken: Shaken, tmp_path: Path
) -> None:
    adapter = shaken(
        backbone, variant=variant, batch_norm=batch_norm, recipe={"epochs": 3, "seed": 0}
    )
    path = tmp_path / "adapter.safetensors"
    digest = save_adapter(adapter, path)
    assert digest == sha256_bytes(path.read_bytes())
    back = load_adapter(path, backbone, digest)
    assert back.spec == adapter.spec
    assert back.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(back.tensors[n], t) for n, t in adapter.tensors.items())


def test_equal_adapters_give_equal_bytes_whatever_the_order_and_layout(
    backbone: Backbone, shaken: Shaken
) -> None:
    adapter = shaken(backbone)
    same = {
        name: tensor.clone().to(memory_format=torch.channels_last).requires_grad_()
        if tensor.ndim == 4
        else tensor.clone()
        for name, tensor in reversed(adapter.tensors.items())
    }
    assert adapter_bytes(Adapter(adapter.spec, same)) == adapter_bytes(adapter)


def test_the_form_of_files_of_schema_1_is_fixed() -> None:
    """A change of these bytes orphans every adapter in every registry: raise the schema."""
    backbone = load_backbone("tf_efficientnet_lite0")
    spec = AdapterSpec(
        task="golden",
        labels=("a", "b"),
        backbone=backbone.name,
        backbone_digest=backbone.digest,
        preprocessing=Preprocessing(96, backbone.mean, backbone.std),
        recipe={"epochs": 12},
        library="0.0.0",
        schema="clr.adapter/1",
    )
    assert sha256_bytes(adapter_bytes(new_adapter(spec, backbone))) == (
        "sha256:90b766f931880a5632d0372e80893cf0b1c0497ffbf9ba30c896b3faeac6a6e6"
    )


def test_the_file_is_small(backbone: Backbone, shaken: Shaken) -> None:
    adapter = shaken(backbone)
    values = sum(t.numel() for t in adapter.tensors.values())
    assert len(adapter_bytes(adapter)) < 4 * values + 8_000


# ---- what is refused --------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(backbone: Backbone, shaken: Shaken) -> bytes:
    """An adapter file of schema 1; for those of schema 2 see test_compress.py."""
    return adapter_bytes(shaken(backbone, labels=("a", "b"), schema="clr.adapter/1"))


def rewritten(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the file with its spec changed and all else as it was."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    spec = json.loads(header["__metadata__"]["spec"])
    change(spec)
    header["__metadata__"]["spec"] = json.dumps(spec)
    new = json.dumps(header).encode()
    return len(new).to_bytes(8, "little") + new + data[8 + length :]


def with_tensors(data: bytes, change: Callable[[dict[str, torch.Tensor]], object]) -> bytes:
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    tensors = safetensors.torch.load(data)
    change(tensors)
    return safetensors.torch.save(tensors, metadata)


def test_every_flipped_byte_is_noticed_where_the_digest_is_known(
    small: bytes, backbone: Backbone
) -> None:
    digest = sha256_bytes(small)
    raw = bytearray(small)
    noticed = 0
    for at in range(len(raw)):
        raw[at] ^= 1 << at % 8
        try:
            parse_adapter(bytes(raw), backbone, digest)
        except IntegrityBroken:
            noticed += 1
        raw[at] ^= 1 << at % 8
    assert noticed == len(raw)
    parse_adapter(bytes(raw), backbone, digest)


@pytest.mark.parametrize("digest", ["", "sha256:", "0" * 64])
def test_no_digest_is_not_a_digest(digest: str, small: bytes, backbone: Backbone) -> None:
    with pytest.raises(IntegrityBroken):
        parse_adapter(small, backbone, digest)


TENSOR_FAULTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing kernel": (lambda t: t.pop("kernels.conv1.0"), r"lacks.*kernels\.conv1\.0"),
    "missing head": (lambda t: t.pop("head.bias"), r"lacks.*head\.bias"),
    "extra": (lambda t: t.update(evil=torch.ones(1)), "unknown.*evil"),
    "unasked batch norm": (
        lambda t: t.update({"bn.conv1.1.weight": torch.ones(16)}), "unknown.*bn"
    ),
    "wrong shape": (lambda t: t.update({"head.weight": torch.ones(3, 96)}), r"head\.weight"),
    "wrong size of kernel": (
        lambda t: t.update({"kernels.conv1.0": torch.ones(16, 1, 5, 5)}), r"kernels\.conv1\.0"
    ),
    "double precision": (
        lambda t: t.update({"head.bias": torch.ones(2, dtype=torch.float64)}), "float64"
    ),
    "half precision": (lambda t: t.update({"head.bias": torch.ones(2).half()}), "float16"),
    "NaN": (lambda t: t["head.bias"].__setitem__(0, float("nan")), "not finite"),
    "infinity": (lambda t: t["kernels.conv1.0"].fill_(float("inf")), "not finite"),
    "all missing": (lambda t: t.clear(), "lacks"),
}  # fmt: skip


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_tensors_must_be_exactly_those_of_its_kind(
    fault: str, small: bytes, backbone: Backbone
) -> None:
    change, says = TENSOR_FAULTS[fault]
    with pytest.raises(IntegrityBroken, match=says):
        parse_adapter(with_tensors(small, change), backbone)


SPEC_FAULTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "unknown schema": lambda s: s.update(schema="clr.adapter/3"),
    "schema 2 with tensors of schema 1": lambda s: s.update(
        schema="clr.adapter/2", storage="float32"
    ),
    "storage in schema 1": lambda s: s.update(storage="float32"),
    "no schema": lambda s: s.pop("schema"),
    "schema of another type": lambda s: s.update(schema=["clr.adapter/1"]),
    "unknown field": lambda s: s.update(code="import os"),
    "missing field": lambda s: s.pop("labels"),
    "no preprocessing": lambda s: s.update(preprocessing=None),
    "NaN in the preprocessing": lambda s: s["preprocessing"].update(mean=[float("nan"), 0, 0]),
    "huge input": lambda s: s["preprocessing"].update(size=10**9),
    "text as size": lambda s: s["preprocessing"].update(size="32"),
    "labels that cannot be hashed": lambda s: s.update(labels=[[1], [2]]),
    "labels as text": lambda s: s.update(labels="ab"),
    "task out of its folder": lambda s: s.update(task="../parts"),
    "other variant": lambda s: s.update(variant="full"),
    "other batch norm": lambda s: s.update(batch_norm="batch"),
    "one label more": lambda s: s["labels"].append("c"),
    "huge rank": lambda s: s.update(variant="mix", rank=10**12),
}


@pytest.mark.parametrize("fault", SPEC_FAULTS)
def test_the_spec_must_be_whole_and_true(fault: str, small: bytes, backbone: Backbone) -> None:
    with pytest.raises(IntegrityBroken):
        parse_adapter(rewritten(small, SPEC_FAULTS[fault]), backbone)


def test_a_later_schema_says_what_this_version_reads(small: bytes, backbone: Backbone) -> None:
    data = rewritten(small, lambda s: s.update(schema="clr.adapter/9"))
    with pytest.raises(IntegrityBroken, match=r"clr\.adapter/9.*reads clr\.adapter/1 and .*/2"):
        parse_adapter(data, backbone)


def test_an_adapter_of_another_backbone_is_refused(
    small: bytes, load: Callable[[str], Backbone], backbone: Backbone
) -> None:
    with pytest.raises(IntegrityBroken, match=r"test_resnet.*not on test_convnext"):
        parse_adapter(small, load("test_convnext"))
    retrained = replace(backbone, digest="sha256:" + "0" * 64)
    with pytest.raises(IntegrityBroken, match="trained on"):
        parse_adapter(small, retrained)


@pytest.mark.parametrize("name", ["absent.safetensors", "."])
def test_what_cannot_be_read_is_a_usage_error(
    name: str, tmp_path: Path, backbone: Backbone
) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_adapter(tmp_path / name, backbone)


def test_a_refusal_names_the_file(small: bytes, tmp_path: Path, backbone: Backbone) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(small[:-1])
    with pytest.raises(IntegrityBroken, match=r"cut\.safetensors"):
        load_adapter(path, backbone)


# ---- anything at all --------------------------------------------------------------------

FUZZ = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def only_our_own_errors(data: bytes, backbone: Backbone) -> None:
    with contextlib.suppress(ClrError):
        parse_adapter(data, backbone)


@FUZZ
@given(data=st.binary(max_size=200), length=st.integers(0, 2**64 - 1) | st.integers(0, 100))
def test_random_bytes_raise_only_our_own_errors(
    data: bytes, length: int, backbone: Backbone
) -> None:
    only_our_own_errors(data, backbone)
    only_our_own_errors(length.to_bytes(8, "little") + data, backbone)


@FUZZ
@given(data=st.data())
def test_a_changed_header_raises_only_our_own_errors(
    data: st.DataObject, small: bytes, backbone: Backbone
) -> None:
    raw = bytearray(small)
    header = 8 + int.from_bytes(small[:8], "little")
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, min(header, len(raw)) - 1))
        if data.draw(st.booleans()):
            raw[at] = data.draw(st.integers(0, 255))
        else:
            del raw[at : at + data.draw(st.integers(1, 20))]
    only_our_own_errors(bytes(raw), backbone)


@FUZZ
@given(
    field=st.sampled_from(
        ["task", "labels", "backbone", "backbone_digest", "preprocessing", "variant",
         "batch_norm", "rank", "recipe", "library", "schema", "new"]
    ),
    value=ANY_JSON,
)  # fmt: skip
def test_any_value_of_a_field_raises_only_our_own_errors(
    field: str, value: object, small: bytes, backbone: Backbone
) -> None:
    only_our_own_errors(rewritten(small, lambda spec: spec.update({field: value})), backbone)


@FUZZ
@given(field=st.sampled_from(["size", "mean", "std", "interpolation"]), value=ANY_JSON)
def test_any_preprocessing_raises_only_our_own_errors(
    field: str, value: object, small: bytes, backbone: Backbone
) -> None:
    data = rewritten(small, lambda spec: spec["preprocessing"].update({field: value}))
    only_our_own_errors(data, backbone)


@FUZZ
@given(metadata=ANY_JSON)
def test_any_metadata_raises_only_our_own_errors(
    metadata: object, small: bytes, backbone: Backbone
) -> None:
    for header in (metadata, {"__metadata__": metadata}, {"__metadata__": {"spec": metadata}},
                   {"__metadata__": {"spec": json.dumps(metadata)}}):  # fmt: skip
        text = json.dumps(header).encode()
        only_our_own_errors(len(text).to_bytes(8, "little") + text, backbone)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"__metadata__":{"spec":"' + b"[" * 50_000])
def test_endless_nesting_is_refused(opening: bytes, backbone: Backbone) -> None:
    text = opening * 100_000 if len(opening) < 10 else opening + b'"}}'
    with pytest.raises(IntegrityBroken):
        parse_adapter(len(text).to_bytes(8, "little") + text, backbone)


def test_a_spec_is_kept_as_canonical_json(small: bytes) -> None:
    length = int.from_bytes(small[:8], "little")
    text = json.loads(small[8 : 8 + length])["__metadata__"]["spec"]
    assert canonical_json(json.loads(text)).decode() == text
