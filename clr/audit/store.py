"""The ledger's table in SQLite or PostgreSQL: append-only triggers, transactions, errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from clr.audit.engines import postgresql_engine, scrub, settle, sqlite_engine
from clr.errors import ClrError, IntegrityBroken, ServiceUnavailable

PG_LOCK = 0x636C726C
"""Advisory lock that PostgreSQL writers hold for one transaction each."""

_META = sa.MetaData()
TABLE = sa.Table(
    "clr_ledger",
    _META,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("authentication", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False, index=True),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=True, unique=True),
    sa.Column("previous", sa.Text, nullable=False, unique=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
)

PERSONAL = sa.Table(
    "clr_ledger_personal",
    _META,
    sa.Column("ref", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False, index=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
)
"""What refs in the rows stand for; unlike those, it can be deleted (clr/audit/personal.py)."""

_IS_NAME = PERSONAL.c.owner == PERSONAL.c.ref
sa.Index(
    "ix_clr_ledger_names",
    PERSONAL.c.value,
    unique=True,
    sqlite_where=_IS_NAME,
    postgresql_where=_IS_NAME,
)
_IS_ERASURE = TABLE.c.action == "person.erased"
_ERASURES = sa.Index(
    "ix_clr_ledger_erasures", TABLE.c.seq, sqlite_where=_IS_ERASURE, postgresql_where=_IS_ERASURE
)
NEWEST_ERASURE = (
    sa.select(sa.func.coalesce(sa.func.max(TABLE.c.seq), 0)).where(_IS_ERASURE).scalar_subquery()
)
"""Changes whenever something that may be remembered is erased."""

_NEXT = "(SELECT COALESCE(MAX(seq), 0) + 1 FROM clr_ledger)"

# REPLACE deletes rows without firing DELETE triggers: only a check before INSERT stops it.
SQLITE_TRIGGERS = {
    "clr_ledger_no_update": "CREATE TRIGGER clr_ledger_no_update BEFORE UPDATE ON clr_ledger "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "clr_ledger_no_delete": "CREATE TRIGGER clr_ledger_no_delete BEFORE DELETE ON clr_ledger "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "clr_ledger_in_order": "CREATE TRIGGER clr_ledger_in_order BEFORE INSERT ON clr_ledger "  # noqa: S608
    f"WHEN NEW.seq <> {_NEXT} OR EXISTS (SELECT 1 FROM clr_ledger WHERE hash = NEW.hash "
    "OR previous = NEW.previous OR key = NEW.key) "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: not the next entry'); END",
}

_PG_BODIES = {
    "clr_ledger_refuse": "BEGIN RAISE EXCEPTION 'the ledger is append-only'; END",
    "clr_ledger_next": f"BEGIN IF NEW.seq <> {_NEXT} THEN RAISE EXCEPTION "
    "'the ledger is append-only: not the next entry'; END IF; RETURN NEW; END",
}
# by name: pg_trigger.tgtype (1 row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate),
# the same in words, and the function
PG_TRIGGERS = {
    "clr_ledger_no_change": (27, "BEFORE UPDATE OR DELETE", "ROW", "clr_ledger_refuse"),
    "clr_ledger_no_truncate": (34, "BEFORE TRUNCATE", "STATEMENT", "clr_ledger_refuse"),
    "clr_ledger_in_order": (7, "BEFORE INSERT", "ROW", "clr_ledger_next"),
}
_PG_PRESENT = (
    "SELECT tgname, tgtype, proname, prosrc FROM pg_trigger "
    "JOIN pg_proc ON pg_proc.oid = tgfoid WHERE tgrelid = to_regclass('clr_ledger') "
    "AND tgenabled IN ('O', 'A') AND tgqual IS NULL AND cardinality(tgattr) = 0"
)

_SQLITE_TABLES = (
    "SELECT name FROM sqlite_master WHERE type = 'table' "
    "AND name IN ('clr_ledger', 'clr_ledger_personal')"
)
_PG_TABLES = (
    "SELECT relname FROM pg_class "
    "WHERE oid IN (to_regclass('clr_ledger'), to_regclass('clr_ledger_personal'))"
)


def tables(connection: sa.Connection) -> set[str]:
    """Return which of our tables are there; older ledgers get that of names with an entry."""
    # asked on every access: SQLAlchemy's own inspection costs more than the access itself
    query = _SQLITE_TABLES if connection.dialect.name == "sqlite" else _PG_TABLES
    return {name for (name,) in connection.exec_driver_sql(query)}


def rows_of(result: sa.CursorResult[Any]) -> Iterator[dict[str, Any]]:
    """Yield rows as dictionaries, in a fifth of the time that SQLAlchemy's mappings take."""
    names = tuple(result.keys())
    return (dict(zip(names, row, strict=True)) for row in result)


class Store:
    """Where the rows are; knows SQLite and PostgreSQL, nothing of chains or keys."""

    def __init__(self, path: Path, url: str = "") -> None:
        """Use the SQLite file `path`, or the PostgreSQL database of `url`; connects to nothing.

        Raises:
            UsageError: `url` is not a PostgreSQL URL, or its driver is not installed.
        """
        self.path = None if url else path
        self.engine = postgresql_engine(url) if url else sqlite_engine(path)
        # SQLite reads one moment anyhow; a writer has to see what was written before its lock
        self._views = (
            self.engine.execution_options(isolation_level="REPEATABLE READ") if url else self.engine
        )
        self.name = self.engine.url.render_as_string(hide_password=True) if url else str(path)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection | None]:
        """Open one consistent view of the table; None where there is no ledger yet.

        Raises:
            ServiceUnavailable: the database cannot be reached.
            IntegrityBroken: its file is damaged.
        """
        if self.path is not None and not self.path.exists():
            yield None
            return
        with self._translated(), self._views.connect() as connection:
            yield connection if TABLE.name in tables(connection) else None

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a transaction that no other writer shares; commits at the end, or does nothing.

        Raises:
            ServiceUnavailable: unreachable, read-only, full, or other writers took too long.
            IntegrityBroken: the file is damaged, or its triggers refuse the row.
        """
        with self._translated():
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            connecting = self.engine.connect().execution_options(clr_write=True)
            with connecting as connection, connection.begin():
                self._prepare(connection)
                yield connection

    def _prepare(self, connection: sa.Connection) -> None:
        if self.path is None:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:n)"), {"n": PG_LOCK})
        there = tables(connection)
        if TABLE.name not in there:
            TABLE.create(connection)
            self._create_triggers(connection)
        if PERSONAL.name not in there:
            PERSONAL.create(connection)
            _ERASURES.create(connection, checkfirst=True)

    def settle(self) -> None:
        """Bring what was committed from SQLite's log into its file, if that can be done now."""
        if self.path is not None:
            with suppress(ClrError), self._translated(), self.engine.connect() as connection:
                settle(connection)

    def scrub(self) -> None:
        """Rewrite what may still hold bytes of deleted values: SQLite's files, PostgreSQL's table.

        Raises:
            ServiceUnavailable: others read or write for a minute, or the disk is full.
        """
        with self._translated():
            if self.path is None:
                engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
                with engine.connect() as connection:
                    connection.exec_driver_sql(f"VACUUM FULL {PERSONAL.name}")
                return
            try:
                if self.path.exists():
                    scrub(self.path)
            except sqlite3.Error as error:
                raise self._unavailable(str(error)) from error

    def protect(self) -> None:
        """Create the append-only triggers that are missing or switched off."""
        with self.writing() as connection:
            for name in self.missing_triggers(connection):
                connection.exec_driver_sql(
                    f"DROP TRIGGER IF EXISTS {name}" + ("" if self.path else " ON clr_ledger")
                )
            self._create_triggers(connection)

    def missing_triggers(self, connection: sa.Connection) -> list[str]:
        """Return the names of append-only triggers that are absent, changed or switched off."""
        if self.path is not None:
            found = connection.exec_driver_sql(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            )
            present: dict[str, str] = {name: sql for name, sql in found}  # noqa: C416
            return [name for name, sql in SQLITE_TRIGGERS.items() if present.get(name) != sql]
        rows = connection.exec_driver_sql(_PG_PRESENT)
        working = {name: (when, function, body) for name, when, function, body in rows}
        return [
            name
            for name, (when, _, _, function) in PG_TRIGGERS.items()
            if working.get(name) != (when, function, _PG_BODIES[function])
        ]

    def _create_triggers(self, connection: sa.Connection) -> None:
        for name in self.missing_triggers(connection):
            if self.path is not None:
                connection.exec_driver_sql(SQLITE_TRIGGERS[name])
                continue
            _, event, each, function = PG_TRIGGERS[name]
            connection.exec_driver_sql(
                f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger "
                f"LANGUAGE plpgsql AS $${_PG_BODIES[function]}$$"
            )
            connection.exec_driver_sql(
                f"CREATE TRIGGER {name} {event} ON clr_ledger "
                f"FOR EACH {each} EXECUTE FUNCTION {function}()"
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ClrError:
            raise
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error
        except sa.exc.DBAPIError as error:
            raise self._known(error) from error

    def _known(self, error: sa.exc.DBAPIError) -> ClrError:
        reason = str(error.orig or error).strip().splitlines()[0]
        if any(mark in reason for mark in ("malformed", "not a database")):
            return IntegrityBroken(
                f"The ledger {self.name} is damaged: {reason}.",
                fix="Restore it from a backup, then run `clr verify`.",
                path=self.name,
            )
        if isinstance(error, sa.exc.IntegrityError) or "append-only" in reason:
            return IntegrityBroken(
                f"The ledger {self.name} refused a row: {reason}.",
                fix="Run `clr verify`; something writes to the ledger from outside.",
                path=self.name,
            )
        return self._unavailable(reason)

    def _unavailable(self, reason: str) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"The ledger {self.name} cannot be used: {reason}.",
            fix="See that it can be reached and written and that its disk is not full.",
            path=self.name,
        )
