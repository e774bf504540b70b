"""`clr verify` compares the registry with the ledger: what SQL changed behind its back is named."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from clr.errors import IntegrityBroken


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """A difference is looked at three times, a second apart; here nobody else writes."""
    monkeypatch.setattr("flows.agreement.PAUSE_SECONDS", 0.0)


def sql(plant, *statements):
    """Change the registry's database directly; no server, no policy, no ledger entry."""
    with closing(sqlite3.connect(plant.state / "mlflow.db")) as database, database:
        for statement in statements:
            assert database.execute(statement).rowcount, f"changes nothing: {statement}"


def broken(plant):
    """Return what `clr verify` names, as "subject: message"."""
    answer = plant.clr("verify", "--json")
    assert "problems" in answer.json, answer
    found = [f"{one['subject']}: {one['message']}" for one in answer.json["problems"]]
    assert answer.code == (IntegrityBroken.exit_code if found else 0)
    return found


def tag(model, key, value, version=1):
    return (
        f"UPDATE model_version_tags SET value = '{value}' "
        f"WHERE name = '{model}' AND version = {version} AND key = '{key}'"
    )


def new_tag(model, key, value):
    return (
        "INSERT INTO model_version_tags (name, version, key, value) "
        f"VALUES ('{model}', 1, '{key}', '{value}')"
    )


def test_three_honest_promotions_agree_and_say_that_their_evidence_is_weaker(working):
    answer = working.clr("verify", "--json")
    assert (answer.code, answer.json["problems"]) == (0, [])
    assert (answer.json["checked"]["releases"], answer.json["checked"]["reviews"]) == (3, 3)
    notes = {one["subject"]: one["message"] for one in answer.json["notes"]}
    assert set(notes) == {"clr-red-caps/1", "clr-green-caps/1", "clr-blue-caps/1"}
    assert all("local-os-user: weaker evidence" in message for message in notes.values())


def test_a_quorum_that_was_raised_later_is_a_note(working):
    file = working.root / "mlflow" / "policy.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text("schema: clr.policy/1\nreview: {quorum: 2}\n")
    answer = working.clr("verify", "--json")
    assert (answer.code, answer.json["problems"]) == (0, [])
    assert "has 1 approval(s); the policy now asks for 2" in answer.out


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            "DELETE FROM registered_model_aliases WHERE name = 'clr-green-caps'",
            "clr-green-caps: its alias champion is missing, but the release says version 1",
        ),
        (
            "UPDATE registered_model_aliases SET version = 7 WHERE name = 'clr-green-caps'",
            "clr-green-caps: its alias champion is on version 7, but the release says version 1",
        ),
        (
            "INSERT INTO registered_model_aliases (name, alias, version) "
            "VALUES ('clr-green-caps', 'previous', 1)",
            "clr-green-caps: its alias previous is on version 1, but the ledger says no version",
        ),
        (
            "UPDATE registered_model_aliases SET version = 1 "
            "WHERE name = 'clr-release' AND alias = 'previous'",
            "clr-release: its alias previous is on version 1, but the ledger says version 2",
        ),
        (
            tag("clr-green-caps", "review", "pending"),
            "clr-green-caps/1: its tag review says 'pending', the ledger 'approved'",
        ),
        (
            tag("clr-green-caps", "review", "rejected"),
            "clr-green-caps/1: its tag review says 'rejected', the ledger 'approved'",
        ),
        (
            tag("clr-green-caps", "clr.reviewed_by", "eve"),
            "clr-green-caps/1: its tag clr.reviewed_by says 'eve', the ledger ",
        ),
        (
            tag("clr-green-caps", "clr.reviewed_at", "2026-01-01T00:00:00.000000Z"),
            "clr-green-caps/1: its tag clr.reviewed_at says '2026-01-01T00:00:00.000000Z', ",
        ),
        (
            tag("clr-green-caps", "clr.verdict", "refused"),
            "clr-green-caps/1: its tag clr.verdict says 'refused', the ledger 'passed'",
        ),
        (
            new_tag("clr-green-caps", "clr.created_by", "eve"),
            "clr-green-caps/1: its tag clr.created_by says 'eve', the ledger 'nothing'",
        ),
    ],
)
def test_one_row_changed_behind_the_servers_back_is_the_one_thing_named(working, statement, named):
    sql(working, statement)
    (found,) = broken(working)
    assert found.startswith(named)


def test_another_release_made_to_serve_by_sql(working):
    sql(
        working,
        "UPDATE registered_model_aliases SET version = 2 "
        "WHERE name = 'clr-release' AND alias = 'champion'",
    )
    found = broken(working)
    assert any(
        one.startswith("clr-release/2: is in force, but by entry ")
        and one.endswith("of the ledger clr-release/3 is")
        for one in found
    )


def test_a_release_that_is_gone_breaks_the_chain(working):
    sql(
        working,
        "DELETE FROM model_version_tags WHERE name = 'clr-release' AND version = 2",
        "DELETE FROM model_versions WHERE name = 'clr-release' AND version = 2",
    )
    found = broken(working)
    assert any("clr-release/3: follows the release sha256:" in one for one in found)
    assert "clr-release/2: served once by the ledger, but is no longer in the registry" in found


def test_a_version_that_is_gone(working):
    working.clr("review", "green-caps", 1, "approve")
    sql(
        working,
        "DELETE FROM model_version_tags WHERE name = 'clr-green-caps'",
        "DELETE FROM registered_model_aliases WHERE name = 'clr-green-caps'",
        "DELETE FROM model_versions WHERE name = 'clr-green-caps'",
    )
    found = broken(working)
    assert "clr-green-caps/1: serves by the release, but is not in the registry" in found
    assert any("clr-green-caps/1: was registered (entry " in one for one in found)


@pytest.fixture
def second_version(working):
    """Version 2 of green-caps, registered and never reviewed, with the same bytes as version 1."""
    return lambda session: _second_version(session)


def _second_version(session):
    from clr.registry.fetch import adapter_path
    from clr.registry.package import BackboneReference
    from clr.registry.runs import find_or_start_run
    from clr.registry.versions import get_version, register_adapter

    registry = session.registry
    first = get_version(registry, "green-caps", 1)
    return register_adapter(
        registry,
        find_or_start_run(registry, "green-caps", "again"),
        adapter_path(registry, "green-caps", 1, first.adapter_digest),
        key="again",
        backbone=BackboneReference(session.backbone.name, session.backbone.digest),
        data_digest=first.data_digest,
        card="",
        tags={name: first.tags[name] for name in ("clr.verdict", "clr.evidence_digest")},
    )


def promote_unseen(session):
    """Make version 2 champion without any review, as who holds the registry's key could."""
    from clr.registry.releases import current_release, promote
    from flows.activation import record

    second, serving = _second_version(session), current_release(session.registry)
    before = serving.tasks["green-caps"]
    release = promote(
        session.registry,
        replace(before, version=second.version),
        gate_release=serving.digest,
        backbone=serving.backbone,
        router=serving.router,
        gate=serving.gate,
    )
    record(session, release)
    return second


def test_a_champion_without_approval_is_named_though_its_bytes_were_approved_as_version_1(working):
    promote_unseen(working.session())
    found = broken(working)
    assert (
        "clr-green-caps/2: is champion, but the ledger has 0 of 1 approvals of its bytes" in found
    )


def test_an_approval_that_only_the_tags_tell(working):
    session = working.session()
    promote_unseen(session)
    session.registry.client.set_model_version_tag("clr-green-caps", "2", "review", "approved")
    session.registry.client.set_model_version_tag("clr-green-caps", "2", "clr.reviewed_by", "ada")
    found = broken(working)
    assert "clr-green-caps/2: its tag review says 'approved', the ledger 'pending'" in found
    assert "clr-green-caps/2: its tag clr.reviewed_by says 'ada', the ledger 'nothing'" in found


def test_a_rejection_taken_back_by_sql(working):
    session = working.session()
    second = _second_version(session)
    assert (
        working.clr("review", "green-caps", second.version, "reject", "--reason", "blurred").code
        == 0
    )
    before = broken(working)
    sql(working, tag("clr-green-caps", "review", "pending", second.version))
    (found,) = set(broken(working)) - set(before)
    assert found == "clr-green-caps/2: its tag review says 'pending', the ledger 'rejected'"
