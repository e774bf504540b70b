"""The ledger's table in SQLite or PostgreSQL: append-only triggers, transactions, errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from clr.audit.engines import postgresql_engine, settle, sqlite_engine
from clr.errors import ClrError, IntegrityBroken, ServiceUnavailable

PG_LOCK = 0x636C726C
"""Advisory lock that PostgreSQL writers hold for one transaction each."""

TABLE = sa.Table(
    "clr_ledger",
    sa.MetaData(),
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


class Store:
    """Where the rows are; knows SQLite and PostgreSQL, nothing of chains or keys."""

    def __init__(self, path: Path, url: str = "") -> None:
        """Use the SQLite file `path`, or the PostgreSQL database of `url`; connects to nothing.

        Raises:
            UsageError: `url` is not a PostgreSQL URL, or its driver is not installed.
        """
        self.path = None if url else path
        self.engine = postgresql_engine(url) if url else sqlite_engine(path)
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
        with self._translated(), self.engine.connect() as connection:
            yield connection if self._has_table(connection) else None

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
        if not self._has_table(connection):
            TABLE.create(connection)
            self._create_triggers(connection)

    def settle(self) -> None:
        """Bring what was committed from SQLite's log into its file, if that can be done now."""
        if self.path is not None:
            with suppress(ClrError), self._translated(), self.engine.connect() as connection:
                settle(connection)

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

    def _has_table(self, connection: sa.Connection) -> bool:
        # asked on every access: SQLAlchemy's own inspection costs more than the access itself
        query = "SELECT to_regclass('clr_ledger')"
        if self.path is not None:
            query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'clr_ledger'"
        return connection.exec_driver_sql(query).scalar() is not None

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
