"""``clr roi``: what a task costs and brings. ``clr upkeep``: what people know of that."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import click

from clr.errors import UsageError
from flows import output
from flows.command import Command, FiniteRange, as_json


@click.command(cls=Command)
@click.argument("task", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="One line a field and window, for a sheet.")
@as_json
def roi(task: str | None, as_csv: bool, as_json: bool) -> None:
    """Show the business case of TASK, or of every task: what is measured, assumed, derived.

    On the machine that serves, what production tells takes the place of assumptions, and is
    shown by month. Docs: docs/roi.md.

    \b
    Examples:
      clr roi solder-joints
      clr roi --csv > roi.csv
    """
    from flows import roi as cases
    from flows.session import open_session

    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other.", fix="Give one of them.")
    result = cases.read_roi(open_session(), task)
    if as_csv:  # a sheet has no place for them
        for one in result.get("notes", ()):
            output.note(one)
    output.emit(result, as_json, cases.as_csv if as_csv else cases.told)


@click.command(cls=Command)
@click.argument("task")
@click.option("--hours", default=0.0, type=FiniteRange(0, 1000), help="Hours of work.")
@click.option("--incident", default="", metavar="WORDS", help="What went wrong.")
@click.option("--on", type=click.DateTime(["%Y-%m-%d"]), help="Day that it is about; today.")
@click.option("--draw", default=0, type=click.IntRange(0), help="Draw items to be labelled.")
@click.option(
    "--days", default=7.0, type=FiniteRange(0, min_open=True), help="Of the last days; 7."
)
@as_json
def upkeep(
    task: str,
    hours: float,
    incident: str,
    on: datetime | None,
    draw: int,
    days: float,
    as_json: bool,
) -> None:
    """Record hours of upkeep and incidents of TASK, or draw served items to be labelled.

    Both are written into the ledger with who and when. The error rate of drawn items, once
    /v1/feedback has their labels, is that of a random sample. Docs: docs/roi.md.

    \b
    Examples:
      clr upkeep solder-joints --hours 2 --incident "lamp of line 3 replaced"
      clr upkeep solder-joints --hours 0.5 --on 2027-03-02
      clr upkeep solder-joints --draw 50
    """
    from flows import roi as cases
    from flows.session import open_session

    if draw and (hours or incident or on):
        raise UsageError("--draw goes alone.", fix="Record hours by a command of its own.")
    session = open_session()
    result: dict[str, Any]
    if draw:
        result = cases.draw_items(session, task, draw, days)
        output.emit(result, as_json, cases.listed)
        return
    day: date | None = on.date() if on else None
    result = cases.record_upkeep(session, task, hours, incident, day)
    output.emit(result, as_json, cases.recorded)
