"""What the journal's answers come to, kept beside them: nobody counts millions of rows to show it.

SQLite keeps the counts by triggers, so that what is written or deleted in a transaction is counted
in the same. A journal that no server of today has opened yet is counted when it is read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

Counted = tuple[str, int, int, str, int]
"""Task, version, hour, label, answers."""
Paced = tuple[str, int, str, int, int]
"""Task, version, month, time from request to answer in `TICKS`, answers."""

TICKS = 10_000
"""A second."""

_KEYS = {
    "hourly": {
        "task TEXT": "{row}task",
        "version INTEGER": "{row}version",
        "hour INTEGER": "CAST({row}time / 3600 AS INTEGER)",
        "label TEXT": "{row}label",
    },
    "paces": {
        "task TEXT": "{row}task",
        "version INTEGER": "{row}version",
        "month TEXT": "strftime('%Y-%m', {row}time, 'unixepoch')",
        "ticks INTEGER": f"CAST(round({{row}}seconds * {TICKS}) AS INTEGER)",
    },
}
"""By table, what its rows are counts of: column and where an answer has it. The types are needed:
SQLite looks nothing up by a value of a type in a column without one."""


def keep_counts(database: sqlite3.Connection) -> None:
    """Make SQLite count what is written from now on; what is there already is counted once.

    Args:
        database: the journal, open to be written; to be kept open in this state.
    """
    # INSERT OR REPLACE then deletes what it replaces by the trigger, too
    database.execute("PRAGMA recursive_triggers = ON")
    with database:
        database.execute("BEGIN IMMEDIATE")
        if _are_kept(database):
            return
        for table in _KEYS:
            for statement in _making(table):
                database.execute(statement)


def hourly(database: sqlite3.Connection) -> Iterator[Counted]:
    """Yield how many answers there are of each task, version, hour since 1970 and label."""
    return _rows(database, "hourly")


def paces(database: sqlite3.Connection) -> Iterator[Paced]:
    """Yield how many answers took how long, of each task, version and month (YYYY-MM, UTC)."""
    return _rows(database, "paces")


def _rows(database: sqlite3.Connection, table: str) -> sqlite3.Cursor:
    source = table if _are_kept(database) else f"({_select(table)})"
    return database.execute(f"SELECT * FROM {source}")  # noqa: S608


def _are_kept(database: sqlite3.Connection) -> bool:
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
    return all(database.execute(query, (table,)).fetchone()[0] for table in _KEYS)


def _select(table: str) -> str:
    values = [where.format(row="") for where in _KEYS[table].values()]
    places = ", ".join(str(place) for place, _ in enumerate(values, 1))
    return f"SELECT {', '.join(values)}, count(*) FROM answers GROUP BY {places}"  # noqa: S608


def _making(table: str) -> Iterator[str]:
    """Yield the statements that make a table, fill it, and keep it."""
    keys = {column.split()[0]: where for column, where in _KEYS[table].items()}
    yield (
        f"CREATE TABLE {table} ({' NOT NULL, '.join(_KEYS[table])} NOT NULL, "
        f"items INTEGER NOT NULL, PRIMARY KEY ({', '.join(keys)})) WITHOUT ROWID"
    )
    yield f"INSERT INTO {table} {_select(table)}"
    new, old = (
        " AND ".join(f"{name} = {where.format(row=row)}" for name, where in keys.items())
        for row in ("new.", "old.")
    )
    values = ", ".join(where.format(row="new.") for where in keys.values())
    # no ON CONFLICT: in a trigger that of the statement outside would be in force
    yield (
        f"CREATE TRIGGER {table}_more AFTER INSERT ON answers BEGIN "  # noqa: S608
        f"INSERT INTO {table} SELECT {values}, 0 "
        f"WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE {new}); "
        f"UPDATE {table} SET items = items + 1 WHERE {new}; END"
    )
    yield (
        f"CREATE TRIGGER {table}_less AFTER DELETE ON answers BEGIN "  # noqa: S608
        f"UPDATE {table} SET items = items - 1 WHERE {old}; "
        f"DELETE FROM {table} WHERE {old} AND items = 0; END"
    )
