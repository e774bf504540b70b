"""The command `clr ab`: a challenger against the champion, on the line's own items."""

from __future__ import annotations

from typing import Any

import click

from flows import output
from flows.cli_release import as_release
from flows.command import Commands, FiniteRange, as_json
from flows.text import percent, table


@click.group(cls=Commands)
def ab() -> None:
    """Try a challenger against the champion of its task, on the line's own items.

    Docs: docs/ab.md.

    \b
    Examples:
      clr ab start solder-joints 3 --reason "new lamps"
      clr ab start solder-joints 3 --share 0.1
      clr ab status --watch
      clr ab stop solder-joints --reason "shift ended"
    """


@ab.command()
@click.argument("task")
@click.argument("version", type=click.IntRange(min=1))
@click.option(
    "--share", type=FiniteRange(0, 1), default=0.0, show_default=True,
    help="Of the items, that it answers; 0: in shadow. The policy has a limit.",
)  # fmt: skip
@click.option("--reason", default="", help="Your words, kept in the ledger.")
@as_json
def start(task: str, version: int, share: float, reason: str, as_json: bool) -> None:
    """Put VERSION of TASK on trial: it has passed its gate, and nobody rejected it.

    In shadow it answers each item, too, and nobody gets its answers.

    \b
    Examples:
      clr ab start solder-joints 3 --reason "new lamps"
      clr ab start solder-joints 3 --share 0.1
    """
    from clr.data.folder import task_name
    from flows import trial

    done = as_release(
        lambda session: trial.start(session, task_name(task), version, share, reason.strip())
    )
    output.emit(done, as_json, _started)


@ab.command()
@click.argument("task", required=False)
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@as_json
def status(task: str | None, watch: bool, as_json: bool) -> None:
    """Show what is on trial, its figures, and what they say so far.

    Looking as often as you like takes nothing from what they prove.

    \b
    Examples:
      clr ab status
      clr ab status solder-joints --json
    """
    from flows import trial
    from flows.session import open_session
    from flows.status import watch_status

    if watch and as_json:
        raise click.UsageError("--watch is for people; repeat `clr ab status --json` instead.")
    session = open_session()
    if watch:
        watch_status(session, shown, read=lambda one: trial.status(one, task))
        return
    output.emit(trial.status(session, task), as_json, shown)


@ab.command()
@click.argument("task")
@click.option("--reason", default="", help="Your words, kept in the ledger.")
@as_json
def stop(task: str, reason: str, as_json: bool) -> None:
    """End the trial of TASK: the champion answers alone; the report is kept in MLflow.

    \b
    Example:  clr ab stop solder-joints --reason "enough seen"
    """
    from clr.data.folder import task_name
    from flows import trial

    done = as_release(lambda session: trial.stop(session, task_name(task), reason.strip()))
    output.emit(done, as_json, _stopped)


def _started(result: dict[str, Any]) -> str:
    return (
        f"{result['task']} version {result['version']} is on trial against version "
        f"{result['champion']}, {result['mode']}. `clr ab status` shows what comes of it."
    )


def _stopped(result: dict[str, Any]) -> str:
    lines = [f"The trial of {result['task']} version {result['version']} has ended."]
    lines += [result["outcome"]]
    if result["report"]:
        lines.append(f"Report: run {result['report']} in MLflow, trial/report.html")
    return "\n".join(lines)


def shown(result: dict[str, Any]) -> str:
    """Return the trials that run as text."""
    if not result["trials"]:
        return "Nothing is on trial. `clr ab start TASK VERSION` starts a trial."
    return "\n\n".join(map(_one, result["trials"]))


def _one(told: dict[str, Any]) -> str:
    rows = [
        (name, str(arm["served"]), str(arm["labelled"]), str(arm["right"]), percent(arm["rate"]),
         f"{percent(arm['low'])} to {percent(arm['high'])}")
        for name, arm in ((one, told["figures"][one]) for one in ("champion", "challenger"))
    ]  # fmt: skip
    title = (
        f"{told['task']} version {told['version']} against version {told['champion'] or '–'}, "
        f"{told['mode']}, since {told['started']}"
    )
    columns = ("arm", "items", "labelled", "right", "success rate", "95 % confidence sequence")
    lines = [table(title, columns, rows), told["outcome"]]
    if told["over"]:
        lines.append(f"{told['over']} `clr ab stop {told['task']}` ends it in the registry.")
    return "\n".join(lines)
