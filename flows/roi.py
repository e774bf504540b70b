"""The business case of every task, with what production made known in the place of assumptions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError, UsageError
from clr.roi import OF_PROBE
from flows.session import Session
from flows.status import has_registry
from flows.text import table

if TYPE_CHECKING:
    from clr.registry.versions import Version

Result = dict[str, Any]
COLUMNS = (
    "task", "version", "window", "field", "kind", "unit", "value", "low", "high", "formula",
    "source", "assumed",
)  # fmt: skip
"""Of the CSV form; `value` is the middle where a field has three ends."""


def read_roi(session: Session, task: str | None) -> Result:
    """Return the business case of a task, or of every task: what ``clr roi --json`` prints.

    Where the task has answered on this machine, `roi` is the case with what production made
    known, `onboarded` the one from before, and `production` what was counted, by month.

    Raises:
        UsageError: no such task.
        IntegrityBroken: its ``roi.json`` is damaged.
    """
    from clr.registry.fetch import fetch_json
    from clr.serving.production import produced, read_production

    cases: Result = {}
    there = _onboarded(session)
    names = [_checked(task, there)] if task else list(there)
    upkeep, notes = _upkeep(session)
    production = read_production(session.settings.state, upkeep)
    for name in names:
        known = there[name]
        version = next((one for one in known if "champion" in one.aliases), known[-1])
        case = fetch_json(session.registry, version.run_id, "roi.json")
        cases[name] = {"version": version.version, "roi": case}
        if name in production:
            now, told = produced(case, production[name], version.version)
            cases[name] |= {"roi": now, "onboarded": case, "production": told}
    return {"tasks": cases, **({"notes": notes} if notes else {})}


def _upkeep(session: Session) -> tuple[Mapping[str, Any], list[str]]:
    from clr.serving.upkeep import read_upkeep

    try:
        return read_upkeep(session.ledger), []
    except ClrError as error:  # the journal tells what it can all the same
        return {}, [f"Upkeep is not in these figures: {error}"]


def record_upkeep(
    session: Session, task: str, hours: float, incident: str, on: date | None
) -> Result:
    """Write hours and an incident of a task into the ledger.

    Raises:
        UsageError: no such task, nothing to record, a day to come, or one before the task was.
    """
    from clr.serving.upkeep import LOGGED, logged_payload

    payload = logged_payload(hours, incident, on, datetime.now(UTC).date())
    there = _onboarded(session)
    name = _checked(task, there)
    first = datetime.fromtimestamp(there[name][0].created / 1000, UTC).date()
    if on is not None and on < first - timedelta(days=1):  # that of another time zone
        raise UsageError(
            f"{on} is before {first}, when {name} got its first version.",
            fix="Give a day since then: what is recorded stays.",
        )
    entry = session.record(LOGGED, f"clr-{name}", payload)
    return {"task": task, "entry": entry.seq, "recorded": entry.time, "by": entry.actor, **payload}


def draw_items(session: Session, task: str, count: int, days: float) -> Result:
    """Draw answers to be labelled, and write which into the ledger.

    Raises:
        UsageError: no such task, or nothing to draw from.
    """
    from clr.serving.upkeep import DRAWN, Upkeep, draw, read_upkeep

    name = _checked(task, _onboarded(session))
    taken = read_upkeep(session.ledger).get(name, Upkeep()).drawn
    payload = draw(session.settings.state, name, count, days, taken)
    entry = session.record(DRAWN, f"clr-{name}", payload)
    return {"task": name, "entry": entry.seq, **payload}


def _onboarded(session: Session) -> dict[str, Sequence[Version]]:
    """Return the versions of every task that has any, oldest first."""
    from clr.registry.overview import overview

    if not has_registry(session):
        return {}
    return {name: known for name, known in overview(session.registry).versions.items() if known}


def _checked(task: str, there: Mapping[str, Any]) -> str:
    from clr.data.folder import task_name

    name = task_name(task)
    if name not in there:
        raise UsageError(
            f"Task {name} has never been onboarded here.",
            fix=f"Onboarded: {', '.join(there) or 'none'}.",
        )
    return name


def as_csv(result: Result) -> str:
    """Return every field of every task as one table: one line a field and window."""
    made = io.StringIO()
    writer = csv.DictWriter(made, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for name, case in result["tasks"].items():
        for window, fields in _windows(case):
            for field, one in fields.items():
                row = _row(one)
                writer.writerow(
                    {"task": name, "version": case["version"], "window": window, "field": field}
                    | {column: row[column] for column in COLUMNS if column in row}
                )
    return made.getvalue().rstrip("\n")


def _windows(case: Result) -> Iterator[tuple[str, Result]]:
    yield "case", case["roi"]
    if "production" in case:
        yield "all", case["production"]["total"]
        for month in case["production"]["months"]:
            yield month["month"], month["fields"]


def _row(field: Result) -> Result:
    row = {**field, "value": field.get("value", field.get("middle"))}
    return {column: _cell(value) for column, value in row.items()}


def _cell(value: Any) -> Any:
    """Return a value as a cell; words that a spreadsheet would run as a formula begin with '."""
    if isinstance(value, dict | list):
        return json.dumps(value)
    formula = isinstance(value, str) and value.lstrip().startswith(("=", "+", "-", "@"))
    return f"'{value}" if formula else value


def told(result: Result) -> str:
    """Draw the business case of each task, and what production tells, by month."""
    parts = []
    for name, case in result["tasks"].items():
        parts.append(
            table(
                f"{name} version {case['version']}",
                ("field", "value", "unit", "kind"),
                (
                    (field, _shown(one), one["unit"], _kind(one))
                    for field, one in case["roi"].items()
                ),
            )
        )
        if "production" in case:
            parts.append(_production(name, case["production"]))
    return "\n\n".join([*parts, *result.get("notes", [])]) or "No task has been onboarded yet."


_MONTHLY = (
    ("items", "items"), ("items_per_hour", "items/h"), ("latency_p95_served_ms", "p95, ms"),
    ("labelled", "labelled"), ("error_rate", "error"), ("defect_rate", "defects"),
    ("maintenance_hours", "hours"), ("incidents", "incidents"),
)  # fmt: skip


def _production(name: str, told: Result) -> str:
    windows = [*((one["month"], one["fields"]) for one in told["months"]), ("all", told["total"])]
    drawn = table(
        f"{name} in production since {told['since'][:10]} (UTC)",
        ("month", *(title for _, title in _MONTHLY)),
        (
            (month, *(_shown(fields[field]) if field in fields else "–" for field, _ in _MONTHLY))
            for month, fields in windows
        ),
    )
    rate = told["total"].get("error_rate")
    return f"{drawn}\nlabels: {rate['source']}" if rate else drawn


def _kind(field: Result) -> str:
    if field.get("source") == OF_PROBE:
        return f"{field['kind']} (the linear probe's)"
    was = field.get("assumed")
    return field["kind"] if was is None else f"{field['kind']} (assumed: {_number(was)})"


def _shown(field: Result) -> str:
    if "middle" in field:
        low, middle, high = (_number(field[end]) for end in ("low", "middle", "high"))
        return f"{middle} [{low}, {high}]"
    return _number(field.get("value"))


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def recorded(result: Result) -> str:
    """Say what was written down."""
    what = [f"{result['hours']:g} hours"] if result["hours"] else []
    what += [f"an incident ({result['reason']})"] if result["incident"] else []
    return f"Entry {result['entry']}: {' and '.join(what)} of {result['task']} on {result['on']}."


def listed(result: Result) -> str:
    """List the request ids that were drawn, one a line."""
    return "\n".join(result["requests"])
