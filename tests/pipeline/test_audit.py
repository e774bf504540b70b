"""`clr audit`: where an adapter came from, what is still as recorded, when it answered."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from clr.audit.chain import canonical
from clr.audit.document import check
from clr.audit.ledger import open_ledger
from clr.core.files import sha256_bytes
from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from tests.siblings import register_sibling


@dataclass(frozen=True)
class Audited:
    """A plant with a past: promotions, a second version, a rollback, a retirement.

    `times` has a moment in which each release was in force, in order.
    """

    plant: Any
    times: list[str]

    def ask(self, *arguments: Any, code: int = 0) -> dict[str, Any]:
        answer = self.plant.clr("audit", *arguments, "--json")
        assert answer.code == code, answer
        if code in (0, IntegrityBroken.exit_code):
            check(answer.json)
        return answer.json

    def entries(self, action: str) -> list[Any]:
        return list(open_ledger(self.plant.state).entries(action=action))


@pytest.fixture(scope="module")
def audited(template, copy_of, tmp_path_factory) -> Audited:
    """red-caps 1, green-caps 1, blue-caps 1; red-caps 2, an older registration; back; no blue."""
    plant = copy_of(template.plant, tmp_path_factory.mktemp("audited") / "plant")
    with plant_settings(plant):
        register_sibling(plant.session(), "red-caps", 1)
    for command in (
        ("review", "red-caps", 2, "approve", "--reason", "as good"),
        ("rollback", "--reason", "wrong lamps"),
        ("retire", "blue-caps", "--reason", "line sold"),
    ):
        assert plant.clr(*command).code == 0
    begun = open_ledger(plant.state).entries(action="release.activated")
    return Audited(plant, [one.time for one in begun])


@contextmanager
def plant_settings(plant):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in plant.settings.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def _no_second_look(monkeypatch):
    """Nobody promotes meanwhile: what is broken is broken at once."""
    monkeypatch.setattr("flows.audit.answer.PAUSE_SECONDS", 0)


# --- the whole chain -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def green(audited):
    """The answer about green-caps, which serves, onboarded by `clr onboard`."""
    return audited.ask("green-caps@1")


def test_every_link_of_an_onboarded_version_is_there_and_intact(green):
    assert green["verdict"]["problems"] == []
    assert green["verdict"]["sentence"].startswith("Intact: everything about clr-green-caps/1")
    assert green["data"]["same_bytes"] is True
    assert (green["data"]["train"], green["data"]["test"]) == (24, 24)
    assert len(green["data"]["images"]) == 48
    assert green["validation"]["success"] is True
    assert green["backbone"]["architecture"] == "test_resnet"
    assert green["training"]["recipe"]["epochs"] == 1
    assert (green["training"]["device"], green["training"]["threads"]) == ("cpu", 1)
    assert green["training"]["hardware"]
    assert green["environment"]["torch"]
    assert [one["task"] for one in green["gate"]["retention"]] == ["red-caps"]
    assert [(one["decision"], one["reason"]) for one in green["reviews"]] == [
        ("approved", "green-caps seen")
    ]
    for section in ("data", "validation", "code", "environment", "adapter", "gate"):
        missing = [name for name, value in green[section].items() if value is None]
        assert missing in ([], ["commit"]), section


def test_digests_are_those_of_the_ledger(audited, green):
    (entry,) = (one for one in audited.entries("adapter.registered") if "green" in one.subject)
    assert green["registration"]["entry"] == entry.seq
    assert (green["adapter"]["digest"], green["gate"]["digest"], green["data"]["digest"]) == (
        entry.payload["adapter"],
        entry.payload["gate"],
        entry.payload["data"],
    )
    recorded = ("code", "environment", "validation")
    assert [green[one]["digest"] for one in recorded] == [entry.payload[one] for one in recorded]


def test_an_export_is_in_the_ledger_with_the_digest_of_what_was_said(audited):
    told = audited.ask("green-caps@1")
    entry = audited.entries("audit.exported")[-1]
    assert (entry.seq, entry.subject) == (told["asked"]["entry"], "clr-green-caps/1")
    told["asked"]["entry"] = None
    data = canonical(told, "it").encode()
    assert entry.payload == {
        "format": "json",
        "question": "green-caps@1",
        "digest": sha256_bytes(data),
        "bytes": len(data),
    }


def test_an_older_version_has_null_where_nothing_was_recorded(audited):
    told = audited.ask("red-caps@2")
    assert told["verdict"]["intact"], told["verdict"]
    assert told["data"]["images"] is None
    assert told["validation"]["digest"] is None
    assert told["environment"]["digest"] is None
    assert told["adapter"]["present"] is True
    notes = " ".join(one["message"] for one in told["verdict"]["notes"])
    assert "before the ledger kept the digests of manifest, validation" in notes


# --- when it answered ----------------------------------------------------------------------


def test_times_of_service_and_what_ended_them(audited):
    first, second = audited.ask("red-caps@1"), audited.ask("red-caps@2")
    assert [one["release"] for one in first["service"]] == [1, 2, 3, 3, 5]
    assert [one["to"] for one in first["service"]][-1] is None
    assert first["replaced_by"] is None
    (only,) = second["service"]
    assert (only["release"], only["joined"]) == (4, True)
    ended = second["replaced_by"]
    assert (ended["version"], ended["release"], ended["kind"], ended["reason"]) == (
        *(1, 3, "rollback"),
        "wrong lamps",
    )
    assert ended["time"] == only["to"] == audited.times[4]


def test_a_retirement_leaves_nothing_in_its_place(audited):
    told = audited.ask("blue-caps")
    assert told["asked"]["chosen"] == "newest"
    assert "none of blue-caps serves" in told["verdict"]["notes"][0]["message"]
    ended = told["replaced_by"]
    assert (ended["version"], ended["kind"], ended["reason"]) == (None, "retirement", "line sold")


def test_which_version_answered_at_a_moment(audited):
    moments = [audited.times[one] for one in (0, 3, 4)]
    asked = [audited.ask("red-caps", "--at", moment)["version"] for moment in moments]
    assert asked == [1, 2, 1]
    now = audited.ask("red-caps")
    assert (now["version"], now["asked"]["chosen"]) == (1, "serving")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("red-caps", "--at", "2020-01-01T00:00:00Z"), "No release served at 2020"),
        (("blue-caps", "--at", "{1}"), "it was not in release 2"),
        (("blue-caps", "--at", "{5}"), "it was not in release 5"),
        (("red-caps", "--at", "2999-01-01T00:00:00Z"), "is in the future"),
        (("red-caps", "--at", "yesterday"), "not a time with a time zone"),
        (("red-caps@2", "--at", "{1}"), "A version and a time"),
        (("red-caps@7",), "has no version 7"),
        (("red-caps@x",), "'x' is no version"),
        (("red-caps@1" + "0" * 5000,), "is no version"),
        (("pink-caps",), "No version of a task pink-caps"),
        (("Pink Caps",), "is not a task name"),
    ],
)
def test_what_cannot_be_answered_is_said_and_nothing_is_recorded(audited, arguments, said):
    before = len(audited.plant.ledger())
    arguments = [one.format(*audited.times) for one in arguments]
    error = audited.ask(*arguments, code=UsageError.exit_code)
    assert said in error["message"]
    assert error["fix"]
    assert len(audited.plant.ledger()) == before


# --- what is broken ------------------------------------------------------------------------


@contextmanager
def edited(file, edit):
    """Change the bytes of a file, read-only ones too; put them back."""
    before, mode = file.read_bytes(), file.stat().st_mode
    file.chmod(0o644)
    file.write_bytes(edit(before))
    try:
        yield
    finally:
        file.write_bytes(before)
        file.chmod(mode)


def flipped(data: bytes) -> bytes:
    return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]


@contextmanager
def sql(file, *changes):
    """Change rows of a database behind everybody's back; put all of it back."""
    with closing(sqlite3.connect(":memory:")) as kept, closing(sqlite3.connect(file)) as database:
        database.backup(kept)
        for change in changes:
            assert database.execute(change).rowcount, change
        database.commit()
        try:
            yield
        finally:
            kept.backup(database)


def of_run(plant, name):
    (file,) = (plant.state / "artifacts/clr-green-caps").glob(f"*/artifacts/{name}")
    return file


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("data/manifest.json", "images"),
        ("validation/validation.json", "validation"),
        ("environment.json", "environment"),
        ("gate/gate.json", "gate"),
        ("evidence/evidence.safetensors", "gate"),
    ],
)
def test_a_changed_file_of_the_run_is_the_first_broken_link(audited, name, link):
    file = of_run(audited.plant, name)
    with edited(file, lambda data: data + b" "):
        told = audited.ask("green-caps@1", code=IntegrityBroken.exit_code)
    assert told["verdict"]["problems"][0]["link"] == link, told["verdict"]
    assert told["verdict"]["sentence"].startswith(f"BROKEN at {link}: ")


def test_a_swapped_adapter_is_found_by_its_bytes(audited):
    def file(task):
        (found,) = (audited.plant.state / f"artifacts/clr-{task}").glob("models/*/artifacts")
        return found / "artifacts" / "adapter.safetensors"

    other = file("blue-caps").read_bytes()
    with edited(file("green-caps"), lambda _: other):
        told = audited.ask("green-caps@1", code=IntegrityBroken.exit_code)
    messages = [one["message"] for one in told["verdict"]["problems"]]
    assert any("The adapter file is" in one and sha256_bytes(other) in one for one in messages)
    assert any("The task of the adapter is blue-caps" in one for one in messages)


def test_a_missing_file_is_told_from_a_changed_one(audited):
    file = of_run(audited.plant, "evidence/evidence.safetensors")
    aside = file.rename(file.with_name("aside"))
    told = audited.ask("green-caps@1", code=IntegrityBroken.exit_code)
    aside.rename(file)
    assert told["verdict"]["problems"][0]["kind"] == "missing"


def test_an_image_with_other_bytes_is_named(audited):
    image = audited.plant.root / "data/green-caps/train/dark/00.png"
    with edited(image, flipped):
        told = audited.ask("green-caps@1", code=IntegrityBroken.exit_code)
    assert told["data"]["same_bytes"] is False
    assert told["verdict"]["problems"][0]["subject"] == "data/green-caps/train/dark/00.png"


def test_where_the_images_are_elsewhere_the_first_line_says_so(audited):
    plant = audited.plant
    places = [plant.root / "data", plant.root / ".dvc/cache", plant.state / "remote"]
    for one in places:
        one.rename(one.with_name(f"{one.name}-away"))
    try:
        told = audited.ask("green-caps@1")
    finally:
        for one in places:
            shutil.rmtree(one, ignore_errors=True)
            one.with_name(f"{one.name}-away").rename(one)
    assert told["data"]["same_bytes"] is None
    assert told["verdict"]["sentence"].startswith("Intact as far as it can be seen from here")


_OF_GREEN = "WHERE name = 'clr-green-caps' AND version = 1"


@pytest.mark.parametrize(
    ("change", "link", "said"),
    [
        (
            "UPDATE model_version_tags SET value = 'md5:00000000000000000000000000000000.dir' "
            f"{_OF_GREEN} AND key = 'clr.data_digest'",
            "registration",
            "its tag clr.data_digest says md5:0000",
        ),
        (
            f"UPDATE model_version_tags SET value = 'mallory' {_OF_GREEN} "
            "AND key = 'clr.reviewed_by'",
            "reviews",
            "mallory",
        ),
        (
            "UPDATE registered_model_aliases SET version = 1 "
            "WHERE name = 'clr-release' AND alias = 'champion'",
            "service",
            "by the registry's alias champion",
        ),
        (f"DELETE FROM model_versions {_OF_GREEN}", "registration", "no longer in the registry"),
    ],
)
def test_a_row_changed_behind_the_server_is_named(audited, change, link, said):
    with sql(audited.plant.state / "mlflow.db", change):
        told = audited.ask("green-caps@1", code=IntegrityBroken.exit_code)
    found = [one["message"] for one in told["verdict"]["problems"] if one["link"] == link]
    assert any(said in one for one in found), told["verdict"]


def test_a_ledger_that_lost_its_end_is_told_first_and_the_answer_is_given_unrecorded(audited):
    cut = (
        "DROP TRIGGER clr_ledger_no_delete",
        "DELETE FROM clr_ledger WHERE seq = (SELECT max(seq) FROM clr_ledger)",
    )
    with sql(audited.plant.state / "ledger" / "ledger.db", *cut):
        told = audited.ask("green-caps@1", code=IntegrityBroken.exit_code)
    assert told["verdict"]["problems"][0]["link"] == "ledger"
    assert told["ledger"]["intact"] is False
    assert told["asked"]["entry"] is None
    assert "could not be recorded" in told["verdict"]["notes"][-1]["message"]


# --- forms ---------------------------------------------------------------------------------


def test_the_terminal_shows_the_chain_with_digests_that_are_short_and_each_its_own(audited):
    answer = audited.plant.clr("audit", "green-caps", COLUMNS="160")
    document = audited.ask("green-caps@1")
    assert answer.out.splitlines()[0].startswith("Intact: everything about clr-green-caps/1")
    for digest in (document["adapter"]["digest"], document["data"]["digest"]):
        kind, _, value = digest.partition(":")
        assert answer.out.count(f"{kind}:{value[:12]}…") == 1
    for words in ("same bytes", "red-caps: pass, identical", "“green-caps seen”", "to now:"):
        assert words in answer.out


def test_a_file_is_written_whole_or_not_at_all(audited, tmp_path):
    file = tmp_path / "answer.json"
    answer = audited.plant.clr(*("audit", "green-caps@1", "--format", "json", "--output"), file)
    assert answer.code == 0
    assert answer.out.splitlines()[0].startswith("Intact")
    check(json.loads(file.read_bytes()))
    (tmp_path / "folder").mkdir()
    refused = audited.plant.clr("audit", "green-caps@1", "--output", tmp_path / "folder")
    assert refused.code == ServiceUnavailable.exit_code
    assert sorted(one.name for one in tmp_path.iterdir()) == ["answer.json", "folder"]
