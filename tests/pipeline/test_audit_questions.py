"""`clr audit` without a task: an auditor's questions about all adapters, a time, or a release."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clr.audit.chain import Entry, canonical
from clr.audit.ledger import open_ledger
from clr.core.files import sha256_bytes, sha256_file
from clr.errors import UsageError
from flows.audit import questions
from flows.audit.ask import _backbone
from flows.audit.gather import Told
from flows.audit.questions import Span
from flows.recorded import read_records
from tests.pipeline.test_audit import Audited, audited

__all__ = ["audited"]  # the fixture


def ask(audited: Audited, *arguments: Any, code: int = 0) -> dict[str, Any]:
    answer = audited.plant.clr("audit", *arguments, "--json")
    assert answer.code == code, answer
    return answer.json


def subjects(document: dict[str, Any]) -> list[str]:
    return [one["subject"] for one in document["rows"]]


def an_image(audited: Audited, task: str) -> Path:
    return sorted((audited.plant.root / "data" / task / "train").rglob("*.png"))[0]


def test_who_approved_what_in_a_time(audited):
    document = ask(audited, "--reviews")
    assert {one["decision"] for one in document["rows"]} == {"approved"}
    newest = document["rows"][-1]
    assert (newest["subject"], newest["reason"]) == ("clr-red-caps/2", "as good")
    assert newest["by"]
    assert newest["authentication"] == "local-os-user"
    day = newest["time"][:10]
    assert ask(audited, "--reviews", "--from", day, "--to", day)["rows"] == document["rows"]
    assert ask(audited, "--reviews", "--to", "2020-01-31")["rows"] == []


def test_a_year_of_three_digits_is_before_every_entry(audited):
    assert ask(audited, "--reviews", "--from", "0999-01-01")["rows"]


REASON, YES, NO = "review.reason", "review.approved", "review.rejected"


@pytest.mark.parametrize(
    ("acts", "told"),
    [
        (
            [(REASON, "looks fine"), (YES, ""), (REASON, "cracked label"), (NO, "")],
            ["looks fine", "cracked label"],
        ),
        ([(REASON, "a tpyo"), (REASON, "a typo"), (YES, "")], ["a typo"]),
        ([(YES, ""), (REASON, "as good"), (REASON, "on second thought")], ["as good"]),
        ([(YES, ""), (NO, ""), (REASON, "cracked label")], ["", "cracked label"]),
        ([(REASON, "looks fine"), (YES, "said with it")], ["said with it"]),
        ([(YES, "")], [""]),
    ],
)
def test_a_decision_is_told_with_the_words_that_stood_when_it_was_made(acts, told):
    entries = []
    for seq, (action, words) in enumerate(acts, 1):
        key = "value" if action == REASON else "reason"
        entries += [act(2 * seq, action, "rita", {key: words} if words else {}),
                    act(2 * seq + 1, REASON, "olga", {"value": "another's words"})]  # fmt: skip
    rows = questions.reviews(told_by(entries), Span()).rows
    assert [one["reason"] for one in rows] == told


def told_by(entries: list[Entry]) -> Told:
    return Told(tuple(entries), read_records(entries), (), None)


def act(
    seq: int, action: str, actor: str, payload: dict[str, Any], subject: str = "clr-red-caps/2"
) -> Entry:
    return Entry(seq, "2026-03-01T12:00:00.000000Z", actor, "mlflow-basic-auth", action,
                 subject, payload, None, "", "", "", "")  # fmt: skip


def test_a_backbone_is_found_by_any_name_that_a_run_gave_it(monkeypatch):
    made = [("sha256:aa", "by-hub"), ("sha256:aa", "by-file"), ("sha256:bb", "gone")]
    told = told_by([
        act(n, "adapter.registered", "clr", {"backbone": digest, "run": run}, f"clr-red-caps/{n}")
        for n, (digest, run) in enumerate(made, 1)
    ])  # fmt: skip
    names = {"by-hub": "hub/lite0", "by-file": "file:lite0.pt"}

    def read_run(_: Any, run: str) -> Any:
        return SimpleNamespace(params={"backbone": names[run]}) if run in names else None

    monkeypatch.setattr("clr.registry.lineage.read_run", read_run)
    session: Any = SimpleNamespace(registry=None)
    for name in names.values():
        answered = _backbone(session, told, name, Span())
        assert {one["subject"] for one in answered.rows} == {"clr-red-caps/1", "clr-red-caps/2"}
        assert answered.notes == ["sha256:bb: no run that names this backbone is left"]
    with pytest.raises(UsageError, match="sha256:bb: no run that names this backbone is left"):
        _backbone(session, told, "another", Span())


def test_which_adapters_an_image_is_in(audited):
    image = an_image(audited, "red-caps")
    by_file = ask(audited, "--image", image)
    assert subjects(by_file) == ["clr-red-caps/1"]
    row = by_file["rows"][0]
    assert row["split"] == "train"
    assert row["path"].endswith(image.name)
    assert row["serves"]
    by_digest = ask(audited, "--image", sha256_file(image).removeprefix("sha256:"))
    assert by_digest["rows"] == by_file["rows"]
    # what has no list of its images is named, never passed over
    assert any("clr-red-caps/2" in note for note in by_file["notes"])
    assert ask(audited, "--image", "0" * 64)["rows"] == []


def test_which_adapters_were_made_of_some_data_or_over_a_backbone(audited):
    entries = audited.entries("adapter.registered")
    for what in ("data", "backbone"):
        digest = entries[0].payload[what]
        wanted = {one.subject for one in entries if one.payload.get(what) == digest}
        document = ask(audited, f"--{what}", digest)
        assert set(subjects(document)) == wanted
        short = digest.split(":")[1][:12]
        assert ask(audited, f"--{what}", short)["rows"] == document["rows"]
    run = ask(audited, "green-caps")["backbone"]
    named = ask(audited, "--backbone", run["name"])
    assert "clr-green-caps/1" in subjects(named)


def test_a_version_says_when_it_served(audited):
    backbone = audited.entries("adapter.registered")[0].payload["backbone"]
    rows = {one["subject"]: one for one in ask(audited, "--backbone", backbone)["rows"]}
    assert not rows["clr-blue-caps/1"]["serves"]
    assert rows["clr-blue-caps/1"]["served"]
    assert rows["clr-green-caps/1"]["serves"]
    assert rows["clr-green-caps/1"]["served"][-1]["to"] is None


def test_what_changed_between_two_releases(audited):
    releases = [one.subject for one in audited.entries("release.activated")]
    numbers = [int(one.rpartition("/")[2]) for one in releases]
    document = ask(audited, "--between", f"{numbers[0]}..{numbers[2]}")
    assert {(one["task"], one["change"]) for one in document["rows"]} == {
        (one, "joined") for one in ("green-caps", "blue-caps")
    }
    document = ask(audited, "--between", f"{numbers[2]}..{numbers[3]}")
    [row] = document["rows"]
    assert (row["task"], row["change"], row["before"], row["after"]) == (
        *("red-caps", "replaced"),
        *(1, 2),
    )
    assert row["approved_by"]
    document = ask(audited, "--between", f"{numbers[0]}..{numbers[0]}")
    assert document["rows"] == []
    assert "0 tasks changed" in document["sentence"]


def test_what_served_at_a_moment(audited):
    for moment, tasks in ((audited.times[0], 1), (audited.times[2], 3), (audited.times[-1], 2)):
        assert len(ask(audited, "--at", moment)["rows"]) == tasks
    early = ask(audited, "--at", "2020-01-01T00:00:00Z")
    assert early["rows"] == []
    assert early["sentence"].startswith("No release served")


def test_what_was_refused_and_why(audited):
    rejected = audited.plant.clr("review", "red-caps", 2, "reject", "--reason", "scratched")
    assert rejected.code == 0
    newest = ask(audited, "--refused")["rows"][-1]
    told = (newest["refused"], newest["subject"], newest["why"])
    assert told == ("review", "clr-red-caps/2", "scratched")


def test_everything_of_a_time_and_that_asking_is_an_act(audited):
    told = list(open_ledger(audited.plant.state).entries())
    document = ask(audited, "--to", told[-1].time)
    assert [one["entry"] for one in document["rows"]] == [one.seq for one in told[:-1]]
    entry = list(open_ledger(audited.plant.state).entries(action="audit.exported"))[-1]
    assert document["asked"]["entry"] == entry.seq
    unsaid = {**document, "asked": {**document["asked"], "entry": None}}
    assert entry.payload["digest"] == sha256_bytes(canonical(unsaid, "it").encode())


def test_the_terminal_gets_a_sentence_and_a_table(audited):
    answer = audited.plant.clr("audit", "--reviews", COLUMNS="200")
    lines = answer.out.splitlines()
    assert "approved" in lines[0]
    assert "decision" in lines[2]
    assert "as good" in answer.out
    assert "entry" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("red-caps", "--reviews"), "leave one out"),
        (("--reviews", "--refused"), "one question at a time"),
        (("--image", "no-such-file.png"), "neither a file nor"),
        (("--data", "abc"), "too short"),
        (("--data", "md5:" + "0" * 32), "No adapter was registered"),
        (("--backbone", "resnet-of-nobody"), "No adapter was registered over"),
        (("--between", "1-2"), "no two releases"),
        (("--between", "1..99"), "no release 99"),
        (("--reviews", "--from", "2026-02-30"), "no day"),
        (("--reviews", "--from", "2026-03-02", "--to", "2026-03-01"), "not after"),
        (("--reviews", "--to", "9999-12-31"), "no day after 9999-12-31"),
        (("--reviews", "--from", "0001-01-01T00:00:00+05:00"), "not a time"),
        (("--at", "2099-01-01T00:00:00Z"), "in the future"),
        (("--image", "0" * 64, "--from", "2026-03-02"), "do not go with"),
        (("--reviews", "--format", "html"), "a form of one adapter"),
    ],
)
def test_what_cannot_be_asked_is_said(audited, arguments, said):
    answer = audited.plant.clr("audit", *arguments)
    assert answer.code == 2
    assert said in answer.err


def test_an_answer_of_a_broken_ledger_says_so(audited, tmp_path, copy_of):
    plant = copy_of(audited.plant, tmp_path / "plant")
    with closing(sqlite3.connect(plant.state / "ledger/ledger.db")) as database:
        database.execute("DROP TRIGGER clr_ledger_no_update")
        database.execute("UPDATE clr_ledger SET subject = 'clr-red-caps/9' WHERE seq = 3")
        database.commit()
    answer = plant.clr("audit", "--reviews", "--json")
    assert answer.code == 6
    assert not json.loads(answer.out)["ledger"]["intact"]
