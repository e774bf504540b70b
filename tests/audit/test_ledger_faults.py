"""Full disks, missing rights, broken files, many processes, kill -9: the chain stays whole."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from clr.audit.engines import postgresql_engine
from clr.audit.ledger import open_ledger
from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError

WHO = {"actor": "ada", "authentication": "local-os-user"}
WRITER = """
import sys
from pathlib import Path
from clr.audit.ledger import open_ledger
ledger = open_ledger(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    ledger.append("act", f"s/{number}", {"number": number}, actor=sys.argv[2],
                  authentication="local-os-user", key=f"{sys.argv[2]}-{number}")
"""
SMALL_DISK = """
import resource, sys
from pathlib import Path
from clr.audit.ledger import open_ledger
from clr.errors import ClrError
ledger = open_ledger(Path(sys.argv[1]))
size = ledger._store.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    for number in range(100):
        ledger.append("act", "s/1", {"x": "a" * 50_000}, actor="ada", authentication="test")
except ClrError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def test_processes_that_append_at_once_make_one_chain_without_gap(state):
    writers = [start(WRITER, state, f"writer{number}", 15) for number in range(4)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0, 0]
    ledger = open_ledger(state)
    assert [one.seq for one in ledger.entries()] == list(range(1, 61))
    assert ledger.verify() == []
    assert ledger.head().seq == 60


@pytest.mark.parametrize("milliseconds", [0, 7, 23, 61])
def test_a_killed_writer_leaves_a_valid_chain_that_the_same_call_completes(state, milliseconds):
    writer = start(WRITER, state, "ada", 1000)
    writer.stdout.readline()
    time.sleep(milliseconds / 1000)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    ledger = open_ledger(state)
    assert ledger.verify() == []
    done = len(list(ledger.entries()))
    for number in range(done + 2):
        ledger.append("act", f"s/{number}", {"number": number}, key=f"ada-{number}", **WHO)
    assert [one.key for one in ledger.entries()] == [f"ada-{n}" for n in range(done + 2)]
    assert ledger.verify() == []


def test_killed_between_the_entry_and_its_head_the_next_append_catches_up(ledger, monkeypatch):
    ledger.append("act", "s/1", key="one", **WHO)
    with monkeypatch.context() as patch:
        patch.setattr("clr.audit.ledger.keep_head", lambda *_, **__: None)
        ledger.append("act", "s/2", key="two", **WHO)
    assert (ledger.head().seq, ledger.verify()) == (1, [])
    ledger.append("act", "s/3", key="three", **WHO)
    assert (ledger.head().seq, ledger.verify()) == (3, [])


def test_a_full_disk_is_said_so_and_costs_no_entry(filled, state):
    writer = start(SMALL_DISK, state)
    said = writer.communicate(timeout=60)[0]
    assert writer.returncode == ServiceUnavailable.exit_code, said
    assert "disk" in said
    ledger = open_ledger(state)
    assert ledger.verify() == []
    count = len(list(ledger.entries()))
    assert ledger.append("act", "s/1", **WHO).seq == count + 1


def test_who_may_only_read_can_verify_but_not_append(open_state, somebody_else):
    open_ledger(open_state).append("act", "s/1", **WHO)
    for path in sorted(open_state.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (open_state / "keys/ledger.key").chmod(0o400)
    open_state.chmod(0o555)
    with somebody_else():
        ledger = open_ledger(open_state)
        assert (ledger.verify(), len(list(ledger.entries()))) == ([], 1)
        with pytest.raises(ServiceUnavailable):
            ledger.append("act", "s/2", **WHO)


def test_a_broken_database_is_named_and_not_written(filled, database):
    before = database.read_bytes()
    for name in ("ledger.db-wal", "ledger.db-shm"):
        database.with_name(name).unlink(missing_ok=True)
    database.write_bytes(b"not a database at all" * 500)
    assert [one.kind for one in filled.verify()] == ["unreadable"]
    with pytest.raises(IntegrityBroken, match="damaged"):
        filled.append("act", "s/1", **WHO)
    database.write_bytes(before)
    assert filled.verify() == []


def test_a_deleted_database_is_missed(filled, database):
    for path in database.parent.glob("ledger.db*"):
        path.unlink()
    assert [(one.kind, one.seq) for one in filled.verify()] == [("truncated", 1)]
    with pytest.raises(IntegrityBroken, match="knows 6 entries"):
        list(filled.entries())
    with pytest.raises(IntegrityBroken, match="Entries 1 to 6"):
        filled.append("act", "s/1", **WHO)


def test_a_signing_key_made_anew_does_not_hide_a_missing_head(filled):
    filled.head_path.unlink()
    (filled.keys / "ledger.key").unlink()
    with pytest.raises(IntegrityBroken, match="head"):
        open_ledger(filled.keys.parent).append("act", "s/1", **WHO)


def test_a_copy_of_the_file_alone_has_every_entry_while_the_ledger_is_open(filled, database):
    copy = database.with_name("copy.db")
    copy.write_bytes(database.read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT max(seq) FROM clr_ledger").fetchone() == (6,)


def test_a_file_put_back_under_an_open_ledger_is_the_one_that_counts(filled, database):
    older = database.with_name("older.db")
    older.write_bytes(database.read_bytes())
    filled.append("act", "s/1", **WHO)
    older.replace(database)
    assert [(one.kind, one.seq) for one in filled.verify()] == [("truncated", 7)]
    with pytest.raises(IntegrityBroken, match="Entry 7 is missing"):
        filled.append("act", "s/2", **WHO)


def test_a_forked_child_appends_beside_its_parent(filled):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number in range(10):
                filled.append("act", f"s/{number}", actor="child", authentication="test")
            code = 0
        finally:
            os._exit(code)
    for number in range(10):
        filled.append("act", f"s/{number}", **WHO)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [one.seq for one in filled.entries()] == list(range(1, 27))
    assert filled.verify() == []


def test_threads_that_append_at_once_share_one_ledger(filled):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: filled.append("act", f"s/{n}", **WHO), range(40)))
    assert [one.seq for one in filled.entries()] == list(range(1, 47))
    assert filled.verify() == []


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:abc/x", "here", "mysql://host/x"])
def test_an_address_that_is_none_of_a_database_is_a_mistake_and_no_bug(url):
    with pytest.raises(UsageError, match="ledger") as caught:
        postgresql_engine(url)
    assert "postgresql://" in caught.value.fix
