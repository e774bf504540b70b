"""Shares with their intervals as a small SVG: readable without colour, by screen readers too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Row = tuple[str, str, str, Mapping[str, float]]
"""Name, note below it, value as shown, {low, middle, high} as shares."""


@dataclass(frozen=True)
class Form:
    """Where things are, in pixels: of the whole, of a row, and of the axis in it."""

    width: int
    row: int
    left: int
    right: int
    name: int
    bar: int


FORMS = {
    "wide": Form(width=640, row=46, left=190, right=76, name=21, bar=23),
    "narrow": Form(width=300, row=58, left=20, right=64, name=16, bar=40),
}
"""For a desk; and for a phone, with the name above the bar."""

TOP = 8


def bars(rows: Sequence[Row], title: str, form: str) -> str:
    """Draw one dot with its interval a row, on an axis of shares that holds them all.

    Args:
        rows: from top to bottom; the last is the one that the figure is about.
        title: of the figure.
        form: out of `FORMS`.
    """
    shape, start = FORMS[form], _start(min(ends["low"] for *_, ends in rows))
    bottom = TOP + shape.row * len(rows)
    described = "; ".join(f"{name}: {value}" for name, _, value, _ in rows)
    parts = [
        f'<svg class="shares {form}" role="img" aria-labelledby="{form}-title {form}-desc" '
        f'viewBox="0 0 {shape.width} {bottom + 30}"><title id="{form}-title">{escape(title)}'
        f'</title><desc id="{form}-desc">{escape(described)}</desc>'
    ]
    for tick in _ticks(start):
        x = _place(tick, start, shape)
        parts.append(
            f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>'
            f'<text class="tick" x="{x:.1f}" y="{bottom + 20}">{100 * tick:g}%</text>'
        )
    for number, row in enumerate(rows):
        last = number == len(rows) - 1
        parts.append(_row(row, TOP + shape.row * number, start, shape, "last" if last else ""))
    return "".join([*parts, "</svg>"])


def _row(row: Row, top: float, start: float, shape: Form, kind: str) -> str:
    name, note, value, ends = row
    low, middle, high = (_place(ends[end], start, shape) for end in ("low", "middle", "high"))
    y, title = top + shape.bar, top + shape.name
    beside = shape.name < shape.bar - 10
    by = (
        f'<tspan class="by" dx="8">{escape(note)}</tspan></text>'
        if beside
        else f'</text><text class="by" x="0" y="{title + 17}">{escape(note)}</text>'
    )
    return (
        f'<text class="name" x="0" y="{title}">{escape(name)}{by}'
        f'<path class="bar {kind}" d="M{low:.1f} {y}H{high:.1f}'
        f'M{low:.1f} {y - 6}V{y + 6}M{high:.1f} {y - 6}V{y + 6}"/>'
        f'<circle class="{kind}" cx="{middle:.1f}" cy="{y}" r="6"/>'
        f'<text class="value" x="{shape.width}" y="{y + 5}">{escape(value)}</text>'
    )


def _start(low: float) -> float:
    """Return where the axis begins: a tenth below everything, at 90 % the latest."""
    return max(0.0, min(0.9, math.floor(10 * low - 0.01) / 10))


def _ticks(start: float) -> list[float]:
    steps = round(10 * (1 - start))
    every = 1 if steps <= 4 else 2
    return [round(1 - one / 10, 1) for one in range(0, steps + 1, every)][::-1]


def _place(share: float, start: float, shape: Form) -> float:
    return shape.left + (shape.width - shape.left - shape.right) * (share - start) / (1 - start)
