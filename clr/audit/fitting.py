"""Whether names and words beside the ledger fit its rows: what was changed, lost or put back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clr.audit.chain import Problem
from clr.audit.personal import ERASED, Disclosure, is_name, placeholder, refs_of


class Watch:
    """Notes the refs of rows that are read, to compare them with the values afterwards."""

    def __init__(self) -> None:
        """Know of none yet."""
        self._first: dict[str, int] = {}
        self._erased: dict[str, int] = {}

    def over(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the rows as they are."""
        for row in rows:
            self._note(row)
            yield row

    def _note(self, row: Mapping[str, Any]) -> None:
        try:
            for ref in refs_of(row):
                self._first.setdefault(ref, row["seq"])
            if row["action"] == ERASED:
                listed = json.loads(row["payload"]).get("erased", ())
                self._erased.update(dict.fromkeys(map(str, listed), row["seq"]))
        except (ValueError, TypeError, AttributeError):
            return  # a payload that somebody changed is told by the chain

    def problems(self, stored: Iterable[Disclosure]) -> list[Problem]:
        """Return where values do not fit the rows, in order of the rows.

        Args:
            stored: the whole table.
        """
        found, there, owned = [], set(), dict[str, str]()
        for one in stored:
            there.add(one.ref)
            seq = self._first.get(one.ref, 0)
            if one.ref in self._erased:
                found.append(_back(one.ref, self._erased[one.ref]))
            elif not one.fits():
                found.append(_changed_value(one.ref, seq))
            elif one.owner or is_name(one.ref):
                owned[one.ref] = one.owner
        people = {ref for ref in there | self._first.keys() if is_name(ref)} - self._erased.keys()
        for ref, owner in owned.items():
            if owner != ref if is_name(ref) else owner not in people:
                found.append(_other_owner(ref, self._first.get(ref, 0)))
        lost = self._first.keys() - there - self._erased.keys()
        found += [_missing(ref, self._first[ref]) for ref in lost]
        return sorted(found, key=lambda one: (one.seq, one.message))


_FIX = "Compare the table clr_ledger_personal with a backup; see who could change the database."


def _named(ref: str) -> str:
    return placeholder(ref).removeprefix("erased ")


def _changed_value(ref: str, seq: int) -> Problem:
    message = f"What {_named(ref)} stands for in the ledger was changed after it was written."
    return Problem(seq, "renamed", message, _FIX)


def _other_owner(ref: str, seq: int) -> Problem:
    message = f"To whom {_named(ref)} belongs was changed after it was written."
    return Problem(seq, "renamed", message, _FIX)


def _missing(ref: str, seq: int) -> Problem:
    message = f"What {_named(ref)} stands for is gone, and no entry says that it was erased."
    return Problem(seq, "nameless", message, _FIX)


def _back(ref: str, seq: int) -> Problem:
    message = f"What {_named(ref)} stands for was erased by entry {seq}, but is there again."
    return Problem(seq, "unerased", message, "Find out who put it back; run `clr erase` once more.")
