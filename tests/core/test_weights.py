"""Checkpoint files: of many training programs, pinned, and never able to run code."""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clr.core.backbone import Backbone, load_backbone
from clr.core.files import sha256_file
from clr.core.weights import fit_state, read_state
from clr.errors import ClrError, IntegrityBroken, UsageError

ARCHITECTURE = "test_resnet"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def trained() -> State:
    """What a training program would save: a network with its head, unlike any seeded one."""
    torch.manual_seed(99)
    return timm.create_model(ARCHITECTURE, pretrained=False).state_dict()


@pytest.fixture(scope="module")
def other() -> State:
    """A second network, such as a momentum encoder or a student."""
    torch.manual_seed(98)
    return timm.create_model(ARCHITECTURE, pretrained=False).state_dict()


def load(path: Path, sha256: str | None = None) -> Backbone:
    pin = sha256_file(path) if sha256 is None else sha256
    return load_backbone(f"file:{path}", architecture=ARCHITECTURE, sha256=pin)


def saved(value: Any, path: Path, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def body(state: State, prefix: str) -> State:
    return {prefix + name: t for name, t in state.items() if not name.startswith("fc.")}


def head(prefix: str) -> State:
    return {f"{prefix}.weight": torch.ones(7, 5), f"{prefix}.bias": torch.ones(7)}


def namespace() -> argparse.Namespace:
    return argparse.Namespace(arch="resnet50", lr=0.1, crops=(8, 2), output_dir=".")


LAYOUTS: dict[str, Callable[[State, State], Any]] = {
    "supervised": lambda a, b: a,
    "supervised, in a training state": lambda a, b: {
        "state_dict": a, "epoch": 90, "arch": "resnet50", "optimizer": {"lr": 0.1, "state": {}},
    },
    "model": lambda a, b: {"model": a, "args": namespace()},
    "DataParallel": lambda a, b: {"state_dict": {"module." + n: t for n, t in a.items()}},
    "DINO": lambda a, b: {
        "student": body(b, "module.backbone.") | head("module.head.last_layer"),
        "teacher": body(a, "backbone.") | head("head.last_layer"),
        "args": namespace(),
        "epoch": 100,
    },
    "DINO, backbone alone": lambda a, b: body(a, ""),
    "SwAV": lambda a, b: body(a, "module.") | head("module.projection_head.0")
    | head("module.prototypes"),
    "MoCo": lambda a, b: {
        "state_dict": body(b, "module.encoder_k.") | head("module.encoder_k.fc.0")
        | body(a, "module.encoder_q.") | head("module.encoder_q.fc.0")
        | {"module.queue": torch.ones(5, 8)},
    },
    "both of DINO's in one": lambda a, b: {
        "state_dict": body(b, "student.backbone.") | body(a, "teacher.backbone."),
    },
    "half precision": lambda a, b: {n: t.half() if t.is_floating_point() else t
                                    for n, t in a.items()},
    "without batch counters": lambda a, b: {n: t for n, t in a.items()
                                            if not n.endswith("num_batches_tracked")},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_the_backbone_is_found_in_the_layout_of(
    layout: str, zipped: bool, trained: State, other: State, tmp_path: Path
) -> None:
    made = LAYOUTS[layout](trained, other)
    path = saved(made, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    backbone = load(path)
    exact = layout != "half precision"
    for name, tensor in backbone.module.state_dict().items():
        wanted = trained[name] if exact else trained[name].half().to(trained[name].dtype)
        assert torch.equal(tensor, wanted), name
    assert backbone.source == f"file:{path}"
    assert (backbone.architecture, backbone.sha256) == (ARCHITECTURE, sha256_file(path))
    assert not backbone.module.training


def test_a_safetensors_file_is_read_too(trained: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(trained, path)
    assert torch.equal(load(path).module.state_dict()["conv1.0.weight"], trained["conv1.0.weight"])


def test_what_was_not_used_is_named(trained: State, other: State, tmp_path: Path) -> None:
    path = saved(LAYOUTS["SwAV"](trained, other), tmp_path / "swav.pth.tar")
    assert load(path).unused == (
        "module.projection_head.0.bias", "module.projection_head.0.weight",
        "module.prototypes.bias", "module.prototypes.weight",
    )  # fmt: skip


def test_the_digest_is_that_of_the_weights_whatever_the_layout(
    trained: State, other: State, tmp_path: Path
) -> None:
    digests = {
        load(saved(LAYOUTS[layout](trained, other), tmp_path / layout)).digest
        for layout in ("supervised", "DataParallel", "DINO", "SwAV", "MoCo")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("layout", ["supervised", "DataParallel", "DINO", "SwAV", "MoCo"])
def test_another_file_than_the_pinned_one_is_refused(
    layout: str, trained: State, other: State, tmp_path: Path
) -> None:
    path = saved(LAYOUTS[layout](trained, other), tmp_path / "weights.pth")
    with pytest.raises(IntegrityBroken, match="not the pinned"):
        load(path, "sha256:" + "0" * 64)
    with pytest.raises(UsageError, match="not pinned"):
        load(path, "")


def test_a_pin_is_the_digest_with_or_without_its_name_in_any_case(
    trained: State, tmp_path: Path
) -> None:
    path = saved(trained, tmp_path / "weights.pth")
    pin = sha256_file(path).removeprefix("sha256:")
    for same in (pin, pin.upper(), "sha256:" + pin):
        assert load(path, same).digest


def test_one_flipped_bit_in_the_file_is_noticed(trained: State, tmp_path: Path) -> None:
    path = saved(trained, tmp_path / "weights.pth")
    pin, data = sha256_file(path), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityBroken, match="not the pinned"):
        load(path, pin)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def plain_pickle(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


def legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def bomb_in_zip(value: Any, path: Path) -> None:
    """Replace the pickle inside a whole file of torch's by a hostile one."""
    torch.save({"a": torch.ones(3)}, path)
    with zipfile.ZipFile(path) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, data in parts.items():
            file.writestr(
                name, pickle.dumps(value, protocol=2) if name.endswith("data.pkl") else data
            )


@pytest.mark.parametrize("write", [torch.save, legacy, plain_pickle, bomb_in_zip])
@pytest.mark.parametrize("where", ["alone", "beside the weights", "as a key's value"])
@pytest.mark.parametrize("forced", [False, True], ids=["", "even where torch is told otherwise"])
def test_a_file_with_code_in_it_is_refused_and_never_run(
    write: Callable[[Any, Path], None],
    where: str,
    forced: bool,
    trained: State,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trace = tmp_path / "executed"
    bomb = Bomb(trace)
    values = {
        "alone": bomb,
        "beside the weights": trained | {"zz": bomb},
        "as a key's value": {"state_dict": trained, "args": argparse.Namespace(x=bomb)},
    }
    path = tmp_path / "bomb.pth"
    write(values[where], path)
    with pytest.raises(IntegrityBroken, match="not loaded"):
        load(path)
    assert not trace.exists()


def test_the_bomb_of_these_tests_does_go_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    path = saved(timm.create_model(ARCHITECTURE), tmp_path / "model.pth")
    with pytest.raises(IntegrityBroken, match="Files that hold code are refused"):
        load(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["layer1.0.conv1.weight", "layer1.0.bn1.running_var"])
def test_weights_that_are_not_finite_are_refused(
    bad: float, name: str, trained: State, tmp_path: Path
) -> None:
    broken = {n: t.clone() for n, t in trained.items()}
    broken[name].view(-1)[-1] = bad
    with pytest.raises(IntegrityBroken, match=f"not finite in {name}"):
        load(saved(broken, tmp_path / "weights.pth"))


def test_a_missing_tensor_is_named(trained: State, tmp_path: Path) -> None:
    path = saved({n: t for n, t in trained.items() if n != "layer2.0.conv1.weight"},
                 tmp_path / "weights.pth")  # fmt: skip
    with pytest.raises(IntegrityBroken, match=r"lacks 1 of \d+ .*layer2\.0\.conv1\.weight"):
        load(path)


def test_a_tensor_of_another_shape_is_named(trained: State, tmp_path: Path) -> None:
    path = saved(trained | {"layer2.0.conv1.weight": torch.ones(3, 3)}, tmp_path / "weights.pth")
    with pytest.raises(IntegrityBroken, match=r"layer2\.0\.conv1\.weight has shape \[3, 3\]"):
        load(path)


def test_weights_of_another_architecture_are_refused(trained: State, tmp_path: Path) -> None:
    path = saved(trained, tmp_path / "weights.pth")
    with pytest.raises(IntegrityBroken, match="CLR_BACKBONE_ARCHITECTURE"):
        load_backbone(f"file:{path}", architecture="resnet10t", sha256=sha256_file(path))


@pytest.mark.parametrize(
    "value",
    [{}, {"state_dict": {}}, [torch.ones(3)], torch.ones(3), "text", 7, {"a": 1}, {"model": 3}],
    ids=str,
)
def test_a_file_without_named_tensors_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(IntegrityBroken):
        load(saved(value, tmp_path / "weights.pth"))


@pytest.mark.parametrize("path", ["{}", "{}/absent.pth", "{}/null\0byte", ""])
def test_what_cannot_be_read_is_a_usage_error(path: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_backbone("file:" + path.format(tmp_path), architecture=ARCHITECTURE, sha256=64 * "0")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data(), suffix=st.sampled_from([".pth", ".safetensors"]))
def test_no_file_raises_anything_but_our_own_errors(
    data: st.DataObject, suffix: str, tmp_path: Path
) -> None:
    state = {"a": torch.arange(6.0), "b": torch.ones(2, 3)}
    path = tmp_path / f"weights{suffix}"
    if data.draw(st.booleans(), label="random bytes"):
        path.write_bytes(data.draw(st.binary(max_size=200)))
    else:
        if suffix == ".pth":
            torch.save(state, path, _use_new_zipfile_serialization=data.draw(st.booleans()))
        else:
            safetensors.torch.save_file(state, path)
        raw = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with contextlib.suppress(ClrError):
        fit_state(read_state(path, ""), nn.Linear(3, 2), str(path))
