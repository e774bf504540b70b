"""Every task of the release evaluated again: what is kept, what is recorded, what fails."""

from __future__ import annotations

import json

import pytest

from clr.core.files import sha256_file
from clr.errors import GateRefused, IntegrityBroken
from flows.replay_retention import REPLAYED, replay


@pytest.fixture
def session(working):
    return working.session()


def reports(session):
    return sorted((session.settings.state / "retention").iterdir())


def test_every_image_of_every_task_is_answered_again_and_recorded(session):
    result = replay(session)
    (place,) = reports(session)
    kept = json.loads((place / "gate.json").read_bytes())
    assert (result["verdict"], kept["verdict"], result["tasks"]) == ("pass", "pass", 3)
    assert [one["facts"]["replayed"] for one in kept["checks"]] == [True] * 3
    assert "Retention of release 3" in (place / "gate.html").read_text()
    (entry,) = session.ledger.entries(action=REPLAYED)
    assert entry.subject == "clr-release/3"
    assert entry.payload["report"] == sha256_file(place / "gate.json") == result["report"]


def test_a_backbone_that_has_changed_is_told_by_name(session):
    weight = next(iter(session.backbone.module.state_dict().values()))
    weight[(0,) * weight.ndim] += 0.01
    with pytest.raises(IntegrityBroken, match="backbone"):
        replay(session)


def test_a_test_image_that_is_gone_fails_its_task_alone(session, working):
    name = sorted(path.name for path in (working.root / "data").iterdir() if path.is_dir())[0]
    next((working.root / "data" / name / "test").rglob("*.png")).unlink()
    with pytest.raises(GateRefused, match="Retention of release 3") as refused:
        replay(session)
    assert {one.partition(":")[2] for one in refused.value.data["failed"]} == {name}
    (entry,) = session.ledger.entries(action=REPLAYED)
    assert entry.payload["verdict"] == "fail"


def test_evidence_that_is_damaged_is_an_answer_about_its_task(session):
    for copy in (session.settings.state / "cache" / "evidence").glob("*"):
        copy.unlink()
    (first, *_) = sorted((session.settings.state / "artifacts").rglob("evidence.safetensors"))
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    with pytest.raises(GateRefused) as refused:
        replay(session)
    assert len(refused.value.data["broken"]) == 1


def test_clr_replay_does_it_here(working):
    answer = working.clr("replay", "--json")
    assert (answer.code, answer.json["verdict"]) == (0, "pass")


def test_status_warns_until_a_replay_passes(session, working):
    name = sorted(path.name for path in (working.root / "data").iterdir() if path.is_dir())[0]
    image = next((working.root / "data" / name / "test").rglob("*.png"))
    kept = image.read_bytes()
    image.unlink()
    assert working.clr("replay").code == 4
    assert any("RETENTION" in one for one in working.clr("status", "--json").json["warnings"])
    image.write_bytes(kept)
    assert working.clr("replay").code == 0
    assert not any("RETENTION" in one for one in working.clr("status", "--json").json["warnings"])
