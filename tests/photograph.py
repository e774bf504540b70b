"""All that a refused request must leave as it was: every row of the registry, every file."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

PASSING = {"alembic_version", "jobs"}
"""Tables that say nothing about the registry."""

SERVICE = "clr.promotion"
"""Tag by which the release service says what became of a review, a moment later, by itself."""


def photograph(state: Path) -> Mapping[str, Any]:
    """Return rows and files of a registry under the folder `state`, by table and by path."""
    picture: dict[str, Any] = {}
    for file in ("mlflow.db", "auth.db"):
        if (state / file).exists():
            picture |= {f"{file}:{table}": rows for table, rows in _tables(state / file).items()}
    picture["files"] = dict(_files(state / "artifacts"))
    return picture


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with suppress(FileNotFoundError):  # an upload's own, which was there a moment ago
                now = os.stat(path)
                stamp = (now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
                yield path, _digest(path, stamp)


@lru_cache(maxsize=100_000)
def _digest(path: str, stamp: tuple[int, ...]) -> str:
    """Hash a file; once, while the system says that it is the same."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


Tables = dict[str, list[str]]
_read: dict[tuple[Path, int], tuple[int, Tables]] = {}


def _tables(file: Path) -> Tables:
    """Read a database; once, while SQLite says that nobody has committed anything to it."""
    place = file, file.stat().st_ino
    database = _connection(*place)
    ((commits,),) = database.execute("PRAGMA data_version").fetchall()
    if place not in _read or _read[place][0] != commits:
        _read[place] = commits, _rows(database)
    return _read[place][1]


@lru_cache(maxsize=8)
def _connection(file: Path, inode: int) -> sqlite3.Connection:
    """Return one connection for all pictures: by it SQLite counts the commits of others."""
    return sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)


def _rows(database: sqlite3.Connection) -> Tables:
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {
        name: sorted(
            repr(row) for row in database.execute(f'SELECT * FROM "{name}"') if SERVICE not in row
        )
        for (name,) in names
        if name not in PASSING
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changed between two photographs: {place: (what went, what came)}."""
    return {
        place: _difference(before.get(place), after.get(place))
        for place in sorted(before.keys() | after.keys())
        if before.get(place) != after.get(place)
    }


def _difference(before: Any, after: Any) -> tuple[Any, Any]:
    old = set(before.items() if isinstance(before, dict) else before or ())
    new = set(after.items() if isinstance(after, dict) else after or ())
    return sorted(old - new), sorted(new - old)
