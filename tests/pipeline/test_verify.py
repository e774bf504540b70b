"""`clr verify` finds one flipped bit, wherever it is, and names what it is in."""

from __future__ import annotations

import shutil
import sqlite3

import pytest

from clr.errors import IntegrityBroken


def flip(file, at=-1):
    """Change one bit of a file, read-only ones too."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    mode = file.stat().st_mode
    file.chmod(0o644)
    file.write_bytes(data)
    file.chmod(mode)


def only(found):
    (file,) = found
    return file


def adapter_file(plant):
    return only((plant.state / "artifacts/clr-green-caps").rglob("artifacts/adapter.safetensors"))


def evidence_file(plant):
    return only((plant.state / "artifacts/clr-green-caps").rglob("evidence.safetensors"))


def data_file(plant):
    return plant.root / "data/green-caps/train/dark/00.png"


def cached_object(plant):
    from clr.data.listing import md5_file

    md5 = md5_file(data_file(plant))
    return plant.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def remote_object(plant):
    from clr.data.listing import md5_file

    md5 = md5_file(data_file(plant))
    return plant.state / "remote/files/md5" / md5[:2] / md5[2:]


@pytest.mark.parametrize(
    ("find", "subject"),
    [
        (adapter_file, "clr-green-caps/1"),
        (evidence_file, "clr-green-caps/1"),
        (data_file, "data/green-caps/train/dark/00.png"),
        (cached_object, "data/green-caps/train/dark/00.png"),
        (remote_object, "data/green-caps/train/dark/00.png"),
    ],
)
def test_one_flipped_bit_is_found_and_named(working, find, subject):
    flip(find(working))
    answer = working.clr("verify", "--json")
    assert answer.code == IntegrityBroken.exit_code, answer
    assert {one["subject"] for one in answer.json["problems"]} == {subject}
    assert subject in answer.err


@pytest.mark.parametrize(
    ("name", "kind"), [("release.json", "release-changed"), ("gate.json", "gate-report-changed")]
)
def test_one_flipped_bit_in_the_release_or_its_gate_report(working, name, kind):
    last = max(
        (working.state / "artifacts/clr-release").rglob(name), key=lambda f: f.stat().st_mtime_ns
    )
    flip(last, at=20)
    answer = working.clr("verify", "--json")
    assert answer.code == IntegrityBroken.exit_code
    assert (kind, "clr-release/3") in {
        (one["kind"], one["subject"]) for one in answer.json["problems"]
    }


def test_a_damaged_configuration_of_dvc_is_a_problem_and_no_crash(working):
    (working.root / ".dvc/config").write_text("garbage [")
    answer = working.clr("verify", "--json")
    assert answer.code == IntegrityBroken.exit_code, answer
    assert ".dvc/config cannot be read" in answer.json["problems"][0]["message"]


@pytest.mark.parametrize("repinned", [False, True])
def test_one_flipped_bit_in_the_weights_of_the_backbone(working, tmp_path, repinned):
    """Noticed by its pin; and where somebody pinned the new bytes too, by the release."""
    import hashlib
    from pathlib import Path

    file = tmp_path / "weights.safetensors"
    shutil.copyfile(Path(working.settings["CLR_BACKBONE"].removeprefix("file:")), file)
    flip(file, at=-1000)
    settings = {"CLR_BACKBONE": f"file:{file}"}
    if repinned:
        settings["CLR_BACKBONE_SHA256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    answer = working.clr("verify", "--json", **settings)
    assert answer.code == IntegrityBroken.exit_code
    assert answer.json["problems"][0]["subject"].startswith("backbone")
    image = working.root / "data/red-caps/test/dark/00.png"
    assert working.clr("predict", image, **settings).code == IntegrityBroken.exit_code


def test_a_clock_that_was_set_back_is_a_note(working, monkeypatch):
    ledger = working.session().ledger
    last, early = list(ledger.entries())[-1], "2001-01-01T00:00:00.000000Z"
    monkeypatch.setattr("clr.audit.appending.utc_now", lambda: early)
    ledger.append("act", "clr-red-caps", actor="yuki", authentication="local-os-user")
    monkeypatch.undo()
    answer = working.clr("verify", "--json")
    assert (answer.code, answer.json["problems"]) == (0, [])
    (note,) = [one["message"] for one in answer.json["notes"] if "clock" in one["message"]]
    assert note.startswith(f"entry {last.seq + 1} ({early}) is earlier than the one before it")
    assert last.time in note


def test_a_changed_ledger_is_found(working):
    with sqlite3.connect(working.state / "ledger/ledger.db") as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type='trigger'"):
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("UPDATE clr_ledger SET actor = 'somebody else' WHERE seq = 2")
    answer = working.clr("verify", "--json")
    assert answer.code == IntegrityBroken.exit_code
    assert "ledger entry 2" in {one["subject"] for one in answer.json["problems"]}


def test_a_broken_version_does_not_serve(working):
    flip(adapter_file(working))
    image = working.root / "data/green-caps/test/dark/00.png"
    answer = working.clr("predict", "--task", "green-caps", image)
    assert answer.code == IntegrityBroken.exit_code
    assert "green-caps version 1" in answer.err


def test_a_new_workspace_has_nothing_broken(plant):
    answer = plant.clr("verify", "--json")
    assert (answer.code, answer.json["problems"]) == (0, [])
    _ = plant.session().registry  # an empty one
    assert (plant.state / "mlflow.db").exists()
    answer = plant.clr("verify", "--json")
    assert (answer.code, answer.json["problems"]) == (0, [])


def test_a_damaged_data_dvc_is_found_before_anything_serves(plant):
    _ = plant.session().registry
    (plant.root / "data.dvc").write_text("rubbish: [")
    answer = plant.clr("verify", "--json")
    told = [(one["subject"], one["kind"]) for one in answer.json["problems"]]
    assert (answer.code, told) == (6, [("data.dvc", "data-object-changed")])


def test_a_damaged_data_dvc_is_told_once_where_champions_serve(working):
    (working.root / "data.dvc").write_text("rubbish: [")
    answer = working.clr("verify", "--json")
    assert [one["subject"] for one in answer.json["problems"]].count("data.dvc") == 1
