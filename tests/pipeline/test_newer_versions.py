"""Versions of one task that follow each other: what is left of the decisions about older ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clr.errors import GateRefused, IntegrityBroken, ReviewRefused
from clr.registry.acts import LOCAL
from clr.registry.releases import current_release
from clr.registry.reviews import record_review
from clr.registry.versions import get_version
from flows.reconcile import follow, look


@pytest.fixture(scope="module")
def newer_once(template, tmp_path_factory, new_caps, copy_of):
    folder = tmp_path_factory.mktemp("newer")
    plant = copy_of(template.plant, folder / "plant")
    for seed in (1, 2):
        answer = plant.clr("onboard", new_caps(folder / str(seed) / "red-caps", 0, seed=seed))
        assert answer.code == 0, answer.err
    return plant


@pytest.fixture
def newer(newer_once, tmp_path, copy_of):
    """A workspace in which version 1 of red-caps serves; 2 and 3 are candidates."""
    return copy_of(newer_once, tmp_path / "plant")


def red(plant):
    return current_release(plant.session().registry).tasks["red-caps"].version


def approve(session, number):
    """An approval that nobody carries out, as when its webhook is lost."""
    found = get_version(session.registry, "red-caps", number)
    record_review(
        session.ledger, model="clr-red-caps", number=number, decision="approved", reason="seen",
        actor="yuki", authentication=LOCAL, adapter=found.adapter_digest, source=found.source,
    )  # fmt: skip


def test_an_approval_from_before_a_newer_version_served_takes_nothing_away(newer):
    approve(newer.session(), 2)
    assert newer.clr("review", "red-caps", 3, "approve").code == 0
    assert red(newer) == 3
    for decision in look(newer.session()).decided:
        with pytest.raises(ReviewRefused, match="approved before version 3"):
            follow(newer.session(), *decision)
    assert red(newer) == 3
    assert not look(newer.session())
    assert newer.ledger()[-1] == ("promotion.refused", "clr-red-caps/2")
    assert newer.clr("verify").code == 0
    assert newer.clr("promote", "red-caps", 2).code == 0, "who names it gets it"
    assert red(newer) == 2


def test_what_was_rejected_after_it_was_taken_back_does_not_come_back(newer):
    assert newer.clr("review", "red-caps", 2, "approve").code == 0
    release = current_release(newer.session().registry).version
    assert newer.clr("rollback", "--reason", "harm").code == 0
    assert newer.clr("review", "red-caps", 2, "reject", "--reason", "harmful").code == 0
    answer = newer.clr("rollback", "--to", release, "--reason", "by mistake")
    assert answer.code == ReviewRefused.exit_code
    assert "harmful" in answer.err
    assert red(newer) == 1
    assert newer.clr("verify").code == 0


def test_verify_names_a_rejected_version_that_was_put_back_all_the_same(newer, monkeypatch):
    assert newer.clr("review", "red-caps", 2, "approve").code == 0
    release = current_release(newer.session().registry).version
    assert newer.clr("rollback", "--reason", "harm").code == 0
    assert newer.clr("review", "red-caps", 2, "reject", "--reason", "harmful").code == 0
    monkeypatch.setattr("flows.rollback._check_reviews", lambda *_: None)
    assert newer.clr("rollback", "--to", release, "--reason", "forced").code == 0
    answer = newer.clr("verify")
    assert answer.code == IntegrityBroken.exit_code
    assert "serves again, though" in answer.out + answer.err


def test_what_the_gate_did_not_pass_is_not_tried_on_anybody(newer):
    found = get_version(newer.session().registry, "red-caps", 2)
    run = newer.session().registry.client.get_run(found.run_id)
    path = Path(run.info.artifact_uri.removeprefix("file://"), "gate/gate.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "verdict": "fail"}))
    answer = newer.clr("ab", "start", "red-caps", 2, "--share", "0.1", "--reason", "try")
    assert answer.code == IntegrityBroken.exit_code
    assert "challenger" not in get_version(newer.session().registry, "red-caps", 2).aliases


def plates(folder, labels, seed):
    """A task of plates, 20 images a class and split."""
    random = np.random.default_rng(seed)
    tints = {"dark": (20, 20, 20), "light": (220, 220, 220), "scratched": (220, 20, 20)}
    for split in ("train", "test"):
        for label in labels:
            place = folder / split / label
            place.mkdir(parents=True)
            for number in range(20):
                pixels = np.array(tints[label]) + random.normal(0, 25, (32, 32, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(place / f"{number:02d}.png")
    (folder / "task.yaml").write_text("recipe: {epochs: 1, image_size: 32}\n")
    return folder


def test_a_version_that_forgot_a_class_does_not_pass(plant, tmp_path):
    """Its own test images cannot show it: they have none of that class."""
    whole = plates(tmp_path / "1" / "plates", ("dark", "light", "scratched"), 1)
    assert plant.clr("onboard", whole).code == 0
    assert plant.clr("review", "plates", 1, "approve").code == 0
    answer = plant.clr("onboard", plates(tmp_path / "2" / "plates", ("dark", "light"), 2))
    assert answer.code == GateRefused.exit_code
    assert "own-champion of plates" in answer.err
