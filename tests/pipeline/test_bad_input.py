"""Bad input: a sentence with what, where and what to do; the right exit code; nothing changed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

from clr.errors import DataRefused, IntegrityBroken, ServiceUnavailable, UsageError


@pytest.fixture(scope="module")
def plant(template, tmp_path_factory, copy_of):
    """A plant that serves three tasks; every test here leaves it as it is."""
    return copy_of(template.plant, tmp_path_factory.mktemp("bad-input") / "plant")


@pytest.fixture
def task(template, tmp_path):
    """A good folder of a new task, to be spoiled."""
    return shutil.copytree(template.tasks / "red-caps", tmp_path / "new-caps")


def photograph(plant):
    """All that must not change; that data was refused is written down, and nothing else is."""
    seen = plant.photograph()
    kept = [entry for entry in seen["ledger"] if entry[0] != "data.refused"]
    return {**seen, "ledger": kept}


def assert_refused(plant, error, *arguments, says=(), **settings):
    """Run a command twice, as text and as JSON: refused both times, and nothing changed."""
    before = photograph(plant)
    told = plant.clr(*arguments, **settings)
    assert told.code == error.exit_code, told
    for word in says:
        assert word in told.err, told.err
    last = told.err[told.err.index("clr: ") :]
    assert "Traceback" not in told.err
    assert len(last.strip().splitlines()) >= 2, "what to do is missing"
    assert photograph(plant) == before
    assert plant.leftovers() == []
    return told


# --- images


def truncated(folder):
    file = folder / "train/dark/03.png"
    file.write_bytes(file.read_bytes()[:100])
    return file


def zero_bytes(folder):
    file = folder / "test/light/00.png"
    file.write_bytes(b"")
    return file


def text(folder):
    file = folder / "train/light/notes.png"
    file.write_text("not an image at all", encoding="utf-8")
    return file


def sixteen_bits(folder):
    file = folder / "train/dark/deep.png"
    Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32) * 60).save(file)
    return file


def animated(folder):
    file = folder / "train/dark/moving.gif"
    frames = [Image.new("RGB", (32, 32), (shade, 0, 0)) for shade in (10, 90, 200)]
    frames[0].save(file, save_all=True, append_images=frames[1:])
    return file


def bomb(folder):
    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    file = folder / "train/dark/bomb.png"
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100_000))
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    return file


def link_out(folder):
    outside = folder.parent / "secret.png"
    shutil.copyfile(folder / "train/dark/00.png", outside)
    file = folder / "train/dark/link.png"
    file.symlink_to(outside)
    return file


@pytest.mark.parametrize(
    "spoil", [truncated, zero_bytes, text, sixteen_bits, animated, bomb, link_out]
)
def test_an_image_that_cannot_be_used_is_named(plant, task, spoil):
    file = spoil(task)
    told = assert_refused(plant, DataRefused, "onboard", task, says=(file.name, "quarantine"))
    assert str(file.relative_to(task)) in told.err


def test_refusals_as_json_name_files_and_reports(plant, task):
    from pathlib import Path

    file = zero_bytes(task)
    before = photograph(plant)
    answer = plant.clr("onboard", task, "--json")
    assert answer.code == DataRefused.exit_code
    document = answer.json
    assert (document["verdict"], document["version"]) == ("data-refused", None)
    assert str(file.relative_to(task)) in document["files"]
    assert Path(document["reports"]["data_docs"]).is_file()
    assert file.name in Path(document["reports"]["message"]).read_text(encoding="utf-8")
    assert photograph(plant) == before
    assert plant.ledger()[-1] == ("data.refused", "clr-new-caps")


def test_odd_names_and_colour_models_that_lose_nothing_are_welcome(template, tmp_path, new_plant):
    """Spaces, Unicode, leading dashes, CMYK, and a path with `..` in it."""
    plant = new_plant(tmp_path / "plant")
    task = shutil.copytree(template.tasks / "red-caps", tmp_path / "old-caps")
    for split in ("train", "test"):
        (task / split / "dark").rename(task / split / "-dark caps")
        (task / split / "light").rename(task / split / "hell größer 明")
    first = task / "train/-dark caps"
    (first / "00.png").rename(first / "--help.png")
    (first / "01.png").rename(first / "été 夏.png")
    cmyk = Image.open(first / "02.png").convert("CMYK")
    (first / "02.png").unlink()
    cmyk.save(first / "02.jpg", quality=95)
    answer = plant.clr("onboard", "../old-caps/../old-caps", "--json")
    assert answer.code == 0, answer
    assert answer.json["data"]["classes"] == ["-dark caps", "hell größer 明"]
    assert plant.clr("review", "old-caps", 1, "approve").code == 0
    labelled = plant.clr("predict", "--json", "--task", "old-caps", "--", first / "--help.png")
    assert labelled.json["predictions"][0]["label"] == "-dark caps"
    assert plant.clr("verify").code == 0


# --- folders


def one_class(folder):
    for split in ("train", "test"):
        shutil.rmtree(folder / split / "light")


def empty_class(folder):
    (folder / "train/grey").mkdir()


def two_images(folder):
    for split in ("train", "test"):
        for label in ("dark", "light"):
            for file in sorted((folder / split / label).iterdir())[1:]:
                file.unlink()
    shutil.rmtree(folder / "test")


def leaking(folder):
    shutil.copyfile(folder / "train/dark/00.png", folder / "test/dark/copy.png")


def two_labels(folder):
    shutil.copyfile(folder / "train/dark/00.png", folder / "train/light/copy.png")


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (one_class, "class"),
        (empty_class, "grey"),
        (two_images, "10"),
        (leaking, "copy.png"),
        (two_labels, "copy.png"),
    ],
)
def test_a_folder_that_is_no_task_is_refused_with_the_reason(plant, task, spoil, word):
    spoil(task)
    assert_refused(plant, DataRefused, "onboard", task, says=(word,))


def test_a_test_only_folder_is_refused(plant, task):
    shutil.rmtree(task / "train")
    assert_refused(plant, DataRefused, "onboard", task, says=("no train folder",))


def test_a_folder_of_bare_classes_is_told_where_they_belong(plant, task):
    shutil.rmtree(task / "test")
    (task / "train").rename(task / "all")
    assert_refused(plant, DataRefused, "onboard", task, says=("train/<class>",))


@pytest.mark.parametrize("name", ["..", "../caps", "-caps", "Rote Kappen", "release", "a" * 64, ""])
def test_a_name_that_cannot_be_one_gets_a_proposal(plant, task, name):
    assert_refused(plant, UsageError, "onboard", task, f"--name={name}", says=("Call it",))


@pytest.mark.parametrize("number", [99, 10**30])
def test_a_version_that_is_not_there(plant, number):
    for line in (("review", "red-caps", number, "approve"), ("ab", "start", "red-caps", number)):
        assert_refused(plant, UsageError, *line, says=(f"no version {number}", "versions: 1"))


def test_a_task_without_a_name_is_on_no_trial(plant):
    assert_refused(plant, UsageError, "ab", "status", "")


def test_no_such_folder(plant):
    assert_refused(plant, UsageError, "onboard", "/no/such/folder", says=("/no/such/folder",))


def test_a_file_is_no_folder(plant, task):
    assert_refused(plant, UsageError, "onboard", task / "task.yaml", says=("not a folder",))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("onwer: me", ("onwer", "owner")),
        ("recipe: {epoch: 3}", ("recipe.epoch", "epochs")),
        ("recipe: {epochs: many}", ("recipe.epochs",)),
        ("business: {error_costs: 3}", ("error_costs", "error_cost")),
        ("business: {error_cost: -3}", ("error_cost",)),
        ("backbone: resnet50", ("resnet50", "one for all its tasks")),
        ("title: [unclosed", ("task.yaml", "YAML")),
        ("!!python/object/apply:os.system ['touch /tmp/clr-pwned']", ("task.yaml",)),
    ],
)
def test_a_wrong_line_in_task_yaml_is_named(plant, task, line, words):
    (task / "task.yaml").write_text(f"{line}\n", encoding="utf-8")
    assert_refused(plant, UsageError, "onboard", task, says=words)
    assert not os.path.exists("/tmp/clr-pwned")


# --- workspace and settings


def test_outside_a_workspace(plant, task):
    before = sorted(task.parent.iterdir())
    answer = plant.clr("onboard", task, at=task.parent)
    assert answer.code == UsageError.exit_code
    assert "clr init" in answer.err
    assert sorted(task.parent.iterdir()) == before


def test_a_wrong_backbone_name_suggests_near_ones(plant, task):
    unset = {"CLR_BACKBONE_ARCHITECTURE": "", "CLR_BACKBONE_SHA256": ""}
    told = assert_refused(
        plant, UsageError, "onboard", task, CLR_BACKBONE="resnet51", says=("resnet51",), **unset
    )
    assert "resnet50" in told.err


class Bomb:
    """What a pickle does when it is opened."""

    def __reduce__(self):
        return os.system, ("touch /tmp/clr-exploded",)


def test_a_pickle_bomb_is_refused_and_never_executed(plant, task, tmp_path):
    import hashlib

    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps({"state_dict": Bomb()}))
    pin = hashlib.sha256(file.read_bytes()).hexdigest()
    assert_refused(
        plant, IntegrityBroken, "onboard", task,
        CLR_BACKBONE=f"file:{file}", CLR_BACKBONE_SHA256=pin, says=("weights.pth", "refused"),
    )  # fmt: skip
    assert not os.path.exists("/tmp/clr-exploded")


def test_a_checkpoint_with_other_bytes_than_its_pin(plant, task):
    assert_refused(
        plant, IntegrityBroken, "onboard", task, CLR_BACKBONE_SHA256="0" * 64, says=("pinned",)
    )


def test_a_checkpoint_without_a_pin(plant, task):
    assert_refused(
        plant, UsageError, "onboard", task, CLR_BACKBONE_SHA256="", says=("CLR_BACKBONE_SHA256",)
    )


def test_a_registry_that_does_not_answer(plant, task):
    assert_refused(
        plant, ServiceUnavailable, "onboard", task,
        CLR_REGISTRY_URL="http://127.0.0.1:9", says=("127.0.0.1:9", "CLR_REGISTRY_URL"),
    )  # fmt: skip


def test_data_that_data_dvc_does_not_pin_is_named(working, task):
    file = working.root / "data/green-caps/train/dark/00.png"
    shutil.copyfile(working.root / "data/green-caps/train/light/00.png", file)
    assert_refused(
        working, IntegrityBroken, "onboard", task,
        says=("data/green-caps/train/dark/00.png", "dvc checkout"),
    )  # fmt: skip


# --- predict


def test_a_broken_image_does_not_keep_the_others_from_being_labelled(plant, template, tmp_path):
    good = template.tasks / "red-caps/test/dark/00.png"
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:90])
    strange = [broken, tmp_path / "missing.png", tmp_path, "/dev/zero"]
    answer = plant.clr("predict", "--json", "--task", "red-caps", good, *strange)
    assert answer.code == DataRefused.exit_code
    first, *others = answer.json["predictions"]
    assert first["label"] == "dark"
    assert all(one["error"] and "label" not in one for one in others)
    assert "Traceback" not in answer.err


def test_an_unknown_task_is_an_error_and_never_the_bare_backbone(plant, template):
    image = template.tasks / "red-caps/test/dark/00.png"
    assert_refused(
        plant, UsageError, "predict", "--task", "pink-caps", image, says=("pink-caps", "red-caps")
    )


def test_before_any_release_predict_says_what_to_do(tmp_path, new_plant, template):
    image = template.tasks / "red-caps/test/dark/00.png"
    answer = new_plant(tmp_path / "empty").clr("predict", image)
    assert answer.code == UsageError.exit_code
    assert "clr review" in answer.err


def test_a_device_that_is_not_there(plant, task):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert_refused(plant, UsageError, "onboard", task, CLR_DEVICE="cuda", says=("CLR_DEVICE",))


def test_a_home_that_cannot_be_made(plant, task):
    told = plant.clr("onboard", task, CLR_HOME="/proc/no-such-folder")
    assert told.code == ServiceUnavailable.exit_code
    assert "CLR_HOME" in told.err


def test_a_task_that_never_came_has_no_business_case(plant):
    assert_refused(plant, UsageError, "roi", "pink-caps", says=("pink-caps", "red-caps"))


@pytest.mark.parametrize(
    ("command", "error", "words"),
    [
        ("onboard", UsageError, "is not a folder"),
        ("compare", UsageError, "is not a folder"),
        ("predict", DataRefused, "leads in a circle"),
    ],
)
def test_a_link_that_leads_in_a_circle_is_no_bug(plant, tmp_path, command, error, words):
    (tmp_path / "circle").symlink_to("circle")
    told = plant.clr(command, tmp_path / "circle", "--json")
    assert (told.code, words in json.dumps(told.json)) == (error.exit_code, True), told


def test_state_that_lies_elsewhere_in_the_workspace_is_not_taken_by_git(plant):
    assert plant.clr("status", CLR_HOME="state").code == 0
    (plant.root / "state" / "secret").touch()
    seen = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=plant.root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "state/" not in seen.stdout
