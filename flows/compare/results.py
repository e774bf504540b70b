"""The report of a comparison: read its units, summarise, draw, write; no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clr.compare.unit import Unit
from clr.core.files import canonical_json, write_atomic
from clr.errors import UsageError
from flows.compare.plan import PLAN_FILE, finished, folder, read_plan
from flows.judge import limits
from flows.session import Session

Result = dict[str, Any]


def find(session: Session, name: str) -> Path:
    """Return the plan of a comparison by the first digits of its name.

    Raises:
        UsageError: none or several begin so.
    """
    there = sorted(folder(session.settings).glob(f"*/{PLAN_FILE}"))
    found = [path for path in there if name and path.parent.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.parent.name for path in there) or "none yet"
    raise UsageError(f"{len(found)} comparisons begin with {name!r}.", fix=f"There are: {names}.")


def write(
    session: Session, plan_file: Path, place: Path, failed: Sequence[Result] = ()
) -> tuple[Result, dict[str, Path]]:
    """Write ``compare.json``, ``compare.html`` and pictures of what is finished so far.

    Args:
        session: the workspace.
        plan_file: of the comparison.
        place: folder to write into.
        failed: errors of units that have none.

    Returns:
        The document of schema ``clr.compare/1``, and the files by their names.

    Raises:
        UsageError: nothing is finished yet, or all failed.
        IntegrityBroken: plan or a unit is damaged.
    """
    from clr.compare.page import render
    from clr.compare.plots import pictures

    document = summarise(session, plan_file, failed)
    drawn = pictures(document)
    contents = {
        "compare.json": canonical_json(document),
        "compare.html": render(document, drawn).encode(),
        **drawn,
    }
    for name, data in contents.items():
        write_atomic(place / name, data)
    return document, {name: place / name for name in contents}


def summarise(session: Session, plan_file: Path, failed: Sequence[Result] = ()) -> Result:
    """Return the document; see `write`."""
    from clr.compare.summary import summarise
    from clr.core.methods import METHODS, find_method

    plan, command, made_at = read_plan(plan_file)
    units = list(finished(session.settings, plan).values())
    if not units:
        raise _nothing_done(plan.name, failed)
    known = list(METHODS)
    ordered = sorted(plan.about["methods"], key=lambda name: known.index(name.split("+")[0]))
    methods = {
        name: {"title": one.title, "source": one.source, "shared": one.shared}
        for name, one in ((name, find_method(name)) for name in ordered)
    }
    about = {
        **plan.about,
        "name": plan.name,
        "digest": plan.digest,
        "command": command,
        "made_at": made_at,
        "tasks": [
            {
                "name": task.name,
                "classes": len(task.labels),
                "size": task.size,
                "train": len(task.train),
                "test": len(task.test),
                "used": max(s.train for u in units for s in u.steps if s.task == task.name),
                "digest": task.digest,
            }
            for task in plan.tasks.values()
            if any(task.name in unit.asked.tasks for unit in units)
        ],
        "hardware": sorted({_machine(unit) for unit in units}),
        "units": {"planned": len(plan.units), "finished": len(units)},
        "failed": list(failed),
    }
    return summarise(units, methods, about, limits(session))


def _nothing_done(name: str, failed: Sequence[Result]) -> UsageError:
    if not failed:
        return UsageError(
            f"No unit of comparison {name} is finished yet.", fix="Wait, or run it again."
        )
    first = failed[0]
    return UsageError(
        f"No unit of comparison {name} could be done; the first, {first['unit']}: "
        f"{first['message']}",
        fix=first.get("fix") or "Put that right, then run it again.",
    )


def _machine(unit: Unit) -> str:
    return f"{unit.about['hardware']}, threads: {unit.about['threads']}"


def answer(document: Result, files: Mapping[str, Path], run: str = "") -> Result:
    """Return what ``clr compare --json`` prints: the document, the report's paths, MLflow's run."""
    return {**document, "reports": {name: str(path) for name, path in files.items()}, "run": run}


def told(answer: Result) -> str:
    """Describe a comparison: one line a method."""
    from clr.compare.words import lines

    return "\n".join([*lines(answer), f"report: {answer['reports']['compare.html']}"])
