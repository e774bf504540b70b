"""Rows of a ledger as they travel to somebody who verifies them elsewhere.

With the raw rows go what their refs stand for (clr/audit/personal.py), the newest signed head and
the trusted public keys: whoever gets all parts can verify the chain as on its own machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from clr.audit.people import disclosed
from clr.audit.personal import Disclosure, refs_of
from clr.audit.signing import Head
from clr.audit.store import TABLE, rows_of
from clr.errors import IntegrityBroken

MOST_ROWS = 1000
_MOST_CHARACTERS = 4 << 20
_COLUMNS = frozenset(TABLE.columns.keys())
_LARGEST = 1 << 53

Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Some rows that follow one another.

    Attributes:
        rows: as they are stored, by rising ``seq``.
        personal: what the refs in them stand for, as far as it was not erased.
        head: newest signed head, read before the rows.
        keys: trusted public keys, PEM.
        unprotected: names of append-only triggers that are missing.
        more: whether rows follow.
    """

    rows: tuple[Row, ...]
    personal: tuple[Disclosure, ...]
    head: Head | None
    keys: tuple[str, ...]
    unprotected: tuple[str, ...]
    more: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the part as one JSON-serialisable object."""
        return {**asdict(self), "head": json.loads(self.head.to_json()) if self.head else None}


def read_rows(
    connection: sa.Connection, since: int, limit: int
) -> tuple[tuple[Row, ...], tuple[Disclosure, ...], bool]:
    """Return rows after number `since`, what their refs stand for, and whether rows follow.

    Args:
        connection: open.
        since: number of an entry, 0 for the beginning.
        limit: of rows; fewer are returned where their payloads are large.
    """
    query = sa.select(TABLE).where(TABLE.c.seq > since).order_by(TABLE.c.seq).limit(limit + 1)
    found = connection.execute(query)
    rows, more = _as_many_as_fit(rows_of(found), limit)
    found.close()
    refs = {ref for row in rows for ref in refs_of(row)}
    return tuple(rows), tuple(disclosed(connection, refs)), more


def _as_many_as_fit(found: Iterator[Row], limit: int) -> tuple[list[Row], bool]:
    rows: list[Row] = []
    size = 0
    for row in found:
        size += len(row["payload"])
        if len(rows) == limit or (rows and size > _MOST_CHARACTERS):
            return rows, True
        rows.append(row)
    return rows, False


def parse_part(found: Any, since: int) -> Part:
    """Return the part that was sent as JSON.

    Args:
        found: the parsed JSON of `Part.as_dict`, of a sender who is not trusted.
        since: number after which rows were asked for.

    Raises:
        IntegrityBroken: it is no such thing, or its rows are not in order.
    """
    try:
        rows = tuple(_row(one) for one in found["rows"])
        numbers = [since, *(row["seq"] for row in rows)]
        if numbers != sorted(set(numbers)) or (found["more"] and not rows):
            raise ValueError("rows out of order")
        personal = tuple(Disclosure(**one) for one in found["personal"])
        texts = [
            *found["keys"],
            *found["unprotected"],
            *(v for d in personal for v in vars(d).values()),
        ]
        if not all(isinstance(one, str) for one in texts):
            raise TypeError("a text is none")
        head = found["head"]
        return Part(
            rows=rows,
            personal=personal,
            head=None if head is None else Head.from_json(json.dumps(head), "the head"),
            keys=tuple(found["keys"]),
            unprotected=tuple(found["unprotected"]),
            more=bool(found["more"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise IntegrityBroken(
            f"What was sent is no part of a ledger: {type(error).__name__}: {error}.",
            fix="Find out what answers at this address.",
        ) from error


def _row(found: Any) -> Row:
    if not isinstance(found, dict) or found.keys() != _COLUMNS:
        raise ValueError("a row has other fields")
    for name, value in found.items():
        right = (
            type(value) is int and 0 < value < _LARGEST if name == "seq" else isinstance(value, str)
        )
        if not right and not (name == "key" and value is None):
            raise TypeError(f"{name} of a row has a wrong type")
    return found
