"""``clr plan``: how many images does a task need, and are they worth labelling?"""

from __future__ import annotations

from pathlib import Path

import click

from flows import output
from flows.command import Command, FiniteRange, as_json

_PATH = click.Path(path_type=Path)
_SHARE = FiniteRange(0, 1, min_open=True, max_open=True)


@click.command(cls=Command)
@click.argument("path", type=_PATH)
@click.option("--target", default=0.95, type=_SHARE, help="Wanted accuracy; default 0.95.")
@click.option("--epochs", default=8, type=click.IntRange(1, 1000), help="Of a training; default 8.")
@click.option(
    "--minutes", default=10.0, type=FiniteRange(0), help="For CLR trainings; 0: probes only."
)
@click.option("--output", "place", type=_PATH, help="Folder of plan.json and plan.png.")
@as_json
def plan(
    path: Path, target: float, epochs: int, minutes: float, place: Path | None, as_json: bool
) -> None:
    """Foretell from the pilot set in folder PATH how many images a target accuracy needs.

    Linear probes and CLR learn from subsets of many sizes; a power law with its interval goes
    on from there. PATH is a task folder as for `clr onboard`; nothing is onboarded. With
    `business:` in its task.yaml it also says what more images are worth. Docs: docs/plan.md.

    \b
    Examples:
      clr plan ~/pictures/solder-joints --target 0.97
      clr plan ~/pictures/solder-joints --minutes 0 --json
    """
    from flows.plan import run_plan
    from flows.plan_report import told
    from flows.session import open_session

    output.log_to_stderr()
    result = run_plan(open_session(), path, target, epochs, minutes, place)
    output.emit(result, as_json, told)
