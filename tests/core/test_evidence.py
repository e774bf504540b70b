"""What is recorded of an adapter: the digest of what is attached, and the evidence file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clr.core.adapter import Adapter, load_adapter, save_adapter
from clr.core.backbone import Backbone
from clr.core.compress import STORAGES
from clr.core.described import describe
from clr.core.evidence import Evidence, attached_digest, parse_evidence
from clr.core.files import sha256_bytes
from clr.core.network import ReprogrammedNetwork
from clr.errors import IntegrityBroken
from tests.core.test_adapter import KINDS

PARTS = '{"schema": "clr.evidence/1", "task": "parts"}'
Shaken = Callable[..., Adapter]


@pytest.mark.parametrize(
    ("variant", "batch_norm", "storage"),
    [*((*kind, "float32") for kind in KINDS), *(("mix", "batch", one) for one in STORAGES)],
)
def test_what_is_attached_has_the_digest_of_its_file_until_one_bit_of_it_changes(
    variant: str,
    batch_norm: str,
    storage: str,
    backbone: Backbone,
    shaken: Shaken,
    tmp_path: Path,
) -> None:
    recipe = {"rate": 0.1, "by": [1]}
    made = shaken(
        backbone, variant=variant, batch_norm=batch_norm, storage=storage, recipe=recipe
    ).compressed()
    digest = save_adapter(made, tmp_path / "adapter.safetensors")
    network = ReprogrammedNetwork(backbone)
    network.attach(load_adapter(tmp_path / "adapter.safetensors", backbone, digest), "parts")
    assert attached_digest(network, "parts") == digest
    for tensor in network.adapter("parts").tensors.values():
        bits = tensor.view(torch.int32).reshape(-1)
        bits[-1] ^= 1
        assert attached_digest(network, "parts") != digest
        bits[-1] ^= 1
    assert attached_digest(network, "parts") == digest


@pytest.mark.parametrize("images", [60, 200])
def test_an_evidence_file_holds_what_the_router_calibrates_by(images: int) -> None:
    """Too few images for it: the file has the form, and the bytes, of earlier versions."""
    generator = np.random.default_rng(0)
    features = generator.normal(0, 0.1, (images, 8)).astype(np.float32)
    described = describe(features, np.arange(images) % 2, 2)
    answers = np.zeros(3, dtype=np.int64)
    made = Evidence(
        {"task": "parts"}, answers, answers, answers, features[:3], described,
        np.zeros((2, 2), np.float32),
    )  # fmt: skip
    data = made.to_bytes()
    read = parse_evidence(data, sha256_bytes(data))
    assert read.described.digest == described.digest
    assert (read.described.calibration is None) == (images == 60)
    assert (b"calibration" in data) == (images == 200)
    assert read.to_bytes() == data
    assert read.confidence is None
    assert b"confidence" not in data
    sure = np.array([0.5, 1.0, 0.25], np.float32)
    data = replace(made, confidence=sure).to_bytes()
    assert (parse_evidence(data, sha256_bytes(data)).confidence == sure).all()


def described_as(header: object, rest: bytes = b"") -> bytes:
    data = json.dumps(header).encode()
    return len(data).to_bytes(8, "little") + data + rest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not evidence",
        described_as([]),
        described_as({"__metadata__": {"about": "[]"}}),
        described_as({"__metadata__": {"about": '{"schema": "clr.evidence/1"}'}}),
        described_as({"__metadata__": {"about": PARTS}}, b"junk"),
        described_as({"__metadata__": {"about": PARTS}, "labels": 3}),
        described_as({"__metadata__": {"about": "[" * 100_000}}),
    ],
    ids=range(8),
)
def test_whatever_is_no_evidence_is_broken(data: bytes) -> None:
    with pytest.raises(IntegrityBroken, match="not of the form"):
        parse_evidence(data, sha256_bytes(data))


@pytest.mark.parametrize("wrong", [[0.5, 1.0], [0.5, 1.0, 1.1], [0.5, -0.1, 1.0], [np.nan] * 3])
def test_confidences_are_a_probability_an_item(wrong: list[float]) -> None:
    answers = np.zeros(3, dtype=np.int64)
    nothing = np.zeros((3, 8), np.float32)
    with pytest.raises(IntegrityBroken, match="one probability an item"):
        Evidence(
            {"task": "parts"}, answers, answers, answers, nothing, None,
            np.zeros((2, 2), np.float32), np.array(wrong, np.float32),
        )  # fmt: skip
