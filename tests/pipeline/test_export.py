"""``clr export``: what leaves the house answers as the registered version, and is in the ledger."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from clr.audit.ledger import open_ledger
from clr.errors import IntegrityBroken, ServiceUnavailable
from flows import export
from flows.export import compare

if TYPE_CHECKING:
    from tests.conftest import Plant

TASK = "red-caps"


def exports(plant: Plant) -> list[dict[str, object]]:
    entries = open_ledger(plant.state).entries(action="adapter.exported")
    return [dict(one.payload) for one in entries]


@pytest.mark.parametrize("form", ["onnx", "torchscript", "safetensors-bundle"])
def test_an_export_is_compared_on_the_test_images_and_recorded(
    form: str, working: Plant, tmp_path: Path
) -> None:
    done = working.clr("export", TASK, "--format", form, "--output", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    told = done.json
    assert (told["task"], told["version"], told["format"]) == (TASK, 1, form)
    compared = told["compared"]
    assert (compared["on"], compared["images"], compared["same_label"]) == ("test images", 24, 24)
    assert compared["largest_difference"] <= 1e-4 * compared["largest_logit"]
    (entry,) = exports(working)
    assert entry["digest"] == told["digest"]
    assert (entry["format"], entry["adapter"]) == (form, told["adapter"])
    path = Path(told["path"])
    if path.is_file():
        assert told["digest"] == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(str(one) for one in [path, *path.rglob("*")] if one.is_file()) == told["files"]
    assert working.leftovers() == []
    assert working.clr("verify").code == 0


def test_onnx_answers_as_predict_does(working: Plant, tmp_path: Path) -> None:
    """From the image file to the label, by what its metadata says and nothing of ours."""
    import onnxruntime
    from PIL import Image

    working.clr("export", TASK, "--format", "onnx", "--output", tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / f"{TASK}-1.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    way, labels = json.loads(facts["preprocessing"]), json.loads(facts["labels"])
    files = sorted((working.root / "data" / TASK / "test").rglob("*.png"))[::5]
    said = working.clr("predict", "--task", TASK, *files, "--json").json["predictions"]
    for file, answer in zip(files, said, strict=True):
        with Image.open(file) as image:
            assert image.size == (way["size"],) * 2
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
        batch = ((pixels - way["mean"]) / way["std"]).transpose(2, 0, 1)[None].astype(np.float32)
        (logits,) = session.run(["logits"], {"images": batch})
        assert labels[int(logits[0].argmax())] == answer["label"]


def test_without_its_test_images_it_is_compared_on_noise_and_says_so(
    working: Plant, tmp_path: Path
) -> None:
    shutil.rmtree(working.root / "data" / TASK / "test")
    out = ("--output", tmp_path, "--json")
    told = working.clr("export", f"{TASK}@1", "--format", "torchscript", *out).json
    assert told["compared"]["on"] == "seeded noise"
    assert told["compared"]["same_label"] == told["compared"]["images"] > 0


@pytest.mark.parametrize(
    ("subject", "code", "words"),
    [("blue", 2, "serves"), (f"{TASK}@7", 2, "no version"), (f"{TASK}@x", 2, "no version"),
     ("../etc", 2, "name")],
)  # fmt: skip
def test_what_is_not_there_cannot_be_exported(
    subject: str, code: int, words: str, working: Plant, tmp_path: Path
) -> None:
    done = working.clr("export", subject, "--format", "torchscript", "--output", tmp_path)
    assert done.code == code
    assert words in done.err
    assert list(tmp_path.glob("*.pt")) == exports(working) == []


def test_a_folder_that_cannot_be_made_is_told_before_the_work(
    working: Plant, tmp_path: Path
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    done = working.clr("export", TASK, "--format", "torchscript", "--output", tmp_path / "circle")
    assert done.code == ServiceUnavailable.exit_code, done.err
    assert "circle is no folder to write into" in done.err
    assert exports(working) == []


def test_an_export_that_is_there_is_not_overwritten(working: Plant, tmp_path: Path) -> None:
    there = tmp_path / f"{TASK}-1.pt"
    there.write_text("mine")
    done = working.clr("export", TASK, "--format", "torchscript", "--output", tmp_path)
    assert (done.code, there.read_text()) == (2, "mine")


def test_what_answers_otherwise_is_refused(working: Plant) -> None:
    """Another task's network in place of the right one: labels differ, and it says how many."""
    session = working.session()
    release = working.clr("status", "--json").json["release"]
    assert release is not None
    from clr.core.adapter import load_adapter
    from clr.core.exporting import standalone
    from clr.registry.fetch import adapter_path
    from clr.registry.versions import champion_of, get_version

    found = {}
    for task in (TASK, "green-caps"):
        one = get_version(session.registry, task, 1)
        path = adapter_path(session.registry, task, 1, one.adapter_digest)
        adapter = load_adapter(path, session.backbone, one.adapter_digest)
        found[task] = champion_of(one), adapter
    other = standalone(session.backbone, found["green-caps"][1])
    with pytest.raises(IntegrityBroken, match="answers otherwise") as caught:
        compare(session, *found[TASK], other)
    assert caught.value.data["compared"]["images"] == 24
    right = standalone(session.backbone, found[TASK][1])
    nearly = next(iter(right.parameters()))
    assert compare(session, *found[TASK], right)["same_label"] == 24
    with torch.no_grad():
        nearly.mul_(1.01)
    with pytest.raises(IntegrityBroken, match="answers otherwise"):
        compare(session, *found[TASK], right)
    with pytest.raises(IntegrityBroken, match="logits by up to nan") as caught:
        compare(session, *found[TASK], lambda batch: torch.full((len(batch), 2), torch.nan))
    assert (
        json.loads(json.dumps(caught.value.as_dict(), allow_nan=False))["compared"]["images"] == 24
    )


def test_where_a_test_image_cannot_be_read_it_is_compared_on_noise(
    working: Plant, tmp_path: Path
) -> None:
    """Read one by one, since none fits into memory: the error comes in the middle."""
    next((working.root / "data" / TASK / "test").rglob("*.png")).write_bytes(b"damaged")
    out = ("--output", tmp_path, "--json")
    told = working.clr("export", TASK, "--format", "torchscript", *out, CLR_IMAGE_CACHE_MB="0")
    assert told.code == 0, told.err
    assert told.json["compared"]["on"] == "seeded noise"


@pytest.mark.parametrize("form", ["torchscript", "safetensors-bundle"])
def test_what_came_there_meanwhile_is_not_overwritten(
    form: str, working: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out" / (f"{TASK}-1.pt" if form == "torchscript" else f"{TASK}-1")
    compared = export.compare

    def somebody_else_first(*about: Any) -> Any:
        target.mkdir() if form == "safetensors-bundle" else target.write_text("mine")
        return compared(*about)

    monkeypatch.setattr(export, "compare", somebody_else_first)
    done = working.clr("export", TASK, "--format", form, "--output", target.parent, "--json")
    assert (done.code, done.json["error"]) == (2, "UsageError")
    assert list(target.parent.iterdir()) == [target]
    assert target.is_dir() or target.read_text() == "mine"
