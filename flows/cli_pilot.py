"""``clr pilot``: three stages, then go or no-go."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import click

from clr.errors import UsageError
from flows import output
from flows.command import Command, FiniteRange, as_json

_PATH = click.Path(path_type=Path)
_SHARE = FiniteRange(0, 1, min_open=True, max_open=True)


@click.command(cls=Command)
@click.argument("path", type=_PATH)
@click.option("--name", help="Task name, if the folder's own name is not one.")
@click.option(
    "--today", metavar="RATE|FILE",
    help="Error rate of how it is done now, or a CSV of decisions: columns decided,right.",
)  # fmt: skip
@click.option("--site", type=_PATH, help="Labelled images of the line: FOLDER/CLASS/IMAGES.")
@click.option("--target", type=_SHARE, help="Accuracy that the images should reach; see docs.")
@click.option("--minutes", default=5.0, type=FiniteRange(0), help="For the learning curve.")
@click.option("--language", default="en", type=click.Choice(["en", "ja", "both"]))
@click.option("--output", "place", type=_PATH, help="Folder of pilot.json and the pages.")
@as_json
def pilot(
    path: Path,
    place: Path | None,
    site: Path | None,
    today: str | None,
    language: str,
    as_json: bool,
    **asked: Any,
) -> None:
    """Try the task in folder PATH out: is it worth it, and does anything else suffer?

    Stage 1 checks the images and measures what exists, stage 2 trains on them and asks the
    retention gate, stage 3 compares on images of the line. The answer is one page for whoever
    decides: go, no-go, or what is not known yet. Nothing is registered or promoted; the same
    command goes on where it was cut off. A no-go ends with code 0, too: it is an answer.
    Docs: docs/pilot.md.

    \b
    Examples:
      clr pilot ~/pictures/solder-joints --today 0.08
      clr pilot ~/pictures/solder-joints --today decisions.csv --language both
      clr pilot ~/pictures/solder-joints --site ~/pictures/line-3 --json
    """
    from flows.session import open_session

    output.log_to_stderr()
    known = {} if today is None else _today(today)
    session = open_session()  # before Prefect is imported, which reads its settings then
    from flows.pilot import LANGUAGES, Request, run_pilot, told

    request = Request(
        path=str(path.absolute()), site=str(site.absolute()) if site else "", **known, **asked
    )
    languages = LANGUAGES if language == "both" else (language,)
    output.emit(run_pilot(session, request, languages, place), as_json, told)


def _today(text: str) -> dict[str, Any]:
    """Return the error rate of today, or the counts of a sample of decisions.

    Raises:
        UsageError: neither a rate nor such a file.
    """
    try:
        rate = float(text)
    except ValueError:
        return _counted(text)
    if not 0 <= rate <= 1:
        raise UsageError(
            f"--today {text} is no error rate.", fix="Give a share: 0.08 is 8 errors in 100."
        )
    return {"today": rate}


def _counted(text: str) -> dict[str, Any]:
    path, wanted = Path(text), "decided,right"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        pairs = [(row["decided"].strip(), row["right"].strip()) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise UsageError(
            f"--today {text!r} is neither an error rate nor a CSV file with the columns {wanted}.",
            fix="Give 0.08, say, or one line for each decision: what was decided, what is right.",
        ) from error
    if not pairs:
        raise UsageError(f"{path} has no decisions.", fix="Add one line for each decision.")
    if not all(decided and right for decided, right in pairs):
        raise UsageError(
            f"{path} has decisions without what was decided, or without what is right.",
            fix="Fill both columns in, or leave these lines out: they would count as wrong.",
        )
    return {"wrong": sum(decided != right for decided, right in pairs), "of": len(pairs)}
