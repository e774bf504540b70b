"""`clr status`: what serves, how far reviews are, and what evidence they are."""

from __future__ import annotations

import pytest


def row(answer, task):
    (found,) = [one for one in answer.json["tasks"] if one["name"] == task]
    return found


def policy(plant, text):
    file = plant.root / "mlflow" / "policy.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"schema: clr.policy/1\n{text}\n", encoding="utf-8")


def test_an_approval_without_a_server_is_shown_as_the_weaker_one(working):
    answer = working.clr("status", "--json")
    found = row(answer, "red-caps")
    assert (found["champion"], found["evidence"]) == (1, "local-os-user")
    assert (found["review"], found["promotion"]) == ("approved", found["promotion"])
    assert found["approvals"].startswith("1 of 1: ")
    assert answer.json["warnings"] == []
    shown = working.clr("status").out
    assert "local (weaker)" in shown
    assert "approved (1 of 1)" in shown


def test_fields_that_scripts_read_stay(working):
    answer = working.clr("status", "--json").json
    first = {"tasks", "release", "services", "warnings"}
    assert first | {"health", "queue", "runs", "waiting"} == set(answer)
    old = {"name", "champion", "candidate", "versions", "accuracy", "verdict", "review"}
    assert old | {"approvals", "evidence", "promotion"} == set(answer["tasks"][0])
    assert answer["services"]["registry"].startswith("embedded, ")


def test_four_eyes_switched_off_is_said_first_and_loudly(working):
    policy(working, "four_eyes: false")
    assert working.clr("status").out.startswith("WARNING  FOUR EYES ARE OFF")
    (said,) = working.clr("status", "--json").json["warnings"]
    assert "FOUR EYES ARE OFF" in said


def test_a_quorum_that_is_still_open(working):
    policy(working, "review: {quorum: 2}")
    assert row(working.clr("status", "--json"), "red-caps")["approvals"].startswith("1 of 2: ")


@pytest.mark.parametrize("left", [None, b"not a database" * 100], ids=["nothing", "rubbish"])
def test_a_ledger_that_is_gone_is_said_and_the_rest_is_shown(working, left):
    for path in (working.state / "ledger").glob("ledger.db*"):
        path.unlink()
    if left is not None:
        (working.state / "ledger" / "ledger.db").write_bytes(left)
    answer = working.clr("status", "--json")
    assert answer.code == 0
    assert "THE LEDGER CANNOT BE READ" in answer.json["warnings"][0]
    assert row(answer, "red-caps")["champion"] == 1


def test_what_waits_for_review_is_told_with_its_age(plant, new_caps, tmp_path):
    assert plant.clr("status", "--json").json["waiting"] == []
    assert plant.clr("onboard", new_caps(tmp_path / "red-caps", 0)).code == 0
    (waits,) = plant.clr("status", "--json").json["waiting"]
    assert (waits["task"], waits["version"], waits["link"]) == ("red-caps", 1, "")
    assert "T" in waits["since"]
    assert "Waiting for review" in plant.clr("status").out


def test_the_live_table_is_shown_again_and_again(working, capsys):
    from flows.status import watch_status

    seen = []
    watch_status(working.session(), lambda known: seen.append(known) or "drawn", 0.01, rounds=2)
    assert len(seen) == 2
    assert "drawn" in capsys.readouterr().out
    refused = working.clr("status", "--watch", "--json")
    assert (refused.code, "for people" in refused.err) == (2, True)


def test_a_server_that_is_gone_is_told_and_the_rest_is_shown(working):
    gone = {
        "CLR_REGISTRY_URL": "http://rita:secret@127.0.0.1:9",
        "PREFECT_API_URL": "http://rita:secret@127.0.0.1:9/api",
    }
    answer = working.clr("status", "--json", **gone)
    assert answer.code == 0
    assert "secret" not in answer.out + answer.err
    states = {name: one["state"] for name, one in answer.json["health"].items()}
    assert states == {"registry": "unreachable", "prefect": "unreachable"}
    assert any("registry IS UNREACHABLE (http://127.0.0.1:9)" in one
               for one in answer.json["warnings"])  # fmt: skip
    assert answer.json["tasks"] == []
    assert answer.json["queue"]["scheduled"] is None
