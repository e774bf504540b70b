"""Figures of a run as PNG bytes: equal numbers give equal bytes, no window system is needed.

Matplotlib takes a second to import and is imported in the functions.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 40
"""Most rows or columns whose names are written; beyond, they could not be read."""

_ANNOTATED = 15
"""Most rows or columns whose cells show their numbers."""


def confusion(labels: Sequence[str], matrix: npt.ArrayLike) -> bytes:
    """Draw a confusion matrix, coloured by the share of each true class.

    Args:
        labels: class names.
        matrix: counts [classes, classes], rows are true classes.

    Returns:
        PNG.

    Raises:
        ValueError: the matrix is not square over the labels.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    if counts.shape != (len(labels), len(labels)):
        raise ValueError(f"{len(labels)} labels, but a matrix {counts.shape}")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _square(len(labels), len(labels))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _name(axes, labels, labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"Confusion matrix, {counts.sum():,} test images")
    _annotate(axes, shares, [[str(value) for value in row] for row in counts])
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    return _png(figure)


def learning_curves(epochs: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw every loss and every accuracy over the epochs.

    Args:
        epochs: one mapping an epoch; keys with ``loss`` or ``accuracy`` in them are drawn,
            ``epoch`` numbers them (default: their position).

    Returns:
        PNG.
    """
    figure = _figure(10, 4)
    names = sorted({name for epoch in epochs for name in epoch})
    for position, (what, title) in enumerate((("loss", "Loss"), ("acc", "Accuracy")), 1):
        axes = figure.add_subplot(1, 2, position)
        for name in names:
            points = [
                (epoch.get("epoch", at), epoch[name])
                for at, epoch in enumerate(epochs)
                if what in name and epoch.get(name) is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=name)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return _png(figure)


def accuracy_matrix(tasks: Sequence[str], rows: Sequence[Sequence[float | None]]) -> bytes:
    """Draw the accuracy of every task (column) after every promotion (row).

    Args:
        tasks: names in the order they came.
        rows: accuracies, shorter rows and None where a task was not there yet.

    Returns:
        PNG.
    """
    values = np.full((max(len(rows), 1), max(len(tasks), 1)), np.nan)
    for at, row in enumerate(rows):
        values[at, : len(row)] = [np.nan if value is None else value for value in row]
    figure, axes = _square(values.shape[1], values.shape[0])
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    _name(axes, tasks, [str(at + 1) for at in range(len(rows))])
    axes.set_xlabel("task")
    axes.set_ylabel("after promotion")
    axes.set_title("Accuracy of every task, as the backbone took on more")
    texts = [["" if np.isnan(value) else f"{value:.3f}" for value in row] for row in values]
    _annotate(axes, 1 - values, texts)
    figure.colorbar(image, ax=axes, shrink=0.8, label="accuracy")
    return _png(figure)


def payback(curve: Sequence[Mapping[str, float]], currency: str = "") -> bytes:
    """Draw the cumulative cash over the months, with the accuracy interval's ends as a band.

    Args:
        curve: `clr.roi.payback_curve`: month, low, middle, high.
        currency: unit of the money.

    Returns:
        PNG.
    """
    months = [point["month"] for point in curve]
    figure = _figure(7, 4)
    axes = figure.subplots()
    low, high = [point["low"] for point in curve], [point["high"] for point in curve]
    axes.fill_between(months, low, high, alpha=0.25, label="95 % interval of the accuracy")
    axes.plot(months, [point["middle"] for point in curve], label="at the measured accuracy")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("months after adoption")
    axes.set_ylabel(f"cumulative cash {_plain(currency)}".strip())
    axes.set_title("Payback (derived from measured accuracy and stated assumptions)")
    axes.legend()
    return _png(figure)


def confidence_sequence(points: Sequence[tuple[int, float, float]], worthwhile: float) -> bytes:
    """Draw what was known about a gain after each answer with a label.

    Args:
        points: (n, low, high), see `clr.gate.betting.path`.
        worthwhile: the smallest gain that is worth a change, drawn as a line.

    Returns:
        PNG.
    """
    figure = _figure(8, 4)
    axes = figure.subplots()
    if points:
        n, low, high = (np.asarray(one) for one in zip(*points, strict=True))
        axes.fill_between(n, 100 * low, 100 * high, step="post", alpha=0.3)
        around = 100 * max(0.05, 4 * float(high[-1] - low[-1]))
        middle = 50 * float(high[-1] + low[-1])
        axes.set_ylim(max(-100, middle - around), min(100, middle + around))
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axhline(100 * worthwhile, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xlabel("units with a label")
    axes.set_ylabel("gain in points")
    axes.set_title("Challenger minus champion: 95 % confidence sequence")
    axes.grid(alpha=0.3)
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _square(columns: int, rows: int) -> tuple[Figure, Axes]:
    figure = _figure(min(3.5 + 0.5 * columns, 14), min(3 + 0.45 * rows, 12))
    return figure, figure.add_subplot()


def _name(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        if len(names) <= _NAMED:
            axis.set_ticks(range(len(names)), [_plain(name) for name in names])
    axes.tick_params(axis="x", labelrotation=90 if len(columns) > 4 else 0)


def _annotate(axes: Axes, darkness: npt.NDArray[np.float64], texts: list[list[str]]) -> None:
    rows, columns = darkness.shape
    if max(rows, columns) > _ANNOTATED:
        return
    for row in range(rows):
        for column in range(columns):
            color = "white" if darkness[row, column] > 0.5 else "black"
            axes.text(
                column, row, texts[row][column], ha="center", va="center", color=color, size=8
            )


def _plain(name: str, longest: int = 24) -> str:
    """Return a name that Matplotlib shows as it is: ``$`` would start a formula."""
    short = name if len(name) <= longest else name[: longest - 1] + "…"
    return short.replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    """Draw once: `Figure.savefig` draws a figure a first time only to lay it out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)
    file = io.BytesIO()
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(file, "png")
    return file.getvalue()
