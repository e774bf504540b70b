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

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clr.audit import people
from clr.audit.anchor import Anchor
from clr.audit.appending import add
from clr.audit.chain import Entry, Problem, check_text, payload_text
from clr.audit.fitting import Watch
from clr.audit.heads import keep_head, read_head
from clr.audit.key_files import public_pem
from clr.audit.part import Part, read_rows
from clr.audit.people import disclosures, ref_of, shown, stored_subject
from clr.audit.personal import ERASED, Disclosure, mentions, names_openly, placeholder
from clr.audit.signing import PRIVATE_NAME, Head, Signer, load_signer, trusted_keys
from clr.audit.store import NEWEST_ERASURE, PERSONAL, TABLE, Store, rows_of, tables
from clr.audit.trailing import Trailing
from clr.audit.walk import walk
from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError

TRAILING_SECONDS = 0.2
_PAGE = 500
_REFS = 10_000
"""Of one entry about an erasure."""

_STREAM = {"yield_per": _PAGE}
_ROWS = sa.select(TABLE).order_by(TABLE.c.seq)


@cache
def _page(*, by_subject: bool, by_action: bool) -> sa.Select[Any]:
    """Return the query of a page of rows; made once, since that takes longer than it does."""
    query = sa.select(TABLE, NEWEST_ERASURE.label("erasure")).order_by(TABLE.c.seq)
    query = query.where(TABLE.c.seq > sa.bindparam("after")).limit(sa.bindparam("page"))
    if by_subject:
        query = query.where(TABLE.c.subject.in_([sa.bindparam("subject"), sa.bindparam("stored")]))
    return query.where(TABLE.c.action == sa.bindparam("action")) if by_action else query


@dataclass(frozen=True)
class Erasure:
    """What was deleted.

    Attributes:
        entry: the (last) entry about it.
        gone: what it had stood beside the rows, the name first.
    """

    entry: Entry
    gone: tuple[Disclosure, ...]


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
        self._heads: deque[Head] = deque()
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
            payload: facts about it, JSON values only, at most 1 MiB. Names and words in
                fields that clr/audit/personal.py lists are kept so that they can be erased.
            actor: who did it.
            authentication: how that is known: ``local-os-user``, ``mlflow-basic-auth``, …
            key: idempotency key. Where an entry has it already, that one is returned
                as it is and nothing is written. `clr.audit.chain.ACTOR` in it is `actor`.

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
            there, head = add(connection, row, signer, self.head_path)
        self._after(head)
        return there

    def erase(self, name: str, ground: str, *, actor: str, authentication: str) -> Erasure:
        """Delete what the ledger keeps of a person beside its rows, and record that.

        The rows stay, and so do their hashes: they then name ``erased person 1a2b3c4d``.
        Rows from before there were refs keep the name. The files may still hold what was
        deleted until `Ledger.scrub`.

        Args:
            name: as it is in entries.
            ground: why it may be erased; kept in the row itself, so it must name nobody.
            actor: who erases.
            authentication: how that is known.

        Raises:
            UsageError: no entry names a person so, or a text is hostile.
            IntegrityBroken: the ledger lost or changed its newest entries; nothing is erased.
            ServiceUnavailable: it cannot be written.
        """
        row: dict[str, Any] = {"actor": actor, "authentication": authentication, "key": None}
        for what, value in {**row, "key": ERASED, "name": name, "ground": ground}.items():
            check_text(what, value)
        if actor == name or mentions(ground, name):
            raise UsageError(
                f"{name} would be written down anew by the entry about the erasure.",
                fix="Let somebody else erase, and give a reason that does not name the person.",
            )
        signer, head = self._key(), None
        with self._store.writing() as connection:
            person = ref_of(connection, name)
            if person is None:
                raise UsageError(f"No entry of the ledger names {name!r} in a form to be erased.")
            gone = people.erase(connection, person, name)
            for start in range(0, len(gone), _REFS):
                listed = [one.ref for one in gone[start : start + _REFS]]
                row["payload"] = payload_text({"ground": ground, "erased": listed})
                row |= {"action": ERASED, "subject": person}
                there, head = add(connection, row, signer, self.head_path)
        self._after(head)
        return Erasure(replace(there, subject=placeholder(person)), tuple(gone))

    def scrub(self) -> None:
        """Rewrite SQLite's files, so that nothing that was deleted is left in them.

        Raises:
            ServiceUnavailable: somebody reads or writes all the time, or the disk is full.
        """
        self._store.scrub()

    def person(self, name: str) -> str | None:
        """Return the ref that rows have for a person; None where they have none."""
        with self._store.reading() as connection:
            if connection is None or PERSONAL.name not in tables(connection):
                return None
            return ref_of(connection, name)

    def naming(self, name: str) -> list[int]:
        """Return the entries in whose rows a name stands in the clear: those without refs."""
        with self._store.reading() as connection:
            if connection is None:
                return []
            rows = rows_of(connection.execute(_ROWS, execution_options=_STREAM))
            return [int(row["seq"]) for row in rows if names_openly(row, name)]

    def _after(self, head: Head | None) -> None:
        if head is None:
            return
        self._heads.append(head)
        if self._trailing is not None:
            self._trailing.ask()
        else:
            self._follow()

    def _follow(self) -> None:
        """Do what comes after an entry, which is durable without it."""
        heads = []
        with suppress(IndexError):
            while True:
                heads.append(self._heads.popleft())
        if heads:  # of several threads the last to come need not have the newest
            keep_head(self.head_path, max(heads, key=lambda one: one.seq))
            self._store.settle()

    def entries(
        self, subject: str | None = None, action: str | None = None, since_seq: int = 0
    ) -> Iterator[Entry]:
        """Yield the entries after `since_seq` in order, perhaps only of one subject or action.

        They are not verified.

        Raises:
            ServiceUnavailable: the database cannot be reached.
            IntegrityBroken: its file, or a payload in it, is damaged, or all of it is gone.
        """
        query = _page(by_subject=subject is not None, by_action=action is not None)
        asked = {"subject": subject, "action": action, "page": _PAGE}
        while True:
            with self._store.reading() as connection:
                if connection is None:
                    self._require_new()
                    return
                if subject is not None:
                    asked["stored"] = stored_subject(connection, subject)
                page = list(rows_of(connection.execute(query, {**asked, "after": since_seq})))
                erasure = max((row.pop("erasure") for row in page), default=0)
                entries = shown(connection, page, erasure)
            yield from entries
            if len(page) < _PAGE:
                return
            since_seq = entries[-1].seq

    def _require_new(self) -> None:
        head = self.head()
        if head is not None:
            raise IntegrityBroken(
                f"The ledger {self._store.name} is gone: the head file beside it knows "
                f"{head.seq} entries.",
                fix="Bring it back from a backup: clr restore.",
            )

    def head(self) -> Head | None:
        """Return the newest signed head seen on this machine; None before the first append.

        Raises:
            IntegrityBroken: the head file is not one.
            ServiceUnavailable: it cannot be read.
        """
        return read_head(self.head_path)

    def verify(self, anchors: Sequence[Anchor] = ()) -> list[Problem]:
        """Recompute every hash and check every signature; return what is broken, in order.

        Args:
            anchors: heads that were kept elsewhere; the ledger has to hold them.

        Raises:
            ServiceUnavailable: the database cannot be reached.
        """
        try:
            head = self.head()  # before the rows: a head never runs ahead of the rows it signs
            trusted, own = self._trusted(), self._own_key()
            with self._store.reading() as connection:
                if connection is None:
                    return walk((), head, trusted, anchors=anchors)
                problems = [_unprotected(name) for name in self._store.missing_triggers(connection)]
                rows = rows_of(connection.execute(_ROWS, execution_options=_STREAM))
                watch = Watch()
                problems += walk(watch.over(rows), head, trusted, own=own, anchors=anchors)
                return problems + watch.problems(disclosures(connection))
        except IntegrityBroken as error:
            return [Problem(0, "unreadable", error.message, error.fix)]
        except (TypeError, ValueError) as error:
            return [Problem(0, "unreadable", f"A row of the ledger has a wrong type: {error}.")]

    def part(self, since_seq: int, limit: int) -> Part:
        """Return raw rows after `since_seq` with all that it takes to verify them elsewhere.

        Args:
            since_seq: number of an entry, 0 for the beginning.
            limit: of rows.

        Raises:
            ServiceUnavailable: the database, or a file of keys or head, cannot be read.
            IntegrityBroken: it, or such a file, is damaged.
        """
        head = self.head()  # before the rows, as in `verify`
        keys = tuple(public_pem(one).decode() for one in self._trusted().values())
        with self._store.reading() as connection:
            if connection is None:
                return Part((), (), head, keys, (), False)
            rows, personal, more = read_rows(connection, since_seq, limit)
            unprotected = tuple(self._store.missing_triggers(connection))
            return Part(rows, personal, head, keys, unprotected, more)

    def _trusted(self) -> dict[str, Ed25519PublicKey]:
        return trusted_keys(self.keys)

    def _own_key(self) -> str:
        """Return the id of the one key that signs here; empty if others sign, or it is unknown."""
        if self._store.path is None or not (self.keys / PRIVATE_NAME).is_file():
            return ""
        try:
            return self._key().key_id
        except ServiceUnavailable:
            return ""  # an auditor may read the ledger, and not the key

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


def _unprotected(trigger: str) -> Problem:
    return Problem(
        0,
        "unprotected",
        f"The trigger {trigger} that keeps the ledger append-only is missing or changed.",
        "See who could change the database; `Ledger.protect` puts it back.",
    )
