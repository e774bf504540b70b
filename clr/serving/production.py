"""What a task did in production: the journal and people's records, counted by month."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clr.roi import Case, Field
from clr.serving.returns import Served, served_case, window_fields
from clr.serving.upkeep import Upkeep, first_day, within

DAY = 86_400.0


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
        firsts = database.execute("SELECT task, min(time) FROM answers GROUP BY task").fetchall()
        return {
            task: _production(database, task, first, end, upkeep.get(task, Upkeep()))
            for task, first in sorted(firsts)
        }


def _production(
    database: sqlite3.Connection, task: str, first: float, end: float, upkeep: Upkeep
) -> Production:
    end = max(end, first + 1)
    months = {
        name: _window(database, task, max(begin, first), min(until, end), upkeep)
        for name, begin, until in _months(first, end)
    }
    versions = [
        one
        for (one,) in database.execute(
            "SELECT DISTINCT version FROM answers WHERE task = ? ORDER BY version", (task,)
        )
    ]
    return Production(
        begin=first,
        total=_window(database, task, first, end, upkeep),
        months=months,
        versions={
            one: _window(database, task, first, end, upkeep, f"AND version = {int(one)}")
            for one in versions
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


def _window(
    database: sqlite3.Connection, task: str, begin: float, end: float, upkeep: Upkeep,
    only: str = "",
) -> Served:  # fmt: skip
    where, values = f"WHERE task = ? AND time >= ? AND time < ? {only}", (task, begin, end)
    ((items, hours),) = database.execute(
        f"SELECT count(*), count(DISTINCT CAST(time / 3600 AS INTEGER)) FROM answers {where}",  # noqa: S608
        values,
    )
    labels = dict(
        database.execute(f"SELECT label, count(*) FROM answers {where} GROUP BY label", values)  # noqa: S608
    )
    told = _labelled(database, where, values)
    drawn = _drawn(database, where, values, upkeep.drawn)
    confusion: dict[str, dict[str, int]] = {}
    for request in told.values():
        row = confusion.setdefault(request[1], {})
        row[request[0]] = row.get(request[0], 0) + 1
    known = [told[one] for one in drawn if one in told]
    worked, incidents = within(upkeep, begin, end)
    return Served(
        days=(end - begin) / DAY,
        items=items,
        active_hours=hours,
        latency_ms=_latency(database, where, values, items),
        labels=labels,
        labelled=len(told),
        wrong=sum(predicted != true for predicted, true in told.values()),
        confusion=confusion,
        drawn=len(drawn),
        drawn_labelled=len(known),
        drawn_wrong=sum(predicted != true for predicted, true in known),
        hours=worked,
        incidents=incidents,
        logged_days=_logged_seconds(upkeep, begin, end) / DAY,
    )


def _logged_seconds(upkeep: Upkeep, begin: float, end: float) -> float:
    """Return how much of a window people kept records in; `within` counts the hours of no more."""
    return max(0.0, end - max(begin, first_day(upkeep.logged))) if upkeep.logged else 0.0


def _labelled(
    database: sqlite3.Connection, where: str, values: tuple[Any, ...]
) -> dict[str, tuple[str, str]]:
    """Return {request id: (predicted, newest true label)} of a window's answers."""
    inner = f"SELECT request_id, label FROM answers {where}"  # noqa: S608
    query = (
        f"SELECT a.request_id, a.label, f.label FROM feedback f JOIN ({inner}) a "  # noqa: S608
        "USING (request_id) ORDER BY f.rowid"
    )
    return {one: (predicted, true) for one, predicted, true in database.execute(query, values)}


def _drawn(
    database: sqlite3.Connection, where: str, values: tuple[Any, ...], drawn: frozenset[str]
) -> list[str]:
    if not drawn:
        return []
    asked = sorted(drawn)
    found: list[str] = []
    for at in range(0, len(asked), 500):
        part = asked[at : at + 500]
        places = ", ".join("?" * len(part))
        query = f"SELECT request_id FROM answers {where} AND request_id IN ({places})"  # noqa: S608
        found += [one for (one,) in database.execute(query, (*values, *part))]
    return found


def _latency(
    database: sqlite3.Connection, where: str, values: tuple[Any, ...], items: int
) -> tuple[float, float] | None:
    """Return median and 95 % of the milliseconds from request to answer: nearest ranks.

    Of n values in order the k-th, k = ⌈q·n⌉ from 1.
    """
    if not items:
        return None
    query = f"SELECT seconds FROM answers {where} ORDER BY seconds LIMIT 1 OFFSET ?"  # noqa: S608
    ranks = (-(-items // 2) - 1, -(-19 * items // 20) - 1)
    median, late = (database.execute(query, (*values, one)).fetchone()[0] for one in ranks)
    return 1000 * median, 1000 * late


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
