"""Which versions of data somebody still names: registry, ledger and the history of git."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from clr.data import listing
from clr.data.repository import git_output, git_root

if TYPE_CHECKING:
    import sqlalchemy as sa

    from flows.session import Session

_DIGEST = re.compile(r"md5:([0-9a-f]{32}\.dir)")
_PINNED = re.compile(r"\b[0-9a-f]{32}\.dir\b")


def by_ledger(session: Session) -> set[str]:
    """Return the lists of files (``<32 hex>.dir``) that any entry of the ledger names."""
    return _found(json.dumps(dict(one.payload)) for one in session.ledger.entries())


def by_registry(connection: sa.Connection) -> set[str]:
    """Return the lists of files that a version or a run in the registry's database names."""
    import sqlalchemy as sa

    found: set[str] = set()
    for table in ("model_version_tags", "params", "tags"):
        value = sa.column("value", sa.String)
        query = sa.select(value).select_from(sa.table(table)).where(value.like("%md5:%.dir%"))
        found |= _found(str(one) for one in connection.execute(query).scalars())
    return found


def by_git(workspace: Path) -> set[str]:
    """Return the lists of files that ``data.dvc`` pins now or in any commit of the repository.

    Commits that only the reflog still knows count, too. The file itself is read in each: what a
    patch looks like depends on settings and attributes.

    Raises:
        IntegrityBroken: ``data.dvc`` is damaged.
        ServiceUnavailable: git does not tell.
    """
    found = {listing.pinned_oid(workspace)}
    if git_root(workspace) is not None:
        asked = ("rev-list", "--all", "--reflog", "--full-history", "--", "data.dvc")
        commits = git_output(workspace, *asked).split()
        names = "".join(f"{commit}:./data.dvc\n" for commit in commits)
        found |= set(_PINNED.findall(git_output(workspace, "cat-file", "--batch", stdin=names)))
    return found


def _found(texts: Iterable[str]) -> set[str]:
    return {oid for text in texts for oid in _DIGEST.findall(text)}


def objects(lists: Iterable[str], places: Iterable[Path]) -> tuple[set[str], set[str]]:
    """Return the objects that lists of files name, and the lists that are nowhere to be read.

    Args:
        lists: ``<32 hex>.dir``; each is among the objects itself.
        places: folders that hold objects.

    Raises:
        IntegrityBroken: a list is damaged in every place.
    """
    named, unknown = set(lists), set()
    for oid in lists:
        there = [path for one in places if (path := listing.object_path(one, oid)).is_file()]
        if there:
            named |= set(listing.read_listing(_whole(there, oid), oid).values())
        else:
            unknown.add(oid)
    return named, unknown


def _whole(there: list[Path], oid: str) -> bytes:
    """The bytes of the first copy that is whole; else of the first."""
    for path in there:
        if listing.md5_file(path) == oid.removesuffix(".dir"):
            return path.read_bytes()
    return there[0].read_bytes()
