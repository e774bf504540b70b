"""What a plan says: its picture, its text, and what more images are worth."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clr.plan import FAR, Curve
from flows.text import percent, table

if TYPE_CHECKING:
    from flows.pilot_set import Pilot

Result = dict[str, Any]
TITLES = {"probe": "linear probe", "clr": "CLR"}
_COLOURS = {"probe": "tab:gray", "clr": "tab:blue"}
_DERIVED = ("adoption_cost", "annual_benefit", "payback_months", "npv", "roi_pct")


def worth(pilot: Pilot, curve: Curve, probe: Curve, target: float) -> list[Result]:
    """Return the business case at more and more images; empty where the assumptions are missing.

    The accuracy is the foretold one with its interval. Where no error rate of today is assumed,
    it is that of the linear probe on the whole pilot set.
    """
    from clr.roi import business_case

    assumed = pilot.session.assumptions(pilot.task)
    if not assumed:
        return []
    rows = []
    for images in _steps(curve, target):
        accuracy = curve.accuracy(images)
        measured = {
            "accuracy": accuracy.middle,
            "accuracy_ci": (accuracy.low, accuracy.high),
            "images_labelled": images + len(pilot.held),  # those that judge have labels, too
            "training_seconds": pilot.seconds(images),
            "baseline_accuracy": probe.accuracy(probe.pilot).middle,
        }
        case = business_case(measured, assumed)
        derived = {name: case[name] for name in _DERIVED if name in case}
        if derived:
            row = {"images": images, "accuracy": {"kind": "foretold", **accuracy.as_dict()}}
            rows.append(row | derived)
    return rows


def _steps(curve: Curve, target: float) -> list[int]:
    """Return the pilot set, doublings of it up to `FAR` times, and what the target needs."""
    steps = {curve.pilot * factor for factor in (1, 2, 4, 8)}
    needed = curve.needed(target).middle
    if curve.pilot < needed <= FAR * curve.pilot:
        steps.add(round(needed))
    return sorted(steps)


def picture(curves: Mapping[str, Curve], target: float, title: str) -> bytes:
    """Draw points, laws and intervals up to `FAR` times the pilot set: PNG."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    pilot = curves["probe"].pilot
    for name, curve in curves.items():
        colour, first = _COLOURS[name], min(point.images for point in curve.points)
        images = np.geomspace(first, FAR * pilot, 60)
        foretold = [curve.accuracy(float(one)) for one in images]
        axes.fill_between(
            images, [one.low for one in foretold], [one.high for one in foretold],
            color=colour, alpha=0.2, linewidth=0,
        )  # fmt: skip
        axes.plot(images, [one.middle for one in foretold], color=colour, label=TITLES[name])
        axes.plot(
            [p.images for p in curve.points], [p.accuracy for p in curve.points], "o",
            color=colour, markersize=4, alpha=0.7,
        )  # fmt: skip
    axes.axhline(target, color="tab:red", linewidth=1, linestyle="--", label=f"target {target:g}")
    axes.axvline(pilot, color="black", linewidth=0.8, linestyle=":", label="pilot set")
    axes.set_xscale("log")
    axes.set_xlabel("labelled training images")
    axes.set_ylabel(f"accuracy on {curves['probe'].held:,} held-out images")
    axes.set_title(f"{title}: measured, and foretold with 95 % interval".replace("$", r"\$"))
    axes.legend(loc="lower right")
    file = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(file, metadata={"Software": None})
    return file.getvalue()


def told(result: Result) -> str:
    """Say what the curves foretell and what more images are worth."""
    lines = [
        f"{result['task']}: {result['images']:,} images of {len(result['classes'])} classes, "
        f"judged by {result['held_out']:,} others"
    ]
    for name, curve in result["curves"].items():
        of_all = [p["accuracy"] for p in curve["points"] if p["images"] == result["images"]]
        today = percent(of_all[0] if of_all else None)
        lines.append(
            f"  {TITLES[name]}: {today} with all of them; {_needed(curve, result['target'])}"
        )
    if "clr" not in result["curves"]:
        lines.append("  CLR: not enough time or images for a curve; raise --minutes")
    if "worth" in result:
        lines.append(_worth(result["worth"]))
    else:
        lines.append("  what more images are worth: no assumptions given (see docs/roi.md)")
    return "\n".join([*lines, f"picture: {result['picture']}"])


def _needed(curve: Result, target: float) -> str:
    needed, most = curve["needed"], curve["asymptote"]
    aim = percent(target)
    if needed["verdict"] == "not reachable":
        return (
            f"{aim} is not reachable by more of the same images: the curve ends at "
            f"{percent(most['middle'])} [{percent(most['low'])}, {percent(most['high'])}]"
        )
    low, middle, high = (_count(needed[end]) for end in ("low", "middle", "high"))
    span = f"{middle} images [{low}, {high}]"
    return {
        "reached": f"{aim} is reached: {span}",
        "reachable": f"{aim} needs {span}",
        "far": f"{aim} needs {span}, far beyond the pilot set: a guess; label more and ask again",
        "unsure": f"{aim} may not be reachable: {span}; label more and ask again",
    }[needed["verdict"]]


def _count(images: float | None) -> str:
    if images is None:
        return "no bound"
    return f"{images:,.0f}" if images < 1e6 else f"{images:.0e}"


def _worth(rows: list[Result]) -> str:
    names = [name for name in _DERIVED if name in rows[0]]
    return table(
        "what more images are worth (derived from foretold accuracy and your assumptions)",
        ("images", "accuracy", *(f"{n}, {rows[0][n]['unit']}" for n in names)),
        [
            (
                f"{row['images']:,}",
                percent(row["accuracy"]["middle"]),
                *(_money(row[name]) for name in names),
            )
            for row in rows
        ],
    )


def _money(field: Result) -> str:
    ends = [field["value"]] if "value" in field else [field[e] for e in ("low", "middle", "high")]
    shown = ["–" if one is None else f"{one:,.0f}" for one in ends]
    return shown[0] if len(shown) == 1 else f"{shown[1]} [{shown[0]}, {shown[2]}]"
