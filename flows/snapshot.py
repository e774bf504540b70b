"""What one backup is: the document that names every file of a snapshot, schema ``clr.backup/1``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from clr.core.files import canonical_json

SCHEMA = "clr.backup/1"
ROOTS = ("workspace", "state", "cache", "dumps")
"""First part of a path: workspace, ``CLR_HOME``, DVC's cache, dumps (PostgreSQL, git)."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Item:
    """One file of a snapshot.

    Attributes:
        path: POSIX path, beginning with one of `ROOTS`.
        sha256: ``sha256:<64 hex>`` of its bytes.
        size: bytes.
        mode: permission bits.
        seen: inode, time of modification and of change (ns) of the source when it was read:
            a file that still has all three is not read again; empty where there is no source.
    """

    path: str
    sha256: str
    size: int
    mode: int
    seen: tuple[int, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """What one backup holds; see `to_json` for its form.

    Attributes:
        name: its file's name without ``.json``; empty until it is kept.
        made_at: UTC time at its beginning, ISO 8601.
        started_ns: the same for comparison with times of files.
        facts: about workspace, ledger, git, and what was left out.
        folders: mode of folders that are empty or private, by path.
        files: every file, sorted by path.
    """

    name: str
    made_at: str
    started_ns: int
    facts: Mapping[str, Any]
    folders: Mapping[str, int]
    files: tuple[Item, ...]

    def to_json(self) -> bytes:
        """Return the snapshot's document."""
        document = {"schema": SCHEMA, **asdict(self)}
        del document["name"]
        return canonical_json(document) + b"\n"

    def below(self, root: str) -> Iterator[tuple[str, Item]]:
        """Yield (path below `root`, file) of the files there."""
        for one in self.files:
            if one.path.startswith(f"{root}/"):
                yield one.path.removeprefix(f"{root}/"), one


def parse(document: Mapping[str, Any], name: str) -> Snapshot:
    """Read what `Snapshot.to_json` wrote, once it is decoded.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: an unknown or a hostile form.
    """
    if document["schema"] != SCHEMA:
        raise ValueError(f"unknown schema {document['schema']!r}")
    files = tuple(
        Item(_safe(one["path"]), _digest(one["sha256"]), int(one["size"]),
             int(one["mode"]) & 0o777, tuple(one["seen"]))
        for one in document["files"]
    )  # fmt: skip
    if len({one.path for one in files}) != len(files):
        raise ValueError("a path is named twice")
    folders = {_safe(path): int(mode) & 0o777 for path, mode in document["folders"].items()}
    facts: Mapping[str, Any] = document["facts"]
    made_at, started = str(document["made_at"]), int(document["started_ns"])
    return Snapshot(name, made_at, started, facts, folders, files)


def order(name: str) -> tuple[int, str]:
    """Return a snapshot's place among others: one more than how often the clock went back, time."""
    stem, _, count = name.rpartition("-")
    return (int(count), stem) if stem and count.isdecimal() else (1, name)


def time_of(name: str) -> datetime:
    """Return when a snapshot was made; of one that somebody gave another name, the last moment."""
    try:
        return datetime.strptime(order(name)[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)


def _safe(path: str) -> str:
    parts = path.split("/")
    if parts[0] not in ROOTS or len(parts) < 2 or str(PurePosixPath(path)) != path:
        raise ValueError(f"not a path of a backup: {path!r}")
    if ".." in parts or "\0" in path or (parts[0] == "workspace" and parts[1] == ".git"):
        raise ValueError(f"not a path of a backup: {path!r}")
    return path


def _digest(text: str) -> str:
    if _DIGEST.fullmatch(text) is None:
        raise ValueError(f"not a digest: {text!r}")
    return text
