"""Pictures of a comparison as PNG bytes: equal documents give equal bytes.

The most frequent label is left out: it would squeeze all others. Blue circles are CLR, squares
other methods with separate tasks, vermilion triangles methods whose tasks share weights: told
apart without colour, too. Matplotlib takes a second to import and is imported in the functions.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clr.compare.words import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]
INK, FLOOR = "#1c2733", "majority"
_CLR, _SEPARATE, _SHARED = ("#1b5e9c", "o"), ("#1c2733", "s"), ("#b34700", "^")
_CURVES = ("#1b5e9c", "#5b6875", "#b34700", "#0b6b50", "#7a5b00", "#6a3d9a", "#1c2733", "#a8506e")
_MARKERS = "os^Dv<>P"
_DPI = 144


def pictures(document: Document) -> dict[str, bytes]:
    """Return every picture that there is something for, by file name."""
    there = [one for one in document["methods"] if one["seeds"] and one["name"] != FLOOR]
    found: dict[str, bytes] = {}
    if there:
        found["accuracy.png"] = by_task(there, [one["name"] for one in document["tasks"]])
        found["accuracy-bytes.png"] = against(
            there, lambda one: one["cost"]["mean"]["bytes"], "bytes added a task", size
        )
        found["accuracy-seconds.png"] = against(
            there, spent, "seconds of learning a task, the common start included", "{:g}".format
        )
    if document["curves"]:
        found["curves.png"] = curves(document)
    return found


def spent(method: Mapping[str, Any]) -> float:
    """Return the seconds that a task takes, the common start included."""
    return float(method["seconds"]["mean"] + method["start_seconds"])


def against(
    methods: Sequence[Mapping[str, Any]],
    cost: Callable[[Mapping[str, Any]], float],
    what: str,
    words: Callable[[float], str],
) -> bytes:
    """Draw average accuracy against a cost on a logarithmic axis, with intervals over seeds.

    Args:
        methods: of the document.
        cost: of one of them.
        what: the cost, with its unit.
        words: writes a value of it.
    """
    figure = _figure(8.2, max(3.8, 0.29 * len(methods) + 1.4))
    axes = figure.subplots()
    where = [max(cost(one), 1e-3) for one in methods]
    for one, x in zip(methods, where, strict=True):
        colour, marker = _look(one)
        _bar(axes, x, one["average"], colour)
        axes.plot(x, 100 * one["average"]["mean"], marker, color=colour, markersize=7, zorder=3)
    axes.set_xscale("log")
    low, high = min(where), max(where)
    axes.set_xlim(low / 1.6, high * 1.6)
    _label(axes, words, every=(1, 2, 5) if high < 100 * low else (1,))
    axes.set_ylim(*_range([one["average"]["mean"] for one in methods]))
    axes.set_xlabel(what)
    axes.set_ylabel("average accuracy, %")
    _grid(axes)
    _name_points(axes, methods, where)
    return _png(figure)


def by_task(methods: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> bytes:
    """Draw the accuracy on each task, methods one above the other, the most accurate on top."""
    order = sorted(methods, key=lambda one: one["average"]["mean"])
    figure = _figure(max(7.0, 2.3 * len(tasks) + 1.6), 0.27 * len(order) + 1.3)
    all_axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(all_axes, tasks, strict=True):
        for y, one in enumerate(order):
            colour, marker = _look(one)
            estimate = one["accuracy"][task]
            if estimate["low"] is not None:
                ends = [100 * max(0.0, estimate["low"]), 100 * min(1.0, estimate["high"])]
                axes.plot(ends, [y, y], color=colour, linewidth=1.3, alpha=0.6)
            axes.plot(100 * estimate["mean"], y, marker, color=colour, markersize=6)
        axes.set_xlim(*_range([one["accuracy"][task]["mean"] for one in order]))
        axes.set_title(_plain(task), fontsize=10, color=INK)
        axes.set_xlabel("accuracy, %", fontsize=9)
        axes.grid(alpha=0.3)
        _bare(axes)
    all_axes[0].set_yticks(range(len(order)), [_plain(one["title"]) for one in order])
    return _png(figure)


def curves(document: Document) -> bytes:
    """Draw accuracy against training images a class: the average, then each task."""
    points = document["curves"]["points"]
    found = dict.fromkeys(one["method"] for one in points if one["method"] != FLOOR)
    names = sorted(found, key=lambda name: not name.startswith("clr"))  # ours are blue here, too
    titles = {one["name"]: one["title"] for one in document["methods"]}
    panels = ["average", *(one["name"] for one in document["tasks"])]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(3.6 * columns, 2.9 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        for at, name in enumerate(names):
            mine = sorted(
                (one for one in points if one["method"] == name), key=lambda one: one["per_class"]
            )
            told = [one["average"] if panel == "average" else one["accuracy"][panel]
                    for one in mine]  # fmt: skip
            amounts = [one["per_class"] for one in mine]
            colour, marker = _CURVES[at % len(_CURVES)], _MARKERS[at % len(_MARKERS)]
            axes.plot(amounts, [100 * one["mean"] for one in told], color=colour, marker=marker,
                      markersize=5, linewidth=1.5, label=_plain(titles[name]))  # fmt: skip
            if all(one["low"] is not None for one in told):
                axes.fill_between(amounts, [100 * max(0.0, one["low"]) for one in told],
                                  [100 * min(1.0, one["high"]) for one in told],
                                  color=colour, alpha=0.13, linewidth=0)  # fmt: skip
        axes.set_xscale("log")
        ticks = sorted({one["per_class"] for one in points})
        axes.set_xticks(ticks, [str(one) for one in ticks])
        axes.minorticks_off()
        axes.set_title("average of the tasks" if panel == "average" else _plain(panel), fontsize=10)
        axes.set_xlabel("training images a class", fontsize=9)
        axes.set_ylabel("accuracy, %", fontsize=9)
        _grid(axes)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(names)),
                  frameon=False, fontsize=9)  # fmt: skip
    return _png(figure)


def _look(method: Mapping[str, Any]) -> tuple[str, str]:
    if method["name"].startswith("clr"):
        return _CLR
    return _SHARED if method["shared"] else _SEPARATE


def _bar(axes: Axes, x: float, estimate: Mapping[str, Any], colour: str) -> None:
    if estimate["low"] is not None:
        ends = [100 * max(0.0, estimate["low"]), 100 * min(1.0, estimate["high"])]
        axes.plot([x, x], ends, color=colour, linewidth=1.4, alpha=0.6)


def _label(axes: Axes, words: Callable[[float], str], every: tuple[int, ...]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=every))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _range(shares: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis in percent: all means, and of intervals what has room."""
    low, high = 100 * min(shares), 100 * max(shares)
    pad = max(2.0, 0.15 * (high - low))
    return low - pad, high + pad


def _name_points(axes: Axes, methods: Sequence[Mapping[str, Any]], where: Sequence[float]) -> None:
    """Write the names in a column at the right, in the order of the points, with lines to them."""
    values = [100 * one["average"]["mean"] for one in methods]
    low, high = axes.get_ylim()
    step = (high - low) * min(0.075, 0.96 / len(values))
    order = sorted(range(len(values)), key=lambda at: values[at])
    places: list[float] = []
    for at in order:
        places.append(max(values[at], places[-1] + step if places else low))
    over = places[-1] - (high - step / 2)
    if over > 0:  # push down from the top, as far as needed
        ceiling = high - step / 2
        for index in reversed(range(len(places))):
            places[index] = min(places[index], ceiling)
            ceiling = places[index] - step
    edge = axes.get_xlim()[1]
    for at, y in zip(order, places, strict=True):
        colour, _ = _look(methods[at])
        axes.annotate(
            f"{_plain(methods[at]['title'])}  {values[at]:.1f}",
            (where[at], values[at]),
            (1.02, (y - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color=colour,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "alpha": 0.3,
                "linewidth": 0.8,
                "relpos": (0, 0.5),
                "shrinkA": 2,
            },
            annotation_clip=False,
        )
    axes.set_xlim(right=edge)
    axes.set_ylim(low, high)


def _grid(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    _bare(axes)


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=9, colors=INK)


def _plain(name: str, longest: int = 40) -> str:
    """Return a name that Matplotlib shows as it is: ``$`` would start a formula."""
    short = name if len(name) <= longest else name[: longest - 1] + "…"
    return short.replace("$", r"\$")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)
    file = io.BytesIO()
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(
        file, "png", optimize=True
    )
    return file.getvalue()
