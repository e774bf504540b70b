"""A ledger that is read through a server whose owner is not trusted.

The server here is a small HTTP server that serves a real ledger as the registry does
(tests/server/test_audit_access.py has the real one), and lies where a test says so.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa

from clr.audit.ledger import open_ledger
from clr.audit.signing import load_signer
from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from clr.registry.served import ServedLedger
from clr.registry.store import Registry

ALICE = {"actor": "alice", "authentication": "mlflow-basic-auth"}


class Owner:
    """Who runs the server, and can put anything in the place of the ledger.

    Attributes:
        state: ``CLR_HOME`` of the server.
        most: rows in one answer.
        lie: changes what is sent.
        status: of the answers.
    """

    def __init__(self, state: Path) -> None:
        self.state, self.most, self.status = state, 1000, 200
        self.lie: Any = lambda answer: answer
        self.asked = 0

    def ledger(self) -> Any:
        return open_ledger(self.state)

    def write(self, count: int = 1) -> None:
        ledger = self.ledger()
        for number in range(count):
            ledger.append("review.approved", f"clr-x/{number}", {"reason": "fine"}, **ALICE)

    def sql(self, *changes: str) -> None:
        """Change rows past the triggers, which are put back."""
        ledger = self.ledger()
        with sa.create_engine(f"sqlite:///{self.state / 'ledger/ledger.db'}").begin() as database:
            for trigger in ("no_update", "no_delete", "in_order"):
                database.exec_driver_sql(f"DROP TRIGGER IF EXISTS clr_ledger_{trigger}")
            for change in changes:
                assert database.exec_driver_sql(change).rowcount, change
        ledger.protect()

    def seal(self, seq: int) -> None:
        """Sign a head for the rows that are left."""
        (row,) = self.ledger().part(seq - 1, 1).rows
        head = load_signer(self.state / "keys").sign(seq, row["hash"])
        (self.state / "ledger/head.json").write_bytes(head.to_json())

    def answer(self, query: dict[str, list[str]]) -> Any:
        self.asked += 1
        limit = min(self.most, int(query["limit"][0]))
        part = self.ledger().part(int(query["since"][0]), limit)
        return self.lie({**part.as_dict(), "policy": None})


@pytest.fixture
def owner(tmp_path) -> Owner:
    made = Owner(tmp_path / "server")
    made.write(5)
    return made


@pytest.fixture
def url(owner) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = json.dumps(owner.answer(parse_qs(urlsplit(self.path).query))).encode()
            self.send_response(owner.status)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def look(url, tmp_path):
    """Function () -> the ledger as an auditor's next command opens it."""
    client: Any = None
    registry = Registry(client, url, embedded=False, artifacts="", cache=tmp_path, guarded=True)
    return lambda: ServedLedger(registry, tmp_path / "auditor")


def kinds(ledger) -> list[str]:
    return [one.kind for one in ledger.verify()]


# --- an honest server ---------------------------------------------------------------------------


def test_entries_are_those_of_the_server_with_names_and_words(owner, look):
    ledger = look()
    assert ledger.verify() == []
    assert list(ledger.entries()) == list(owner.ledger().entries())
    assert [one.seq for one in ledger.entries(subject="clr-x/3")] == [4]
    assert [one.seq for one in ledger.entries(since_seq=3)] == [4, 5]
    assert ledger.head() == owner.ledger().head()


def test_many_rows_come_in_parts_each_fetched_once(owner, look):
    owner.most = 2
    ledger = look()
    assert ledger.verify() == []
    assert len(list(ledger.entries())) == 5
    assert owner.asked == 3


def test_rows_with_large_payloads_come_in_smaller_parts(owner, look):
    for number in range(6):
        owner.ledger().append("note", f"x/{number}", {"text": "x" * 1_000_000}, **ALICE)
    assert len(owner.ledger().part(0, 1000).rows) < 11
    assert look().verify() == []


def test_what_is_written_between_two_looks_is_no_alarm(owner, look):
    assert look().verify() == []
    owner.write(3)
    ledger = look()
    assert ledger.verify() == []
    owner.write()
    assert ledger.verify() == []
    assert len(list(ledger.entries())) == 9


def test_an_erased_person_is_erased_here_too_and_that_is_no_alarm(owner, look, tmp_path):
    assert look().verify() == []
    owner.ledger().erase("alice", "asked for it", actor="keeper", authentication="local-os-user")
    ledger = look()
    assert ledger.verify() == []
    assert all("alice" not in json.dumps(one.as_dict()) for one in ledger.entries())
    kept = [path for path in (tmp_path / "auditor").rglob("*") if path.is_file()]
    assert kept
    assert all(b"alice" not in path.read_bytes() for path in kept)


def test_a_server_without_an_entry_has_an_empty_ledger(owner, look):
    shutil.rmtree(owner.state)
    ledger = look()
    assert (ledger.verify(), list(ledger.entries()), ledger.head()) == ([], [], None)


# --- a server whose owner changes something -------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("UPDATE clr_ledger SET action = 'review.rejected' WHERE seq = 2", "edited"),
        ("DELETE FROM clr_ledger WHERE seq = 3", "deleted"),
        ("DELETE FROM clr_ledger WHERE seq = 5", "truncated"),
        ("UPDATE clr_ledger SET signature = 'AAAA' WHERE seq = 4", "signature"),
        ("UPDATE clr_ledger_personal SET value = '\"bob\"' WHERE owner = ref", "renamed"),
        ("DELETE FROM clr_ledger_personal WHERE owner = ref", "nameless"),
    ],
)
def test_a_changed_row_is_found_at_the_first_look(owner, look, change, kind):
    owner.sql(change)
    assert kind in kinds(look())


def test_a_missing_trigger_is_told(owner, look):
    with sa.create_engine(f"sqlite:///{owner.state / 'ledger/ledger.db'}").begin() as database:
        database.exec_driver_sql("DROP TRIGGER clr_ledger_no_delete")
    assert kinds(look()) == ["unprotected"]


def test_an_end_cut_off_with_a_head_signed_anew_is_found_since_the_last_look(owner, look):
    """Who has the private key makes a head for whatever is left: only a reader can tell."""
    assert look().verify() == []
    owner.sql("DELETE FROM clr_ledger WHERE seq > 3")
    owner.seal(3)
    assert owner.ledger().verify() == []
    (problem,) = look().verify()
    assert problem.kind == "anchor-truncated"
    assert "of your last look" in problem.message


def test_other_rows_written_in_their_place_are_found_too(owner, look):
    assert look().verify() == []
    owner.sql("DELETE FROM clr_ledger WHERE seq > 3")
    owner.seal(3)
    owner.write(4)
    assert owner.ledger().verify() == []
    assert kinds(look()) == ["anchor-rewritten"]


def test_a_whole_ledger_signed_with_another_key_is_found(owner, look, tmp_path):
    assert look().verify() == []
    shutil.rmtree(owner.state)
    owner.write(8)
    assert owner.ledger().verify() == []
    found = look().verify()
    assert {one.kind for one in found} == {"unknown-key", "head-signature", "anchor-rewritten"}
    (unknown,) = (one for one in found if one.kind == "unknown-key")
    assert str(tmp_path / "auditor") in unknown.fix


def test_a_new_key_counts_once_its_file_is_put_beside_the_others(owner, look, tmp_path):
    assert look().verify() == []
    keys = owner.state / "keys"
    (keys / "ledger.key").unlink()
    owner.write()
    assert "unknown-key" in kinds(look())
    (place,) = (tmp_path / "auditor" / "audited").glob("*/keys")
    for file in keys.glob("*.pub"):
        shutil.copy(file, place)
    assert look().verify() == []


def test_a_broken_ledger_is_not_what_later_looks_are_compared_with(owner, look):
    assert look().verify() == []
    owner.write()
    owner.sql("UPDATE clr_ledger SET action = 'x' WHERE seq = 6")
    assert "edited" in kinds(look())
    owner.sql("DELETE FROM clr_ledger WHERE seq = 6")
    owner.seal(5)
    owner.write()
    assert look().verify() == []


@pytest.mark.parametrize(
    "lie",
    [
        lambda answer: {**answer, "rows": None},
        lambda answer: {**answer, "rows": [{}]},
        lambda answer: {**answer, "rows": answer["rows"][::-1]},
        lambda answer: {**answer, "rows": [], "more": True},
        lambda answer: {**answer, "rows": [{**answer["rows"][0], "hash": 1}]},
        lambda answer: {**answer, "head": {"seq": 1}},
        lambda answer: {**answer, "keys": ["-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"]},
        lambda answer: {**answer, "keys": [1]},
        lambda answer: {**answer, "personal": [{"ref": "x"}]},
        lambda answer: {**answer, "policy": 1},
    ],
)
def test_an_answer_that_is_no_ledger_is_a_finding_and_no_traceback(owner, look, lie):
    owner.lie = lie
    (problem,) = look().verify()
    assert problem.kind == "unreadable"


def test_entries_out_of_order_are_not_read(owner, look):
    owner.lie = lambda answer: {**answer, "rows": answer["rows"][::-1]}
    with pytest.raises(IntegrityBroken, match="out of order"):
        list(look().entries())


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [(404, {}, "does not tell its ledger"), (200, [], "not in a valid JSON format")],
)
def test_a_server_of_another_kind_is_named(owner, look, status, answer, said):
    owner.status, owner.lie = status, lambda _: answer
    with pytest.raises(ServiceUnavailable, match=said):
        look().verify()


# --- nothing is written ---------------------------------------------------------------------------


def test_no_act_is_written_into_the_ledger_of_a_server(owner, look):
    before = owner.ledger().head()
    ledger = look()
    for act in (
        lambda: ledger.append("review.approved", "clr-x/1", **ALICE),
        lambda: ledger.erase("alice", "asked for it", actor="bob", authentication="x"),
        ledger.protect,
    ):
        with pytest.raises(UsageError):
            act()
    assert owner.ledger().head() == before
