"""The table of personal data (`clr.audit.store.PERSONAL`): looked up, added to, erased from.

What was read once is remembered with the connection, until something is erased: entries name
the same few people over and over. A connection never outlives its database (clr/audit/engines.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from clr.audit.chain import ACTOR, REF, Entry, canonical
from clr.audit.personal import (
    PERSON,
    Disclosure,
    about_a_person,
    has_personal,
    hidden,
    mentions,
    name_of,
    refs_of,
    shown_entry,
    stored_text,
    with_refs,
    words_of,
)
from clr.audit.store import PERSONAL, tables

_MEMORY, _KEPT, _AT_ONCE = "clr_people", 20_000, 1000
_NAMES = sa.select(PERSONAL.c.ref, PERSONAL.c.value).where(PERSONAL.c.owner == PERSONAL.c.ref)
_BY_NAME = _NAMES.where(PERSONAL.c.value == sa.bindparam("name"))
_INSERT = PERSONAL.insert()


@dataclass
class _Memory:
    """What one connection has read: values by ref and refs by name, as of the newest erasure."""

    erasure: int
    values: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    has_everybody: bool = False


def _memory(connection: sa.Connection, erasure: int) -> _Memory:
    memory = connection.info.get(_MEMORY)
    if memory is None or memory.erasure != erasure or len(memory.values) > _KEPT:
        memory = connection.info[_MEMORY] = _Memory(erasure)
    return memory


# --- reading -------------------------------------------------------------------------------


def shown(connection: sa.Connection, rows: list[dict[str, Any]], erasure: int) -> list[Entry]:
    """Return stored rows as entries, with names and words in place of refs.

    Args:
        connection: open.
        rows: as they are stored; they are changed.
        erasure: `clr.audit.store.NEWEST_ERASURE`, read with the rows.

    Raises:
        IntegrityBroken: a stored payload is no longer a JSON object.
    """
    known = _memory(connection, erasure).values
    wanted = {ref for row in rows for ref in refs_of(row) if ref not in known}
    known.update((one.ref, _text(one.value)) for one in disclosed(connection, wanted, known))
    return [shown_entry(row, known) for row in rows]


def disclosed(
    connection: sa.Connection, refs: Collection[str], known: Container[str] = ()
) -> Iterator[Disclosure]:
    """Yield what refs stand for, and in turn the people whom those words name.

    Args:
        connection: open.
        refs: of names and words; what was erased yields nothing.
        known: people who need not be looked up.
    """
    if not refs or PERSONAL.name not in tables(connection):
        return
    direct = list(_stored(connection, refs))
    yield from direct
    named = {ref[0] for one in direct for ref in REF.finditer(one.value) if ref[1] == PERSON}
    yield from _stored(connection, {ref for ref in named.difference(refs) if ref not in known})


def _stored(connection: sa.Connection, refs: Collection[str]) -> Iterator[Disclosure]:
    wanted, query = sorted(refs), sa.select(PERSONAL)
    for start in range(0, len(wanted), _AT_ONCE):
        some = query.where(PERSONAL.c.ref.in_(wanted[start : start + _AT_ONCE]))
        yield from (Disclosure(*row) for row in connection.execute(some))


def _text(value: str) -> str:
    try:
        return str(json.loads(value))
    except ValueError:
        return value  # somebody changed it: shown as it is, and named by `clr verify`


def disclosures(connection: sa.Connection) -> Iterator[Disclosure]:
    """Yield the whole table; nothing where there is none."""
    if PERSONAL.name not in tables(connection):
        return iter(())
    rows = connection.execute(sa.select(PERSONAL), execution_options={"yield_per": _AT_ONCE})
    return (Disclosure(*row) for row in rows)


def ref_of(connection: sa.Connection, name: str) -> str | None:
    """Return the ref of a person; None where no entry names the person by one."""
    return connection.execute(_BY_NAME, {"name": stored_text(name)}).scalar()


def stored_subject(connection: sa.Connection, subject: str) -> str:
    """Return the ref that rows have for a subject that is a person; else the subject itself."""
    if "/" in subject or PERSONAL.name not in tables(connection):
        return subject
    return ref_of(connection, subject) or subject


# --- writing -------------------------------------------------------------------------------


class Refs:
    """Gives names and words their refs within one transaction."""

    def __init__(self, connection: sa.Connection, erasure: int) -> None:
        """Look nothing up yet.

        Args:
            connection: in a transaction of a writer.
            erasure: `clr.audit.store.NEWEST_ERASURE`.
        """
        self.erasure = erasure
        self._connection = connection
        self._memory = _memory(connection, erasure)
        self._made: dict[str, Disclosure] = {}

    def person(self, name: str) -> str:
        """Return the one ref of a person; a new one at the first time."""
        ref = self._memory.refs.get(name) or ref_of(self._connection, name)
        if ref is None:
            return self._made.setdefault(name, name_of(name)).ref
        self._memory.refs[name] = ref
        return ref

    def words(self, text: str, owner: str) -> str:
        """Return a new ref of a text, in which people are named by theirs."""
        memory, new = self._memory, self._made
        if not memory.has_everybody:
            rows = self._connection.execute(_NAMES)
            memory.refs.update((_text(value), ref) for ref, value in rows)
            memory.has_everybody = True
        names = (
            {**memory.refs, **{name: one.ref for name, one in new.items()}} if new else memory.refs
        )
        made = words_of(with_refs(text, names), owner)
        new[made.ref] = made
        return made.ref

    def hide(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row of an act as it is stored: refs in place of names and words."""
        actor = self.person(row["actor"])
        payload, subject = row["payload"], row["subject"]
        if has_personal(payload):
            plain = json.loads(payload)
            if about_a_person(row["action"], plain):
                subject = self.person(subject)
            payload = canonical(hidden(plain, actor, self.person, self.words), "The payload")
        elif about_a_person(row["action"], {}):
            subject = self.person(subject)
        key = row["key"] and row["key"].replace(ACTOR, actor)
        return {**row, "actor": actor, "subject": subject, "payload": payload, "key": key}

    def keep(self) -> None:
        """Write what new refs stand for."""
        if self._made:
            self._connection.execute(_INSERT, [vars(one) for one in self._made.values()])


# --- erasing -------------------------------------------------------------------------------


def erase(connection: sa.Connection, person: str, name: str) -> list[Disclosure]:
    """Delete name and words of a person, and every other text that names the person.

    Args:
        connection: in a transaction of a writer.
        person: ref.
        name: what it stands for.

    Returns:
        what was deleted, the name first.
    """
    found = [
        one
        for one in disclosures(connection)
        if one.owner == person or (one.owner != one.ref and mentions(one.text, name))
    ]
    for start in range(0, len(found), _AT_ONCE):
        refs = [one.ref for one in found[start : start + _AT_ONCE]]
        connection.execute(PERSONAL.delete().where(PERSONAL.c.ref.in_(refs)))
    return sorted(found, key=lambda one: one.ref != person)
