"""Connections to the ledger's database: kept between transactions, and never a stale one."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import time
import weakref
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from clr.errors import UsageError

BUSY_SECONDS = 60.0
"""How long a writer waits for its turn."""

# kept open, for as many threads as come: closing SQLite's last one costs three disk syncs
_POOL: dict[str, Any] = {
    "poolclass": sa.QueuePool,
    "pool_size": 2,
    "max_overflow": -1,
    "pool_use_lifo": True,
}


def sqlite_engine(path: Path) -> sa.Engine:
    """Return an engine for the SQLite file `path`; connects to nothing yet."""
    engine = sa.create_engine("sqlite://", creator=lambda: _sqlite_connection(path), **_POOL)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A write lock taken late, after a read, fails at once instead of waiting its turn.
        write = connection.get_execution_options().get("clr_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    @sa.event.listens_for(engine, "checkin")
    def _leave(_: Any, record: Any) -> None:
        record.info["files"] = _files(path)

    @sa.event.listens_for(engine, "checkout")
    def _still_the_same(_: Any, record: Any, __: Any) -> None:
        # what was deleted, restored or written by others is opened anew
        left = record.info.get("files", ...)
        if left is not ... and (left is None or left != _files(path)):
            raise sa.exc.DisconnectionError("the ledger's files have changed")

    return _closed_at_a_fork(engine)


def settle(connection: sa.Connection) -> None:
    """Bring what was committed from SQLite's log into the file itself, and empty the log.

    So that a copy of the file has every entry, and a log never meets a file put back from a
    backup. Not needed for durability: where others read or write just now, they do it.
    """
    raw: Any = connection.connection.dbapi_connection  # outside of any transaction
    with suppress(sqlite3.Error):
        raw.execute("PRAGMA busy_timeout=0").fetchone()
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    raw.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000:.0f}").fetchone()


def scrub(path: Path) -> None:
    """Write a SQLite database anew and empty its log: deleted bytes are in neither after that.

    Raises:
        sqlite3.OperationalError: others use it for too long, or there is no room for a copy.
    """
    with closing(_open(path, "mode=rw")) as connection:
        connection.execute("VACUUM")
        deadline = time.monotonic() + BUSY_SECONDS
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise sqlite3.OperationalError("its log is read all the time")
            time.sleep(0.02)


def _files(path: Path) -> tuple[int, ...] | None:
    try:
        database, log = path.stat(), path.with_name(f"{path.name}-wal").stat()
    except OSError:
        return None
    return database.st_dev, database.st_ino, database.st_mtime_ns, log.st_ino


def _closed_at_a_fork(engine: sa.Engine) -> sa.Engine:
    """SQLite's locks fail in a child process whose parent had the file open."""
    kept = weakref.ref(engine)

    def close() -> None:
        if (mine := kept()) is not None:
            mine.dispose()

    os.register_at_fork(before=close)
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


def postgresql_engine(url: str) -> sa.Engine:
    """Return an engine for the PostgreSQL database of `url`; connects to nothing yet.

    Raises:
        UsageError: `url` is not a PostgreSQL URL, or its driver is not installed.
    """
    try:
        parsed = sa.make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            newer = importlib.util.find_spec("psycopg") is not None
            parsed = parsed.set(drivername="postgresql+psycopg" if newer else "postgresql")
        if parsed.get_backend_name() != "postgresql":
            raise UsageError(
                f"The ledger cannot be kept in {parsed.get_backend_name()!r}.",
                fix="Give a URL postgresql://user@host/database, or none for SQLite.",
            )
        return _closed_at_a_fork(sa.create_engine(parsed, pool_pre_ping=True, **_POOL))
    except (sa.exc.ArgumentError, ValueError) as error:  # the latter: a port that is no number
        raise UsageError(
            "The ledger's URL is not a database URL.",
            fix="Write it as postgresql://user:password@host:5432/database.",
        ) from error
    except ImportError as error:
        raise UsageError(
            f"The ledger's PostgreSQL driver is not installed: {error}.",
            fix='Install it: pip install "psycopg[binary]".',
        ) from error
