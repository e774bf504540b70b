"""The ledger: who did what to which adapter, appended once, chained, signed, verifiable.

Rows are in one table (clr/audit/store.py), each holding the hash of the row
before it (clr/audit/chain.py) and an Ed25519 signature of the head it makes
(clr/audit/signing.py). The newest head this installation has seen is also kept
in a file beside the database, so that rows cut off the end are missed.

What this cannot see: somebody with the private key who rewrites table and head
file together, or who restores an older copy of both. Keep heads elsewhere
(`Ledger.head`) against that.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from clr.audit.chain import (
    GENESIS,
    Entry,
    Problem,
    check_text,
    digest,
    entry,
    payload_text,
    utc_now,
)
from clr.audit.signing import Head, Signer, load_signer, trusted_keys
from clr.audit.store import TABLE, Store
from clr.audit.trailing import Trailing
from clr.audit.walk import head_problems, walk
from clr.core.files import write_atomic
from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError

LOG = logging.getLogger(__name__)
TRAILING_SECONDS = 0.2
_PAGE = 500

_INSERT = TABLE.insert()
_LAST = sa.select(TABLE.c.seq, TABLE.c.hash).order_by(TABLE.c.seq.desc()).limit(1)


class Ledger:
    """An append-only record of acts; make one with `open_ledger`.

    Attributes:
        keys: folder of the signing key and of the trusted public keys.
        head_path: file of the newest signed head seen on this machine.
    """

    def __init__(self, store: Store, keys: Path, head_path: Path, *, trailing: bool) -> None:
        """Use `store`; touches no file yet. See `open_ledger`."""
        self._store = store
        self._signer: Signer | None = None
        self._newest: Head | None = None
        self._trailing = Trailing(self._follow, TRAILING_SECONDS) if trailing else None
        self.keys = keys
        self.head_path = head_path

    def append(
        self,
        action: str,
        subject: str,
        payload: Mapping[str, Any] | None = None,
        *,
        actor: str,
        authentication: str,
        key: str | None = None,
    ) -> Entry:
        """Record one act and return it as recorded; durable when this returns.

        Args:
            action: what was done, e.g. ``review.approved``.
            subject: to what, e.g. ``clr-animals/3``.
            payload: facts about it, JSON values only, at most 1 MiB.
            actor: who did it.
            authentication: how that is known: ``local-os-user``, ``mlflow-basic-auth``, …
            key: idempotency key. Where an entry has it already, that one is returned
                as it is and nothing is written.

        Raises:
            UsageError: a text is empty or hostile, the payload is not JSON or too large,
                or `key` belongs to another act.
            IntegrityBroken: the ledger lost or changed its newest entries; nothing is written.
            ServiceUnavailable: unreachable, read-only, disk full, or locked for a minute.
        """
        row: dict[str, Any] = {"action": action, "subject": subject, "actor": actor}
        row |= {"authentication": authentication, "key": key}
        for name, value in row.items():
            if name != "key" or value is not None:
                check_text(name, value)
        row["payload"] = payload_text(payload)
        signer = self._key()
        with self._store.writing() as connection:
            if key is not None and (there := _with_key(connection, key)) is not None:
                return _same_act(there, action, subject)
            last = connection.execute(_LAST).mappings().first()
            self._check_tail(connection, last, signer)
            seq, previous = (last["seq"] + 1, last["hash"]) if last is not None else (1, GENESIS)
            row |= {"seq": seq, "previous": previous, "time": utc_now(), "key_id": signer.key_id}
            row["hash"] = digest(row)
            head = signer.sign(seq, row["hash"])
            row["signature"] = head.signature
            connection.execute(_INSERT, row)
        self._newest = head
        if self._trailing is not None:
            self._trailing.ask()
        else:
            self._follow()
        return entry(row)

    def _follow(self) -> None:
        """Do what comes after an entry, which is durable without it."""
        if self._newest is not None:
            self._keep(self._newest)
            self._store.settle()

    def entries(
        self, subject: str | None = None, action: str | None = None, since_seq: int = 0
    ) -> Iterator[Entry]:
        """Yield the entries after `since_seq` in order, perhaps only of one subject or action.

        They are not verified.

        Raises:
            ServiceUnavailable: the database cannot be reached.
            IntegrityBroken: its file, or a payload in it, is damaged.
        """
        query = sa.select(TABLE).order_by(TABLE.c.seq).limit(_PAGE)
        if subject is not None:
            query = query.where(TABLE.c.subject == subject)
        if action is not None:
            query = query.where(TABLE.c.action == action)
        while True:
            with self._store.reading() as connection:
                if connection is None:
                    return
                page = connection.execute(query.where(TABLE.c.seq > since_seq)).mappings().all()
            for row in page:
                yield entry(dict(row))
            if len(page) < _PAGE:
                return
            since_seq = page[-1]["seq"]

    def head(self) -> Head | None:
        """Return the newest signed head seen on this machine; None before the first append.

        Raises:
            IntegrityBroken: the head file is not one.
            ServiceUnavailable: it cannot be read.
        """
        try:
            return Head.from_json(self.head_path.read_bytes(), str(self.head_path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ServiceUnavailable(
                f"The ledger head {self.head_path} cannot be read: {error.strerror or error}.",
                fix="Make it readable for this user.",
            ) from error

    def verify(self) -> list[Problem]:
        """Recompute every hash and check every signature; return what is broken, in order.

        Raises:
            ServiceUnavailable: the database cannot be reached.
        """
        try:
            head = self.head()  # before the rows: a head never runs ahead of the rows it signs
            trusted = trusted_keys(self.keys)
            with self._store.reading() as connection:
                if connection is None:
                    return walk((), head, trusted)
                problems = [_unprotected(name) for name in self._store.missing_triggers(connection)]
                query = sa.select(TABLE).order_by(TABLE.c.seq)
                rows = connection.execution_options(yield_per=_PAGE).execute(query).mappings()
                return problems + walk(map(dict, rows), head, trusted)
        except IntegrityBroken as error:
            return [Problem(0, "unreadable", error.message, error.fix)]
        except (TypeError, ValueError) as error:
            return [Problem(0, "unreadable", f"A row of the ledger has a wrong type: {error}.")]

    def protect(self) -> None:
        """Create the append-only triggers that are missing or switched off.

        Raises:
            ServiceUnavailable: the database cannot be written.
        """
        self._store.protect()

    def _key(self) -> Signer:
        if self._signer is None:
            self._signer = load_signer(self.keys)
        return self._signer

    def _check_tail(
        self, connection: sa.Connection, last: sa.RowMapping | None, signer: Signer
    ) -> None:
        """Refuse to append to a ledger that lost or changed the head this machine has seen."""
        head = self.head()
        count = int(last["seq"]) if last is not None else 0
        at_head: str | None = GENESIS
        if head is not None and last is not None and head.seq == count:
            at_head = last["hash"]
        elif head is not None and head.seq:
            query = sa.select(TABLE.c.hash).where(TABLE.c.seq == head.seq)
            at_head = connection.execute(query).scalar()
        elif head is None and not (count and self._knows(connection, signer)):
            # sealed before the first entry, so that a kill right after it is no lost head
            sealed = (count, last["hash"]) if last is not None else (0, GENESIS)
            self._keep(signer.sign(*sealed), strictly=True)
            return
        for problem in head_problems(head, count, at_head or ""):
            raise _broken(problem)

    def _knows(self, connection: sa.Connection, signer: Signer) -> bool:
        """Say whether this machine has written to the ledger before, so must have a head."""
        if self._store.path is not None:
            return True
        own = sa.select(TABLE.c.seq).where(TABLE.c.key_id == signer.key_id).limit(1)
        return connection.execute(own).first() is not None

    def _keep(self, head: Head, *, strictly: bool = False) -> None:
        """Write `head` to the head file unless a newer one is there."""
        try:
            self.head_path.parent.mkdir(parents=True, exist_ok=True)
            with self.head_path.with_suffix(".lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                kept = self.head()
                if kept is None or kept.seq < head.seq:
                    write_atomic(self.head_path, head.to_json())
        except OSError as error:
            if strictly:
                raise ServiceUnavailable(
                    f"The ledger head {self.head_path} cannot be written: "
                    f"{os.strerror(error.errno or 0)}.",
                    fix="Free some disk space, or make the folder writable for this user.",
                ) from error
            # the entry is durable and signed; the next append brings the file up to date
            LOG.warning("The ledger head %s could not be updated: %s", self.head_path, error)


def open_ledger(state: Path, url: str = "", *, trailing: bool = False) -> Ledger:
    """Open the ledger of an installation; creates nothing until the first append.

    Args:
        state: folder of all state (``CLR_HOME``). The database is ``ledger/ledger.db`` in
            it, the head ``ledger/head.json``, the keys are in ``keys/``.
        url: PostgreSQL URL of a ledger that several machines share; empty for SQLite.
        trailing: whether an append returns as soon as its entry is durable; head file and
            database file follow in a fraction of a second; a kill leaves that to the next.

    Raises:
        UsageError: `url` is not a PostgreSQL URL, or its driver is not installed.
    """
    folder = state / "ledger"
    store, head = Store(folder / "ledger.db", url), folder / "head.json"
    return Ledger(store, state / "keys", head, trailing=trailing)


def _with_key(connection: sa.Connection, key: str) -> Entry | None:
    row = connection.execute(sa.select(TABLE).where(TABLE.c.key == key)).mappings().first()
    return None if row is None else entry(dict(row))


def _same_act(there: Entry, action: str, subject: str) -> Entry:
    if (there.action, there.subject) != (action, subject):
        raise UsageError(
            f"The idempotency key {there.key!r} belongs to entry {there.seq} of the ledger "
            f"({there.action} of {there.subject}), not to {action} of {subject}.",
            fix="Derive the key from what the act is about.",
            seq=there.seq,
        )
    return there


def _broken(problem: Problem) -> IntegrityBroken:
    return IntegrityBroken(
        f"{problem.message} Nothing was written.",
        fix=f"{problem.fix} `clr verify` names what is broken.",
        seq=problem.seq,
        kind=problem.kind,
    )


def _unprotected(trigger: str) -> Problem:
    return Problem(
        0,
        "unprotected",
        f"The trigger {trigger} that keeps the ledger append-only is missing or changed.",
        "See who could change the database; `Ledger.protect` puts it back.",
    )
