"""Which version of a task answered when: told by the ledger alone (pure).

Every release that begins to serve has an entry ``release.activated`` with the release that it
was made from and the versions that joined; what joined not was as in that one. Orders
(``release.rollback``, ``task.retired``) say why a release followed another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from clr.registry.names import ACTIVATED
from flows.activation import RETIRED, ROLLBACK

if TYPE_CHECKING:
    from clr.audit.chain import Entry

Named = Callable[[str], int | None]
"""Version of the task by the file of the release with this digest, None without."""


@dataclass(frozen=True)
class Period:
    """A release in force, seen by one task.

    Attributes:
        release: its number.
        digest: its digest.
        begin: when the ledger saw it begin.
        end: when the next one began; empty: it is in force.
        version: the task's version in it; None: the task was not in it.
        joined: whether that version joined with it.
        gate: digest of the gate report that admitted it; empty where that was not recorded.
        entry: the entry ``release.activated``.
        order: the rollback or retirement that brought it; None: a promotion did.
    """

    release: int
    digest: str
    begin: str
    end: str
    version: int | None
    joined: bool
    gate: str
    entry: Entry
    order: Entry | None


def periods(moves: Iterable[Entry], task: str, named: Named) -> tuple[Period, ...]:
    """Return which release was in force when, oldest first, with the task's version in each.

    Args:
        moves: entries about which release serves, in order.
        task: task name.
        named: asked only where the ledger does not tell, as for a release made from one that
            never served.
    """
    found: list[Period] = []
    versions: dict[str, int | None] = {}
    order: Entry | None = None
    for entry in moves:
        if entry.action != ACTIVATED:
            order = entry
            continue
        digest = str(entry.payload.get("release"))
        ordered = order if order is not None and order.payload.get("release") == digest else None
        order = None
        joined = _joined(entry, task)
        if joined is not None:
            versions[digest] = joined
        if found and found[-1].digest == digest:
            # told twice, after a kill say, or in parts, where more joined than an entry holds
            if joined is not None:
                found[-1] = replace(found[-1], version=joined, joined=True)
            continue
        if digest not in versions:
            versions[digest] = _unchanged(entry, ordered, task, versions, named)
        if found:
            found[-1] = replace(found[-1], end=entry.time)
        found.append(
            Period(
                release=int(entry.subject.rpartition("/")[2]),
                digest=digest,
                begin=entry.time,
                end="",
                version=versions[digest],
                joined=joined is not None,
                gate=str(entry.payload.get("gate") or ""),
                entry=entry,
                order=ordered,
            )
        )
    return tuple(found)


def _joined(entry: Entry, task: str) -> int | None:
    """Return the version of the task that joined with a release."""
    for one in entry.payload.get("joined") or ():
        if one.get("task") == task:
            return int(one["version"])
    return None


def _unchanged(
    entry: Entry,
    order: Entry | None,
    task: str,
    versions: Mapping[str, int | None],
    named: Named,
) -> int | None:
    if order is not None and order.action == RETIRED and _of_task(order, task):
        return None
    previous = str(entry.payload.get("previous") or "")
    if not previous:
        return None
    return versions[previous] if previous in versions else named(str(entry.payload["release"]))


def _of_task(entry: Entry, task: str) -> bool:
    return entry.subject.rpartition("/")[0] == f"clr-{task}"


def during(history: Sequence[Period], moment: str) -> list[Period]:
    """Return what was in force at a moment, oldest first; nothing before the first release.

    More than one only where a clock was set back, so that the moment came twice.

    Args:
        history: see `periods`.
        moment: in the ledger's own form, see `clr.audit.chain.format_time`.
    """
    return [one for one in history if one.begin <= moment and (moment < one.end or not one.end)]


def at(history: Sequence[Period], moment: str) -> Period | None:
    """Return what was in force when a moment came for the first time; see `during`."""
    found = during(history, moment)
    return found[0] if found else None


def set_back(history: Sequence[Period]) -> Iterator[str]:
    """Yield a sentence for each release that has an earlier time than the one before it."""
    for before, after in pairwise(history):
        if after.begin < before.begin:
            yield (
                f"a clock was set back: release {after.release} followed release {before.release}, "
                f"but by its time it began earlier ({after.begin}, not after {before.begin})"
            )


def replacement(history: Sequence[Period], version: int) -> dict[str, Any] | None:
    """Return what ended the service of a version, as the document says it; None: nothing did."""
    last = max((n for n, one in enumerate(history) if one.version == version), default=None)
    if last is None or last + 1 == len(history):
        return None
    after = history[last + 1]
    kinds = {RETIRED: "retirement", ROLLBACK: "rollback"}
    return {
        "version": after.version,
        "time": after.begin,
        "release": after.release,
        "kind": kinds[after.order.action] if after.order else "promotion",
        "entry": after.order.seq if after.order else after.entry.seq,
        "reason": str(after.order.payload.get("reason", "")) if after.order else None,
    }
