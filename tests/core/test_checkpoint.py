"""The state of an unfinished training: whole and trusted, or not used at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clr.core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from clr.core.files import sha256_bytes

KEY = "sha256:" + "a" * 64


@pytest.fixture
def whole() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(
        tensors={"kernels.a": torch.randn(4, 1, 3, 3).requires_grad_(), "head.bias": torch.ones(2)},
        moments={"kernels.a/exp_avg": torch.randn(4, 1, 3, 3), "kernels.a/step": torch.tensor(7.0)},
        history=({"val_loss": 0.1 + 0.2}, {"val_loss": 1 / 3, "train_loss": 1e-300}),
    )


@pytest.fixture
def path(tmp_path: Path, whole: Checkpoint) -> Path:
    save_checkpoint(whole, tmp_path / "training" / "state", KEY)
    return tmp_path / "training" / "state"


def test_it_reads_back_bit_for_bit(path: Path, whole: Checkpoint) -> None:
    back = load_checkpoint(path, KEY)
    assert back is not None
    assert back.history == whole.history
    pairs = (
        (whole.tensors, back.tensors),
        (whole.moments, back.moments),
    )
    for mine, theirs in pairs:
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(theirs[n], t.detach()) for n, t in mine.items())
        assert all(theirs[n].shape == t.shape for n, t in mine.items())


def test_none_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "absent", KEY) is None
    assert load_checkpoint(tmp_path, KEY) is None


def test_that_of_another_training_is_not_used(path: Path) -> None:
    assert load_checkpoint(path, "sha256:" + "b" * 64) is None


def test_every_flipped_byte_and_every_cut_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert load_checkpoint(path, KEY) is None
        path.write_bytes(data[:at])
        assert load_checkpoint(path, KEY) is None
    path.write_bytes(data)
    assert load_checkpoint(path, KEY) is not None


def resealed(data: bytes) -> bytes:
    """Put the right digest before other content, as a foreign program might."""
    return sha256_bytes(data).encode() + data


@pytest.mark.parametrize(
    "about",
    [
        None, "text", {}, {"key": KEY}, {"key": KEY, "history": 3}, {"key": [KEY]}, [KEY], 7,
    ],
    ids=str,
)  # fmt: skip
def test_a_sealed_file_of_another_form_is_not_used(about: object, tmp_path: Path) -> None:
    path = tmp_path / "state"
    metadata = {"about": json.dumps(about)}
    path.write_bytes(resealed(safetensors.torch.save({"now:a": torch.ones(2)}, metadata)))
    assert load_checkpoint(path, KEY) is None


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_no_file_raises(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state"
    for content in (data, resealed(data)):
        path.write_bytes(content)
        assert load_checkpoint(path, KEY) is None
