"""The ledger keeps what is appended, once, and says when somebody touched it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from clr.audit.chain import GENESIS
from clr.audit.ledger import open_ledger
from clr.errors import IntegrityBroken, UsageError

WHO = {"actor": "ada", "authentication": "local-os-user"}


def kinds(ledger):
    return [(problem.kind, problem.seq) for problem in ledger.verify()]


def test_an_unused_ledger_is_empty_and_sound_and_leaves_no_file(ledger, state):
    assert (list(ledger.entries()), ledger.head(), ledger.verify()) == ([], None, [])
    assert not state.exists()


def test_an_entry_comes_back_as_it_was_recorded(ledger):
    made = ledger.append("release.activated", "clr-release/1", {"é": [1, None, 0.5]}, **WHO)
    assert list(ledger.entries()) == [made]
    assert (made.seq, made.previous, made.payload) == (1, GENESIS, {"é": [1, None, 0.5]})
    assert (made.actor, made.authentication) == ("ada", "local-os-user")


def test_each_entry_names_the_hash_of_the_one_before(filled):
    entries = list(filled.entries())
    assert [one.seq for one in entries] == [1, 2, 3, 4, 5, 6]
    assert [one.previous for one in entries[1:]] == [one.hash for one in entries[:-1]]
    assert filled.verify() == []


def test_entries_can_be_filtered(filled):
    assert [one.seq for one in filled.entries(subject="clr-animals/2")] == [3, 4]
    assert [one.seq for one in filled.entries(action="gate.passed", since_seq=2)] == [4, 6]
    assert list(filled.entries(subject="clr-animals")) == []


def test_entries_come_page_by_page_without_gap(ledger, monkeypatch):
    monkeypatch.setattr("clr.audit.ledger._PAGE", 2)
    for number in range(5):
        ledger.append("act", f"s/{number}", **WHO)
    assert [one.seq for one in ledger.entries()] == [1, 2, 3, 4, 5]


def test_the_same_key_records_once_and_the_first_record_stays(filled):
    again = filled.append("review.approved", "clr-animals/1", {"late": 1}, key="key-1", **WHO)
    assert (again.seq, again.payload) == (1, {"number": 1})
    assert len(list(filled.entries())) == 6


def test_a_key_of_another_act_is_refused(filled):
    with pytest.raises(UsageError, match=r"key-1.*entry 1"):
        filled.append("review.rejected", "clr-animals/1", key="key-1", **WHO)


def test_the_head_follows_the_last_entry(filled, state):
    last = list(filled.entries())[-1]
    assert (filled.head().seq, filled.head().hash) == (6, last.hash)
    assert open_ledger(state).head() == filled.head()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE clr_ledger SET actor = 'eve' WHERE seq = 2",
        "DELETE FROM clr_ledger WHERE seq = 6",
        "INSERT OR REPLACE INTO clr_ledger SELECT * FROM clr_ledger WHERE seq = 6",
        "INSERT INTO clr_ledger SELECT 9, time, actor, authentication, action, subject, payload, "
        "'k9', 'p9', 'h9', key_id, signature FROM clr_ledger WHERE seq = 6",
    ],
)
def test_the_table_refuses_everything_but_the_next_entry(filled, database, statement):
    with (
        closing(sqlite3.connect(database)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(statement)
    assert filled.verify() == []


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("UPDATE clr_ledger SET actor = 'eve' WHERE seq = 2", [("edited", 2)]),
        (
            "UPDATE clr_ledger SET payload = '{}' WHERE seq IN (2, 5)",
            [("edited", 2), ("edited", 5)],
        ),
        ("UPDATE clr_ledger SET key = NULL WHERE seq = 1", [("edited", 1)]),
        ("UPDATE clr_ledger SET signature = 'AAAA' WHERE seq = 4", [("signature", 4)]),
        ("DELETE FROM clr_ledger WHERE seq = 3", [("deleted", 3)]),
        ("DELETE FROM clr_ledger WHERE seq IN (1, 2)", [("deleted", 1)]),
        ("DELETE FROM clr_ledger WHERE seq IN (5, 6)", [("truncated", 5)]),
        ("DELETE FROM clr_ledger", [("truncated", 1)]),
        ("DROP TABLE clr_ledger", [("truncated", 1)]),
        (
            "UPDATE clr_ledger SET seq = 99 WHERE seq = 3; UPDATE clr_ledger SET seq = 3 WHERE "
            "seq = 4; UPDATE clr_ledger SET seq = 4 WHERE seq = 99",
            [("reordered", 3), ("reordered", 4)],
        ),
        (
            "DELETE FROM clr_ledger WHERE seq = 3; "
            "UPDATE clr_ledger SET seq = seq - 1 WHERE seq > 3",
            [("reordered", 3), ("reordered", 4), ("reordered", 5), ("truncated", 6)],
        ),
        ("UPDATE clr_ledger SET seq = 'x' WHERE seq = 6", [("unreadable", 0)]),
    ],
)
def test_every_touched_row_is_named(filled, tamper, sql, named):
    if "DROP" in sql:
        with closing(sqlite3.connect(filled._store.path)) as connection:
            connection.execute(sql)
    else:
        tamper(sql)
    assert kinds(filled) == named


def test_a_row_hashed_anew_lacks_the_signature(filled, tamper):
    from clr.audit.chain import digest

    with closing(sqlite3.connect(filled._store.path)) as connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM clr_ledger WHERE seq = 6").fetchone())
    forged = digest({**row, "actor": "eve"})
    tamper(f"UPDATE clr_ledger SET actor = 'eve', hash = '{forged}' WHERE seq = 6")
    assert kinds(filled) == [("signature", 6), ("rewritten", 6)]


def test_a_missing_trigger_is_named_and_can_be_put_back(filled, database):
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TRIGGER clr_ledger_no_delete")
    assert kinds(filled) == [("unprotected", 0)]
    filled.protect()
    assert filled.verify() == []


def test_a_missing_head_is_a_problem_and_stops_appending(filled):
    filled.head_path.unlink()
    assert kinds(filled) == [("head-missing", 0)]
    with pytest.raises(IntegrityBroken, match="head"):
        filled.append("act", "s/1", **WHO)


@pytest.mark.parametrize("seq", [2, 6])
def test_a_head_that_somebody_else_wrote_is_a_problem(filled, tmp_path, seq):
    from clr.audit.signing import load_signer

    entry = next(filled.entries(since_seq=seq - 1))
    filled.head_path.write_bytes(load_signer(tmp_path / "eve").sign(seq, entry.hash).to_json())
    assert kinds(filled) == [("head-signature", seq)]


def test_nothing_is_appended_over_a_cut_off_end(filled, tamper):
    tamper("DELETE FROM clr_ledger WHERE seq > 4")
    with pytest.raises(IntegrityBroken, match="Entries 5 to 6 are missing") as caught:
        filled.append("act", "s/1", **WHO)
    assert caught.value.exit_code == 6
    assert [one.seq for one in filled.entries()] == [1, 2, 3, 4]


def test_another_key_has_to_be_trusted_first(filled, state, tmp_path):
    for public in filled.keys.glob("*.pub"):
        public.rename(tmp_path / public.name)
    assert ("unknown-key", 1) in kinds(filled)
    for public in tmp_path.glob("*.pub"):
        public.rename(filled.keys / public.name)
    assert filled.verify() == []


def test_verifying_ten_thousand_entries_takes_seconds(filled):
    """Hash and signature of one entry cost well under a millisecond."""
    import time

    from clr.audit.signing import trusted_keys
    from clr.audit.walk import walk

    with closing(sqlite3.connect(filled._store.path)) as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM clr_ledger ORDER BY seq")]
    trusted = trusted_keys(filled.keys)
    start = time.process_time()
    for _ in range(50):
        walk(rows, None, trusted)
    assert (time.process_time() - start) / (50 * len(rows)) < 0.001


def test_a_url_that_is_not_postgresql_is_refused(state):
    with pytest.raises(UsageError, match="mysql"):
        open_ledger(state, "mysql://host/db")
    with pytest.raises(UsageError, match="URL"):
        open_ledger(state, "not a url")
