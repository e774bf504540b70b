"""``clr compare``: which method is best here, by how much, and at what cost?"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from clr.errors import UsageError
from flows import output
from flows.command import Command, FiniteRange, as_json

PATH = click.Path(path_type=Path)


@click.command(cls=Command)
@click.argument("paths", metavar="[PATH…]", nargs=-1, type=PATH)
@click.option("--methods", default="", metavar="A,B", help="These methods; default: all.")
@click.option("--tasks", default="", metavar="A,B", help="These tasks, in this order.")
@click.option("--orders", default=1, type=click.IntRange(1, 100), help="Orders of the tasks.")
@click.option("--seeds", default=3, type=click.IntRange(1, 1000), help="Seeds; default 3.")
@click.option("--images", default=0, type=click.IntRange(0), help="Training images a task; 0: all.")
@click.option("--per-class", default="", metavar="N,N", help="Or so many a class: curves.")
@click.option("--size", default=0, type=click.IntRange(0, 1024), help="Input side; 0: by images.")
@click.option("--epochs", default=8, type=click.IntRange(1, 1000), help="Budget; default 8.")
@click.option("--seconds", type=FiniteRange(0, min_open=True), help="Or wall time a task.")
@click.option("--output", "place", type=PATH, help="Folder of the report.")
@click.option("--report", metavar="NAME", help="Only write the report of a comparison again.")
@as_json
def compare(as_json: bool, paths: tuple[Path, ...], **asked: Any) -> None:
    """Compare CLR with its rivals on the tasks of this workspace, or on task folders PATH.

    Every method gets the same images, seeds and budget. Methods whose tasks share weights
    learn the tasks one after another. A comparison that was cut off goes on where it stopped.
    Fans out as CLR_TASK_RUNNER and CLR_PARALLEL say. Docs: docs/compare.md.

    \b
    Examples:
      clr compare --methods probe,fine-tuning,clr-reduced
      clr compare ~/tasks/* --images 600 --size 96 --output report
      clr compare --per-class 5,10,25,50,100 --methods probe,clr-reduced
      clr compare --report 9f2c1a70be --output report
    """
    from flows.asked import require_writable
    from flows.session import open_session

    output.log_to_stderr()
    session = open_session()  # before Prefect is imported, which reads its settings then
    place, report = asked.pop("place"), asked.pop("report")
    if report is not None:
        from flows.compare import results

        path = results.find(session, report)
        if place:
            require_writable(place)
        document, files = results.write(session, path, place or path.parent)
        output.emit(results.answer(document, files), as_json, results.told)
        return
    from clr.core.methods import METHODS
    from flows.compare.plan import Request
    from flows.compare.tasks import read_tasks

    methods, tasks = _names(asked.pop("methods")) or tuple(METHODS), _names(asked.pop("tasks"))
    counts = _counts(asked.pop("per_class"))
    if counts and asked["images"]:
        raise UsageError("--images and --per-class exclude each other.", fix="Give one of them.")
    if 0 < asked["size"] < 32:
        raise UsageError(f"--size is {asked['size']}.", fix="Use 0 or 32 … 1024.")
    read = read_tasks(session.settings, paths, tasks, asked.pop("size"))
    request = Request(methods=methods, per_class=counts, **asked)
    from flows.compare import results
    from flows.compare.flow import refusal, run_compare

    if place:
        require_writable(place)  # now, not after the trainings
    command = shlex.join(["clr", *sys.argv[1:]])
    answer = run_compare(session, request, read, place, command)
    output.emit(answer, as_json, results.told, refusal(answer))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(one.strip() for one in text.split(",") if one.strip())
    if len(set(names)) < len(names):
        raise UsageError(f"{text!r} names one twice.", fix="Name each once.")
    return names


def _counts(text: str) -> tuple[int, ...]:
    counts = _names(text)
    if not all(one.isdecimal() and len(one) <= 7 and 2 <= int(one) <= 1_000_000 for one in counts):
        raise UsageError(
            f"--per-class {text!r} is no list of numbers from 2 to 1000000.",
            fix="For example: --per-class 5,10,25.",
        )
    return tuple(sorted({int(one) for one in counts}))
