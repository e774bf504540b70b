"""The ledger's table in SQLite or PostgreSQL: append-only triggers, connections, errors."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from clr.errors import ClrError, IntegrityBroken, ServiceUnavailable, UsageError

BUSY_SECONDS = 60.0
"""How long a writer waits for its turn."""

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

_PG_FUNCTIONS = (
    "CREATE OR REPLACE FUNCTION clr_ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$",
    "CREATE OR REPLACE FUNCTION clr_ledger_next() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN IF NEW.seq <> {_NEXT} THEN RAISE EXCEPTION "
    "'the ledger is append-only: not the next entry'; END IF; RETURN NEW; END $$",
)
PG_TRIGGERS = {
    "clr_ledger_no_change": "CREATE TRIGGER clr_ledger_no_change BEFORE UPDATE OR DELETE "
    "ON clr_ledger FOR EACH ROW EXECUTE FUNCTION clr_ledger_refuse()",
    "clr_ledger_no_truncate": "CREATE TRIGGER clr_ledger_no_truncate BEFORE TRUNCATE "
    "ON clr_ledger FOR EACH STATEMENT EXECUTE FUNCTION clr_ledger_refuse()",
    "clr_ledger_in_order": "CREATE TRIGGER clr_ledger_in_order BEFORE INSERT "
    "ON clr_ledger FOR EACH ROW EXECUTE FUNCTION clr_ledger_next()",
}


class Store:
    """Where the rows are; knows SQLite and PostgreSQL, nothing of chains or keys."""

    def __init__(self, path: Path, url: str = "") -> None:
        """Use the SQLite file `path`, or the PostgreSQL database of `url`; connects to nothing.

        Raises:
            UsageError: `url` is not a PostgreSQL URL, or its driver is not installed.
        """
        self.path = None if url else path
        self.engine = _postgresql(url) if url else _sqlite(path)
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
            exists = sa.inspect(connection).has_table(TABLE.name)
            yield connection if exists else None

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
                if self.path is None:
                    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:n)"), {"n": PG_LOCK})
                if not sa.inspect(connection).has_table(TABLE.name):
                    TABLE.create(connection)
                    self._create_triggers(connection)
                yield connection

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
        found = connection.exec_driver_sql(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass('clr_ledger') "
            "AND tgenabled IN ('O', 'A')"
        )
        enabled = {name for (name,) in found}
        return [name for name in PG_TRIGGERS if name not in enabled]

    def _create_triggers(self, connection: sa.Connection) -> None:
        missing = self.missing_triggers(connection)
        if self.path is None:
            for statement in _PG_FUNCTIONS:
                connection.exec_driver_sql(statement)
        triggers = SQLITE_TRIGGERS if self.path else PG_TRIGGERS
        for name in missing:
            connection.exec_driver_sql(triggers[name])

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


def _sqlite(path: Path) -> sa.Engine:
    # One connection a transaction: none can be carried over a fork, which SQLite forbids.
    engine = sa.create_engine(
        "sqlite://", creator=lambda: _sqlite_connection(path), poolclass=sa.NullPool
    )

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A write lock taken late, after a read, fails at once instead of waiting its turn.
        write = connection.get_execution_options().get("clr_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _sqlite_connection(path: Path) -> sqlite3.Connection:
    for options in ("mode=rwc", "mode=ro"):
        try:
            return _tuned(path, options)
        except sqlite3.OperationalError as error:
            # asked of SQLite, not of file modes, which say nothing of read-only file systems
            refused = ("readonly", "unable to open")
            if not path.exists() or not any(word in str(error) for word in refused):
                raise
    # a WAL database needs its -shm file; where none can be made it can only be read as is
    return _open(path, "mode=ro&immutable=1")


def _open(path: Path, options: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?{options}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def _tuned(path: Path, options: str) -> sqlite3.Connection:
    connection = _open(path, options)
    try:
        # asking first matters: setting the mode needs a lock for which SQLite does not wait
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            _enter_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _enter_wal(connection: sqlite3.Connection) -> Any:
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _postgresql(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgres":
            parsed = parsed.set(drivername="postgresql")
        if parsed.get_backend_name() != "postgresql":
            raise UsageError(
                f"The ledger cannot be kept in {parsed.get_backend_name()!r}.",
                fix="Give a URL postgresql://user@host/database, or none for SQLite.",
            )
        return sa.create_engine(parsed, poolclass=sa.NullPool)
    except sa.exc.ArgumentError as error:
        raise UsageError(
            "The ledger's URL is not a database URL.",
            fix="Write it as postgresql://user:password@host:5432/database.",
        ) from error
    except ImportError as error:
        raise UsageError(
            f"The ledger's PostgreSQL driver is not installed: {error}.",
            fix='Install it: pip install "psycopg[binary]".',
        ) from error
