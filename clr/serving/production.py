"""What a task did in production: the journal and people's records, counted by month."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from clr.roi import Case, Field
from clr.serving.counts import TICKS, hourly, paces
from clr.serving.returns import Served, served_case, window_fields
from clr.serving.upkeep import Upkeep, first_day, within

DAY = 86_400.0
_AT_ONCE = 500
_ONE = "request_id, version, CAST(time / 3600 AS INTEGER)"
_TOLD = """
SELECT a.request_id, a.task, a.version, CAST(a.time / 3600 AS INTEGER), a.label, f.label
FROM feedback f CROSS JOIN answers a USING (request_id) -- in this order: labels are few
ORDER BY f.rowid
"""


Part = str | int | None
"""Of the answers of a task: those of a month (YYYY-MM), of a version, or all."""


@dataclass(eq=False)
class _Count:
    """What was counted of one part.

    Attributes:
        hours: since 1970, with an answer.
        labels: answers by label.
        ticks: answers by the time that they took.
        told: {request id: (predicted, newest true label)}.
        drawn: request ids that were drawn at random.
    """

    hours: set[int] = field(default_factory=set)
    labels: Counter[str] = field(default_factory=Counter)
    ticks: Counter[int] = field(default_factory=Counter)
    told: dict[str, tuple[str, str]] = field(default_factory=dict)
    drawn: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Production:
    """One task in production.

    Attributes:
        begin: of its first answer in the journal, seconds since 1970.
        total: everything since then.
        months: {YYYY-MM: that month}, oldest first; in UTC.
        versions: {version: everything that it answered}.
    """

    begin: float
    total: Served
    months: Mapping[str, Served]
    versions: Mapping[int, Served]


def read_production(
    state: Path, upkeep: Mapping[str, Upkeep], now: float | None = None
) -> dict[str, Production]:
    """Count what the journal has, by task; tasks that never answered are left out.

    Args:
        state: ``CLR_HOME``.
        upkeep: what people recorded, by task.
        now: seconds since 1970; the end of the last window.
    """
    from clr.serving.journal import reading

    end = datetime.now(UTC).timestamp() if now is None else now
    with reading(state) as database:
        counts = _counts(database, upkeep)
        return {
            task: _production(counts, task, _first(database, task), end, upkeep)
            for task in sorted({task for task, _ in counts})
        }


def _counts(
    database: sqlite3.Connection, upkeep: Mapping[str, Upkeep]
) -> dict[tuple[str, Part], _Count]:
    """Return what was counted, by task and part."""
    counts: dict[tuple[str, Part], _Count] = defaultdict(_Count)

    def of(task: str, version: int, month: str) -> Iterator[_Count]:
        return (counts[task, part] for part in (None, version, month))

    for task, version, hour, label, items in hourly(database):
        for one in of(task, version, _month(hour)):
            one.hours.add(hour)
            one.labels[label] += items
    for task, version, month, ticks, items in paces(database):
        for one in of(task, version, month):
            one.ticks[ticks] += items
    for request, task, version, hour, predicted, true in database.execute(_TOLD):
        for one in of(task, version, _month(hour)):
            one.told[request] = predicted, true
    for task, known in upkeep.items():
        for request, version, hour in _drawn(database, task, sorted(known.drawn)):
            for one in of(task, version, _month(hour)):
                one.drawn.append(request)
    return counts


@cache
def _month(hour: int) -> str:
    return f"{datetime.fromtimestamp(3600 * hour, UTC):%Y-%m}"


def _drawn(
    database: sqlite3.Connection, task: str, drawn: Sequence[str]
) -> Iterator[tuple[str, int, int]]:
    """Yield request id, version and hour of those that the journal still has."""
    for at in range(0, len(drawn), _AT_ONCE):
        asked = drawn[at : at + _AT_ONCE]
        places = ", ".join("?" * len(asked))
        query = f"SELECT {_ONE} FROM answers WHERE task = ? AND request_id IN ({places})"  # noqa: S608
        yield from database.execute(query, (task, *asked))


def _first(database: sqlite3.Connection, task: str) -> float:
    query = "SELECT min(time) FROM answers WHERE task = ?"
    return float(database.execute(query, (task,)).fetchone()[0])


def _production(
    counts: Mapping[tuple[str, Part], _Count], task: str, first: float, end: float,
    upkeep: Mapping[str, Upkeep],
) -> Production:  # fmt: skip
    end, own = max(end, first + 1), upkeep.get(task, Upkeep())

    def window(part: Part, begin: float, until: float) -> Served:
        return _served(counts.get((task, part), _Count()), begin, until, own)

    return Production(
        begin=first,
        total=window(None, first, end),
        months={
            name: window(name, max(begin, first), min(until, end))
            for name, begin, until in _months(first, end)
        },
        versions={
            part: window(part, first, end)
            for part in sorted(
                part for name, part in counts if name == task and isinstance(part, int)
            )
        },
    )


def _months(first: float, end: float) -> Iterator[tuple[str, float, float]]:
    day = datetime.fromtimestamp(first, UTC)
    year, month = day.year, day.month
    while (begin := datetime(year, month, 1, tzinfo=UTC).timestamp()) < end:
        following = (year + month // 12, month % 12 + 1)
        until = datetime(*following, 1, tzinfo=UTC).timestamp()
        yield f"{year:04}-{month:02}", begin, until
        year, month = following


def _served(count: _Count, begin: float, end: float, upkeep: Upkeep) -> Served:
    confusion: dict[str, dict[str, int]] = {}
    for predicted, true in count.told.values():
        row = confusion.setdefault(true, {})
        row[predicted] = row.get(predicted, 0) + 1
    known = [count.told[one] for one in count.drawn if one in count.told]
    worked, incidents = within(upkeep, begin, end)
    return Served(
        days=(end - begin) / DAY,
        items=count.labels.total(),
        active_hours=len(count.hours),
        latency_ms=_latency(count.ticks),
        labels=dict(count.labels),
        labelled=len(count.told),
        wrong=sum(predicted != true for predicted, true in count.told.values()),
        confusion=confusion,
        drawn=len(count.drawn),
        drawn_labelled=len(known),
        drawn_wrong=sum(predicted != true for predicted, true in known),
        hours=worked,
        incidents=incidents,
        logged_days=_logged_seconds(upkeep, begin, end) / DAY,
    )


def _logged_seconds(upkeep: Upkeep, begin: float, end: float) -> float:
    """Return how much of a window people kept records in; `within` counts the hours of no more."""
    return max(0.0, end - max(begin, first_day(upkeep.logged))) if upkeep.logged else 0.0


def _latency(ticks: Counter[int]) -> tuple[float, float] | None:
    """Return median and 95 % of the milliseconds from request to answer: nearest ranks.

    Of n values in order the k-th, k = ⌈q·n⌉ from 1; each to a tenth of a millisecond.
    """
    if not ticks:
        return None
    items = ticks.total()
    median, late = (_ranked(ticks, rank) for rank in (-(-items // 2), -(-19 * items // 20)))
    return 1000 * median / TICKS, 1000 * late / TICKS


def _ranked(ticks: Counter[int], rank: int) -> int:
    for value in sorted(ticks):
        rank -= ticks[value]
        if rank <= 0:
            return value
    raise AssertionError("no rank is higher than there are values")


def produced(
    case: Mapping[str, Field], production: Production, version: int
) -> tuple[Case, dict[str, Any]]:
    """Return a case with what production made known, and what production tells.

    Args:
        case: of the onboarding.
        production: of the task.
        version: that serves.
    """
    defects = case.get("defects")
    own = production.versions.get(version, Served(production.total.days))
    told = {
        "since": datetime.fromtimestamp(production.begin, UTC).isoformat(timespec="seconds"),
        "days": round(production.total.days, 3),
        "total": window_fields(production.total, defects),
        "months": [
            {"month": name, "days": round(one.days, 3), "fields": window_fields(one, defects)}
            for name, one in production.months.items()
        ],
    }
    return served_case(case, production.total, own), told
