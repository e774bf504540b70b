"""One act written into the ledger, within a transaction that no other writer shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from clr.audit.chain import ACTOR, GENESIS, Entry, Problem, digest, entry, utc_now
from clr.audit.heads import keep_head, read_head
from clr.audit.people import Refs, shown
from clr.audit.signing import Head, Signer
from clr.audit.store import NEWEST_ERASURE, TABLE, rows_of
from clr.audit.walk import head_problems
from clr.errors import IntegrityBroken, UsageError

_INSERT = TABLE.insert()
_WITH_KEY = sa.select(TABLE).where(TABLE.c.key.in_([sa.bindparam("key"), sa.bindparam("plain")]))
_HASH_AT = sa.select(TABLE.c.hash).where(TABLE.c.seq == sa.bindparam("seq"))
_LAST = (
    sa.select(TABLE.c.seq, TABLE.c.hash, NEWEST_ERASURE.label("erasure"))
    .order_by(TABLE.c.seq.desc())
    .limit(1)
)


def add(
    connection: sa.Connection, row: dict[str, Any], signer: Signer, head_path: Path
) -> tuple[Entry, Head | None]:
    """Write an act with the next number, signed.

    Args:
        connection: in a transaction of a writer.
        row: action, subject, actor, authentication, key and the payload's text, with names.
        signer: of this machine.
        head_path: file of the newest head that it has seen.

    Returns:
        the entry and the head that it makes; an older entry and None where its key is there.

    Raises:
        UsageError: the key belongs to another act.
        IntegrityBroken: the ledger lost or changed its newest entries.
    """
    last = connection.execute(_LAST).mappings().first()
    refs = Refs(connection, last["erasure"] if last is not None else 0)
    stored = refs.hide(row)
    if (there := _with_key(connection, row, stored["key"], refs)) is not None:
        return there, None
    _check_tail(connection, last, signer, head_path)
    seq, previous = (last["seq"] + 1, last["hash"]) if last is not None else (1, GENESIS)
    stored |= {"seq": seq, "previous": previous, "time": utc_now(), "key_id": signer.key_id}
    stored["hash"] = digest(stored)
    head = signer.sign(seq, stored["hash"])
    stored["signature"] = head.signature
    refs.keep()
    connection.execute(_INSERT, stored)
    as_stored = {name: stored[name] for name in ("actor", "subject", "payload", "key")}
    return entry({**stored, **row, "key": _plain_key(row), "stored": as_stored}), head


def _plain_key(row: dict[str, Any]) -> str | None:
    key: str | None = row["key"]
    return key and key.replace(ACTOR, row["actor"])


def _with_key(
    connection: sa.Connection, row: dict[str, Any], key: str | None, refs: Refs
) -> Entry | None:
    """Return the entry that has the key of `row`, also one from before there were refs."""
    if key is None:
        return None
    there = connection.execute(_WITH_KEY, {"key": key, "plain": _plain_key(row)})
    found = shown(connection, list(rows_of(there)), refs.erasure)
    return _same_act(found[0], row["action"], row["subject"]) if found else None


def _same_act(there: Entry, action: str, subject: str) -> Entry:
    if (there.action, there.subject) != (action, subject):
        raise UsageError(
            f"The idempotency key {there.key!r} belongs to entry {there.seq} of the ledger "
            f"({there.action} of {there.subject}), not to {action} of {subject}.",
            fix="Derive the key from what the act is about.",
            seq=there.seq,
        )
    return there


def _check_tail(
    connection: sa.Connection, last: sa.RowMapping | None, signer: Signer, head_path: Path
) -> None:
    """Refuse to append to a ledger that lost or changed the head this machine has seen."""
    head = read_head(head_path)
    count = int(last["seq"]) if last is not None else 0
    at_head: str | None = GENESIS
    if head is not None and last is not None and head.seq == count:
        at_head = last["hash"]
    elif head is not None and head.seq:
        at_head = connection.execute(_HASH_AT, {"seq": head.seq}).scalar()
    elif head is None and not (count and _knows(connection, signer)):
        # sealed before the first entry, so that a kill right after it is no lost head
        sealed = (count, last["hash"]) if last is not None else (0, GENESIS)
        keep_head(head_path, signer.sign(*sealed), strictly=True)
        return
    for problem in head_problems(head, count, at_head or ""):
        raise _broken(problem)


def _knows(connection: sa.Connection, signer: Signer) -> bool:
    """Say whether this machine has written to the ledger before, so must have a head."""
    if connection.dialect.name == "sqlite":
        return True
    own = sa.select(TABLE.c.seq).where(TABLE.c.key_id == signer.key_id).limit(1)
    return connection.execute(own).first() is not None


def _broken(problem: Problem) -> IntegrityBroken:
    return IntegrityBroken(
        f"{problem.message} Nothing was written.",
        fix=f"{problem.fix} `clr verify` names what is broken.",
        seq=problem.seq,
        kind=problem.kind,
    )
