"""The ledger in PostgreSQL, as several machines share it: same chain, same refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from clr.audit.chain import GENESIS
from clr.audit.ledger import open_ledger
from clr.audit.people import disclosures
from clr.errors import IntegrityBroken, ServiceUnavailable

WHO = {"actor": "ada", "authentication": "mlflow-basic-auth"}
WRITER = """
import sys
from pathlib import Path
from clr.audit.ledger import open_ledger
state, url, name, count = sys.argv[1:]
ledger = open_ledger(Path(state), url)
for number in range(int(count)):
    ledger.append("act", f"s/{number}", {"number": number}, actor=name,
                  authentication="mlflow-basic-auth", key=f"{name}-{number}")
"""


@pytest.fixture
def ledger(state, postgres):
    """A ledger with six entries."""
    ledger = open_ledger(state, postgres)
    for number in range(1, 7):
        ledger.append("review.approved", f"clr-animals/{number}", {"é": number}, **WHO)
    return ledger


def execute(url, *statements):
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement)


def kinds(ledger):
    return [(problem.kind, problem.seq) for problem in ledger.verify()]


def test_an_unused_database_is_an_empty_sound_ledger(state, postgres):
    ledger = open_ledger(state, postgres)
    assert (list(ledger.entries()), ledger.head(), ledger.verify()) == ([], None, [])


def test_entries_come_back_chained_signed_and_with_a_head(ledger, state):
    entries = list(ledger.entries())
    assert [one.payload for one in entries] == [{"é": number} for number in range(1, 7)]
    assert [one.previous for one in entries] == [GENESIS, *(one.hash for one in entries[:-1])]
    assert (ledger.head().seq, ledger.head().hash) == (6, entries[-1].hash)
    assert ledger.verify() == []
    assert not (state / "ledger/ledger.db").exists()


def test_the_same_key_records_once(ledger):
    first = ledger.append("act", "s/1", key="once", **WHO)
    assert ledger.append("act", "s/1", {"late": 1}, key="once", **WHO) == first


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE clr_ledger SET actor = 'eve' WHERE seq = 2",
        "DELETE FROM clr_ledger WHERE seq = 6",
        "TRUNCATE clr_ledger",
        "INSERT INTO clr_ledger SELECT 9, time, actor, authentication, action, subject, payload, "
        "'k9', 'p9', 'h9', key_id, signature FROM clr_ledger WHERE seq = 6",
        "INSERT INTO clr_ledger SELECT * FROM clr_ledger WHERE seq = 6 "
        "ON CONFLICT (seq) DO UPDATE SET actor = 'eve'",
    ],
)
def test_the_table_refuses_everything_but_the_next_entry(ledger, postgres, statement):
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        execute(postgres, statement)
    assert ledger.verify() == []


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE clr_ledger SET actor = 'eve' WHERE seq = 2", [("edited", 2)]),
        ("DELETE FROM clr_ledger WHERE seq = 3", [("deleted", 3)]),
        ("DELETE FROM clr_ledger WHERE seq > 4", [("truncated", 5)]),
    ],
)
def test_who_switches_the_triggers_off_is_found_by_the_chain(ledger, postgres, statement, named):
    execute(
        postgres,
        "ALTER TABLE clr_ledger DISABLE TRIGGER ALL",
        statement,
        "ALTER TABLE clr_ledger ENABLE TRIGGER ALL",
    )
    assert kinds(ledger) == named


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER clr_ledger_no_truncate ON clr_ledger",
        "ALTER TABLE clr_ledger DISABLE TRIGGER clr_ledger_no_truncate",
    ],
)
def test_a_trigger_gone_or_off_is_named_and_can_be_put_back(ledger, postgres, statement):
    execute(postgres, statement)
    assert kinds(ledger) == [("unprotected", 0)]
    ledger.protect()
    assert ledger.verify() == []


def test_a_trigger_whose_function_does_nothing_is_named_and_can_be_put_back(ledger, postgres):
    execute(
        postgres,
        "CREATE OR REPLACE FUNCTION clr_ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN COALESCE(NEW, OLD); END $$",
    )
    assert ("unprotected", 0) in kinds(ledger)
    ledger.protect()
    assert ledger.verify() == []


def test_nothing_is_appended_over_a_cut_off_end(ledger, postgres):
    execute(
        postgres,
        "ALTER TABLE clr_ledger DISABLE TRIGGER ALL",
        "DELETE FROM clr_ledger WHERE seq > 4",
    )
    with pytest.raises(IntegrityBroken, match="Entries 5 to 6 are missing"):
        ledger.append("act", "s/1", **WHO)
    assert len(list(ledger.entries())) == 4


def test_a_person_is_erased_from_the_database_all_machines_share(ledger, tmp_path, postgres):
    ledger.append("order", "s/1", {"reason": "bob asked", "os_user": "bob"}, **WHO)
    other = open_ledger(tmp_path / "other", postgres)
    assert {one.actor for one in other.entries()} == {"ada"}
    done = ledger.erase("ada", "asked on 3 March", actor="root", authentication="local-os-user")
    ledger.scrub()
    assert [one.text.split()[-1] for one in done.gone] == ["ada", "asked"]
    assert {one.actor for one in other.entries()} == {done.entry.subject, "root"}
    assert ledger.verify() == []
    with psycopg.connect(postgres) as connection:
        left = connection.execute("SELECT value FROM clr_ledger_personal").fetchall()
    assert sorted(left) == [('"bob"',), ('"root"',)]


def test_a_name_changed_or_gone_in_the_database_is_named(ledger, postgres):
    execute(postgres, "UPDATE clr_ledger_personal SET value = '\"eve\"'")
    assert kinds(ledger) == [("renamed", 1)]
    execute(postgres, "DELETE FROM clr_ledger_personal")
    assert kinds(ledger) == [("nameless", 1)]


def test_names_in_any_script_and_control_characters_come_back(ledger):
    reason = '見た\u0000\n\t"good" \\ 100 %'
    ledger.append("order", "s/1", {"reason": reason}, actor="Ada 愛", authentication="x")
    last = list(ledger.entries())[-1]
    assert (last.actor, last.payload["reason"]) == ("Ada 愛", reason)
    assert ledger.verify() == []


def test_four_processes_of_two_machines_make_one_chain_without_gap(tmp_path, postgres):
    """Each machine has its own signing key and its own head; the database is the one table."""
    machines = [tmp_path / "one", tmp_path / "other"]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, machines[n % 2], postgres, f"writer{n}", "25"]
        )
        for n in range(4)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0, 0]
    ledger = open_ledger(machines[0], postgres)
    entries = list(ledger.entries())
    assert [one.seq for one in entries] == list(range(1, 101))
    assert len({(one.actor, one.payload["number"]) for one in entries}) == 100
    assert len({one.key_id for one in entries}) == 2
    assert [one.kind for one in ledger.verify()] == ["unknown-key"]
    _trust(machines[1], machines[0])
    assert ledger.verify() == []


def _trust(machine: Path, by: Path) -> None:
    for public in (machine / "keys").glob("*.pub"):
        (by / "keys" / public.name).write_bytes(public.read_bytes())


def test_a_server_that_is_gone_is_named_without_its_password(state, postgres):
    secret = postgres.split(":")[2].split("@")[0]
    away = postgres.rpartition("@")[0] + "@127.0.0.1:9/ledger"
    with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1") as caught:
        open_ledger(state, away).append("act", "s/1", **WHO)
    assert secret not in str(caught.value)
    assert caught.value.exit_code == 7


def test_a_server_that_cuts_connections_off_costs_no_entry(ledger, postgres):
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert ledger.append("act", "s/1", **WHO).seq == 7
    assert ledger.verify() == []


def test_who_is_erased_while_the_ledger_is_verified_breaks_nothing(
    ledger, state, postgres, monkeypatch
):
    """Rows and names are read one after the other, and have to be of one moment."""

    def late(connection):
        open_ledger(state, postgres).erase("ada", "ticket 17", **{**WHO, "actor": "bob"})
        return disclosures(connection)

    with monkeypatch.context() as patched:
        patched.setattr("clr.audit.ledger.disclosures", late)
        assert ledger.verify() == []
    assert ledger.verify() == []
    assert ledger.person("ada") is None
