"""Copies of the databases of a workspace, of one moment, while others write to them.

SQLite is copied by its online backup, PostgreSQL by ``pg_dump``: only that brings triggers,
functions and sequences along. Registry and ledger are two databases, and whoever acts writes
to one and then to the other; so both are copied in a moment in which nobody acts.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from clr.registry.faults import redact

if TYPE_CHECKING:
    from clr.audit.ledger import Ledger
    from clr.settings import Settings

LOG = logging.getLogger("clr")
QUIET_SECONDS = 1.0
"""Between the two writes of one act; see `in_a_quiet_moment`."""
ATTEMPTS = 8

SQLITE = ("mlflow.db", "auth.db", "ledger/ledger.db")
"""Below ``CLR_HOME``."""

JOURNAL = "serving/journal.db"
"""The same, of the prediction server, which writes to it all the time; no act is in it."""


def servers(settings: Settings) -> dict[str, str]:
    """Return the PostgreSQL databases of a workspace: name of the dump to address.

    One that holds registry and ledger is named once.
    """
    named = {"registry.dump": settings.registry_database, "ledger.dump": settings.ledger_url}
    if named["ledger.dump"] == named["registry.dump"]:
        del named["ledger.dump"]
    return {name: url for name, url in named.items() if url}


def files(settings: Settings) -> dict[str, Path]:
    """Return the SQLite databases of a workspace that are in use, by path below ``CLR_HOME``."""
    elsewhere = {
        "mlflow.db": settings.registry_database,
        "auth.db": settings.registry_database,
        "ledger/ledger.db": settings.ledger_url,
    }
    there = {name: settings.state / name for name in SQLITE if not elsewhere[name]}
    return {name: path for name, path in there.items() if path.is_file()}


def in_a_quiet_moment(ledger: Ledger, copy: Callable[[], None]) -> bool:
    """Call `copy` until no act was recorded around it; hold the lock ``promote``.

    An act is a row in the registry and one in the ledger, in either order and within a
    second. So where the ledger's last entry is older than a second before, and still the last
    a second after, the copies have both rows of every act, or neither.

    Returns:
        whether such a moment was found; without one the last copy stands, as if everything
        had been killed at that moment, which the commands and the release service repair.
    """
    for _ in range(ATTEMPTS):
        before = _last(ledger)
        if _age(before) < QUIET_SECONDS:
            time.sleep(QUIET_SECONDS)
            before = _last(ledger)
        copy()
        time.sleep(QUIET_SECONDS)
        if _last(ledger) == before:
            return True
    LOG.warning("backup    somebody acts all the time: the copy is of a moment in between")
    return False


def _last(ledger: Ledger) -> tuple[int, str]:
    head = ledger.head()
    newest = (head.seq, "") if head else (0, "")
    for one in ledger.entries(since_seq=max(0, newest[0] - 1)):
        newest = (one.seq, one.time)
    return newest


def _age(last: tuple[int, str]) -> float:
    if not last[1]:
        return QUIET_SECONDS
    return abs((datetime.now(UTC) - datetime.fromisoformat(last[1])).total_seconds())


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database that others may be writing to.

    Raises:
        IntegrityBroken: it is damaged.
        ServiceUnavailable: it stayed locked, or there is no room.
    """
    target.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=60)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")  # one file, whatever the source uses
            (state,) = new.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise ServiceUnavailable(
                f"The database {source} cannot be copied: {error}.",
                fix="See that it can be read and that the backup's disk has room.",
            ) from error
        state = str(error)
    if state != "ok":
        raise IntegrityBroken(
            f"The database {source} is damaged: {state}.",
            fix="Restore the newest snapshot that has a whole one; `clr backup DIR --verify`.",
            path=str(source),
        )


def dump(url: str, target: Path) -> None:
    """Write a dump of a PostgreSQL database, consistent in itself.

    Raises:
        ServiceUnavailable: ``pg_dump`` is missing, or fails.
    """
    _run("pg_dump", url, "--format=custom", "--no-owner", "--no-privileges", f"--file={target}")


def refuse_filled(url: str) -> None:
    """See that a PostgreSQL database has no tables yet.

    Raises:
        UsageError: it has some.
        ServiceUnavailable: it cannot be reached.
    """
    import sqlalchemy as sa

    from clr.audit.engines import postgresql_engine

    engine = postgresql_engine(url)
    try:
        names = sa.inspect(engine).get_table_names()
    except sa.exc.SQLAlchemyError as error:
        words = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        raise ServiceUnavailable(
            f"The database {redact(url)} cannot be used: {words}",
            fix="See that it runs and that the address is right.",
        ) from error
    finally:
        engine.dispose()
    if names:
        raise UsageError(
            f"The database {redact(url)} is not empty: it has {len(names)} tables.",
            fix="Make a new one (`createdb`) and name it in the settings, or drop and make this.",
        )


def load(url: str, source: Path) -> None:
    """Bring a dump into an empty PostgreSQL database, all of it or nothing.

    Raises:
        ServiceUnavailable: ``pg_restore`` is missing, or fails.
    """
    _run(
        *("pg_restore", url, "--single-transaction", "--exit-on-error", "--no-owner"),
        *("--no-privileges", "--dbname", _database(url), str(source)),
    )


def _database(url: str) -> str:
    import sqlalchemy as sa

    return sa.make_url(url).database or "postgres"


def _run(program: str, url: str, *arguments: str) -> None:
    found = shutil.which(program)
    if found is None:
        raise ServiceUnavailable(
            f"{program} is not installed, and {redact(url)} cannot be copied without it.",
            fix="Install PostgreSQL's client programs, at least of the server's version.",
        )
    done = subprocess.run(
        [found, *arguments],
        env={**os.environ, **_connection(url)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        words = " ".join(done.stderr.split())[:500]
        raise ServiceUnavailable(
            f"{program} failed on {redact(url)}: {words}",
            fix="Put that right, then run the same again. It must be at least of the server's "
            "version; the first one on PATH is used.",
        )


def _connection(url: str) -> dict[str, str]:
    """The address as environment: on a command line everybody could read the password."""
    import sqlalchemy as sa

    parts = sa.make_url(url)
    known = {
        "PGHOST": parts.host,
        "PGPORT": str(parts.port) if parts.port else None,
        "PGUSER": parts.username,
        "PGPASSWORD": parts.password,
        "PGDATABASE": parts.database,
        **{f"PG{key.upper()}": str(value) for key, value in parts.query.items()},
    }
    return {name: value for name, value in known.items() if value}
