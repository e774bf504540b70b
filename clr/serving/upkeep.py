"""What people record about a task that serves: hours, incidents, and which items to label.

Acts of the ledger, so each has who and when. ``upkeep.logged`` has {hours, incident, on} and, as
words that can be erased, `reason`; ``feedback.drawn`` has the request ids that were drawn at
random, and of how many.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.errors import UsageError

if TYPE_CHECKING:
    from clr.audit.ledger import Ledger

LOGGED, DRAWN = "upkeep.logged", "feedback.drawn"
DAY = 86_400.0
MOST_DRAWN = 500
"""At once: the ledger names each."""


@dataclass(frozen=True)
class Logged:
    """One record of upkeep.

    Attributes:
        seq: of the ledger's entry.
        recorded: UTC, ISO 8601.
        by: who recorded it.
        on: day that it is about.
        hours: of work.
        incident: whether something went wrong.
        reason: what it was, in words.
    """

    seq: int
    recorded: str
    by: str
    on: date
    hours: float
    incident: bool
    reason: str


@dataclass(frozen=True)
class Upkeep:
    """All records of one task.

    Attributes:
        logged: oldest first.
        drawn: request ids that were drawn at random.
    """

    logged: tuple[Logged, ...] = ()
    drawn: frozenset[str] = frozenset()


def read_upkeep(ledger: Ledger) -> dict[str, Upkeep]:
    """Return what was recorded, by task.

    Raises:
        ServiceUnavailable: the ledger cannot be reached.
        IntegrityBroken: it is damaged.
    """
    logged: dict[str, list[Logged]] = {}
    drawn: dict[str, set[str]] = {}
    for one in ledger.entries(action=LOGGED):
        told = one.payload
        record = Logged(
            one.seq, one.time, one.actor, date.fromisoformat(told["on"]), float(told["hours"]),
            bool(told["incident"]), str(told.get("reason", "")),
        )  # fmt: skip
        logged.setdefault(_task(one.subject), []).append(record)
    for one in ledger.entries(action=DRAWN):
        drawn.setdefault(_task(one.subject), set()).update(one.payload["requests"])
    return {
        task: Upkeep(tuple(logged.get(task, ())), frozenset(drawn.get(task, ())))
        for task in sorted(logged.keys() | drawn.keys())
    }


def _task(subject: str) -> str:
    return subject.removeprefix("clr-")


def logged_payload(hours: float, incident: str, on: date | None, today: date) -> dict[str, Any]:
    """Return the payload of ``upkeep.logged``.

    Raises:
        UsageError: neither hours nor an incident, or a day to come.
    """
    incident = incident.strip()
    if not hours and not incident:
        raise UsageError(
            "There is nothing to record.",
            fix='Give --hours 2, --incident "what happened", or both.',
        )
    if on is not None and on > today:
        raise UsageError(f"{on} is still to come.", fix="Give the day on which it happened.")
    told: dict[str, Any] = {
        "hours": hours, "incident": bool(incident), "on": (on or today).isoformat()
    }  # fmt: skip
    return told | ({"reason": incident} if incident else {})


def draw(state: Path, task: str, count: int, days: float, taken: Iterable[str]) -> dict[str, Any]:
    """Draw answers of a task at random, each with the same chance; those drawn before stay out.

    Args:
        state: ``CLR_HOME``, where the journal is.
        task: name.
        count: how many, at most `MOST_DRAWN`.
        days: of the last so many days.
        taken: request ids drawn before.

    Returns:
        payload of ``feedback.drawn``: requests, of how many, days.

    Raises:
        UsageError: too many at once, or there is none to draw.
    """
    from clr.serving.journal import reading

    if not 1 <= count <= MOST_DRAWN:
        raise UsageError(f"{count} is no number of items from 1 to {MOST_DRAWN}.")
    since = datetime.now(UTC).timestamp() - DAY * days
    with reading(state) as database:
        rows = database.execute(
            "SELECT request_id FROM answers WHERE task = ? AND time >= ?", (task, since)
        ).fetchall()
    before = set(taken)
    there = [one for (one,) in rows if one not in before]
    if not there:
        raise UsageError(
            f"The journal has no answers of {task} of the last {days:g} days to draw from.",
            fix="Draw on the machine that serves, or of more days: --days 30.",
        )
    chosen = secrets.SystemRandom().sample(there, min(count, len(there)))
    return {"requests": sorted(chosen), "of": len(there), "days": days}


def within(upkeep: Upkeep, begin: float, end: float) -> tuple[float | None, int]:
    """Return hours and incidents of the days in a window; hours None before the first record.

    A record is about a day in UTC, and counts where any of that day is in the window: also today,
    and the day of the first answer.

    Args:
        upkeep: of the task.
        begin: seconds since 1970.
        end: the same.
    """
    if not upkeep.logged or first_day(upkeep.logged) >= end:
        return None, 0
    there = [one for one in upkeep.logged if begin - DAY < _midnight(one.on) < end]
    return sum(one.hours for one in there), sum(one.incident for one in there)


def first_day(logged: Iterable[Logged]) -> float:
    """Return when the first day on record began, seconds since 1970."""
    return min(_midnight(one.on) for one in logged)


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def as_rows(upkeep: Mapping[str, Upkeep]) -> list[dict[str, Any]]:
    """Return every record of upkeep as JSON, newest first."""
    rows = [
        {"task": task, **vars(one), "on": one.on.isoformat()}
        for task, known in upkeep.items()
        for one in known.logged
    ]
    return sorted(rows, key=lambda row: -row["seq"])
