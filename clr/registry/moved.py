"""An embedded registry whose folder was moved: its files' addresses follow it.

MLflow writes absolute addresses into its database. They lie below ``CLR_HOME/artifacts``
always, and that of MLflow's own experiment 0 tells where that was.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOG = logging.getLogger(__name__)

LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""Columns with addresses of files."""


def follow(database: Path, artifacts: Path) -> int:
    """Rewrite the addresses in an embedded registry that lie where its files were before.

    Args:
        database: SQLite file of the registry.
        artifacts: absolute folder of its files now.

    Returns:
        how many were rewritten; 0 where they are right, a server hands the files out, or the
        database may only be read.

    Raises:
        sqlite3.Error: the database cannot be read, or writing it fails.
    """
    new = artifacts.as_uri()
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        old = _root(connection)
        if not old.startswith("file:") or old == new or _same(old, artifacts):
            return 0
        try:
            count = _rewrite(connection, old, new)
        except sqlite3.OperationalError as error:
            if os.access(database, os.W_OK) and os.access(database.parent, os.W_OK):
                raise
            LOG.warning("The registry was moved, and cannot be written: %s.", error)
            return 0
    LOG.warning("The registry was moved: %d addresses of files rewritten.", count)
    return count


def _rewrite(connection: sqlite3.Connection, old: str, new: str) -> int:
    connection.execute("BEGIN IMMEDIATE")
    count = 0
    for table, column in LOCATIONS:
        done = connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608
            f"WHERE substr({column}, 1, ?) = ?",
            (new, len(old) + 1, len(old) + 1, f"{old}/"),
        )
        count += done.rowcount
    connection.execute("COMMIT")
    return count


def _root(connection: sqlite3.Connection) -> str:
    """Return the address of the folder of all files; empty where it cannot be told."""
    query = "SELECT artifact_location FROM experiments WHERE experiment_id = 0"
    try:
        row = connection.execute(query).fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return ""  # MLflow itself says what is wrong with it
        raise
    location = str(row[0]) if row else ""
    return location.removesuffix("/0") if location.endswith("/0") else ""


def _same(address: str, folder: Path) -> bool:
    """Say whether both are one folder, reached on two ways."""
    try:
        return Path(unquote(urlsplit(address).path)).samefile(folder)
    except OSError:
        return False
