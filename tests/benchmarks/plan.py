"""Does `clr plan` foretell what more images bring? From half of a real task to all of it.

Curves are fitted to subsets of half the training images; then probe and CLR learn from all, and
what was foretold stands beside what is seen, on the same test images. Task folders are those of
../shared/tasks, or of `CLR_BENCH_FOLDERS=a,b`. `CLR_BENCH_MINUTES=10` pays for CLR's curve too.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

PLACE = Path(__file__).resolve().parents[3] / "shared" / "tasks"
MINUTES = float(os.environ.get("CLR_BENCH_MINUTES", "0"))
EPOCHS = int(os.environ.get("CLR_BENCH_EPOCHS", "8"))
HEADER = (
    "| task | method | images in the curve | foretold for all | 95 % interval | seen with all |\n"
    "|---|---|---:|---:|---|---:|"
)


def main() -> None:
    """Print a row for each task and method."""
    named = os.environ.get("CLR_BENCH_FOLDERS", "")
    folders = [Path(one) for one in named.split(",") if one] or sorted(PLACE.glob("*/"))
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory() as place:
        for folder in folders:
            if (folder / "train").is_dir():
                for row in check(folder, Path(place)):
                    print(as_row(row), flush=True)


def check(folder: Path, place: Path) -> list[dict[str, Any]]:
    """Foretell from half of a task, then learn from all of it."""
    from clr.data.workspace import init_workspace
    from clr.plan import Point, fit_curve
    from clr.registry.server.templates import TEMPLATES
    from flows.pilot_set import read_pilot
    from flows.plan import probe_points, run_plan, training_points
    from flows.session import open_session

    if not (place / "data.dvc").exists():
        init_workspace(place, TEMPLATES)
    session = open_session(place)
    half = halved(folder, place / "halves" / folder.name)
    told = run_plan(session, half, 0.95, EPOCHS, MINUTES, place / "report")
    whole = read_pilot(session, folder, EPOCHS)
    images, rows = len(whole.train), []
    for name, curve in told["curves"].items():
        points = [Point(**one) for one in curve["points"]]
        foretold = fit_curve(points, told["held_out"], told["images"]).accuracy(images)
        seen = (
            probe_points(whole, [images])
            if name == "probe"
            else training_points(whole, [(images, 1)], math.inf)
        )
        rows.append({
            "task": folder.name, "method": name, "images": told["images"], "all": images,
            "foretold": foretold, "seen": next(iter(seen)).accuracy,
        })  # fmt: skip
    return rows


def halved(folder: Path, place: Path) -> Path:
    """Copy a task with every second training image of each class."""
    for source in sorted(path for path in folder.rglob("*") if path.is_file()):
        inside = source.relative_to(folder)
        siblings = sorted(path.name for path in source.parent.iterdir())
        if inside.parts[0] == "train" and siblings.index(source.name) % 2:
            continue
        (place / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place / inside)
    return place


def as_row(row: dict[str, Any]) -> str:
    """Return one row of the table."""
    foretold = row["foretold"]
    cells = (
        row["task"], row["method"], f"{row['images']:,} of {row['all']:,}",
        f"{foretold.middle:.3f}", f"{foretold.low:.3f} … {foretold.high:.3f}", f"{row['seen']:.3f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"
