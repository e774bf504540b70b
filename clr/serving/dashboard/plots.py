"""Small plots as SVG, with words for who does not see them and figures for who sees no colour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 190, 46, 8, 26, 30
MOST_MONTHS = 12
"""That a plot shows, the newest."""

Point = tuple[str, float | None, float | None, float | None]
"""Month, low, middle, high; a bar or a dot without interval has the middle alone."""


def points(fields: Sequence[Mapping[str, object]], name: str) -> list[Point]:
    """Return a field by month; a month that does not have it is a gap.

    Args:
        fields: rows {month, fields} as `clr.serving.production.produced` returns them.
        name: of the field.
    """
    found: list[Point] = []
    for row in fields[-MOST_MONTHS:]:
        known = row["fields"]
        assert isinstance(known, Mapping)
        one, month = known.get(name), str(row["month"])
        if one is None:
            found.append((month, None, None, None))
        elif "middle" in one:
            found.append((month, one["low"], one["middle"], one["high"]))
        else:
            found.append((month, None, one["value"], None))
    return found


def plot(key: str, title: str, rows: Sequence[Point], *, form: str, percent: bool = False) -> str:
    """Draw a field by month.

    Args:
        key: letters that make its ids its own on the page.
        title: with the unit.
        rows: oldest first.
        form: ``bars``, or ``dots`` with intervals.
        percent: values are shares.
    """
    top = _round(max([one for row in rows for one in row[1:] if one is not None], default=0.0))
    scale = 100.0 if percent else 1.0
    parts = [_head(key, title, rows, scale, percent), _axis(top, scale, percent)]
    step = (WIDTH - LEFT - RIGHT) / max(1, len(rows))
    for number, (month, low, middle, high) in enumerate(rows):
        x = LEFT + step * (number + 0.5)
        if number % max(1, math.ceil(len(rows) / 6)) == 0:
            parts.append(f'<text class="tick mid" x="{x:.1f}" y="{HEIGHT - 10}">{month[2:]}</text>')
        if middle is None:
            continue
        y = _y(middle, top)
        if form == "bars":
            width = min(28.0, 0.7 * step)
            parts.append(
                f'<rect class="bar" x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{HEIGHT - BOTTOM - y:.1f}"/>'
            )
        else:
            if low is not None and high is not None:
                ends = _y(low, top), _y(high, top)
                parts.append(
                    f'<path class="span" d="M{x:.1f} {ends[0]:.1f}V{ends[1]:.1f}'
                    f'M{x - 5:.1f} {ends[0]:.1f}h10M{x - 5:.1f} {ends[1]:.1f}h10"/>'
                )
            parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        if number == len(rows) - 1 or middle == max((r[2] or 0.0) for r in rows):
            above = min(y, _y(high, top)) if high is not None else y
            shown = _shown(middle, scale, percent)
            parts.append(f'<text class="figure mid" x="{x:.1f}" y="{above - 8:.1f}">{shown}</text>')
    return "".join([*parts, "</svg>"])


def _head(key: str, title: str, rows: Sequence[Point], scale: float, percent: bool) -> str:
    told = "; ".join(
        f"{month}: " + ("not known" if middle is None else _shown(middle, scale, percent))
        for month, _, middle, _ in rows
    )
    return (
        f'<svg class="plot" role="img" aria-labelledby="{key}-title {key}-desc" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}"><title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-desc">{escape(told or "nothing yet")}</desc>'
        f'<text class="caption" x="0" y="13" aria-hidden="true">{escape(title)}</text>'
    )


def _axis(top: float, scale: float, percent: bool) -> str:
    parts = []
    for part in (0.0, 0.5, 1.0):
        y = _y(part * top, top)
        parts.append(
            f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
            f'<text class="tick end" x="{LEFT - 6}" y="{y + 4:.1f}">'
            f"{_shown(part * top, scale, percent)}</text>"
        )
    return "".join(parts)


def _y(value: float, top: float) -> float:
    inner = HEIGHT - BOTTOM - TOP - 14
    return HEIGHT - BOTTOM - inner * value / top


def _round(value: float) -> float:
    """Return 1, 2 or 5 times a power of ten that is not below `value`."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def _shown(value: float, scale: float, percent: bool) -> str:
    number = value * scale
    text = f"{number / 1000:,.3g}k" if number >= 10_000 else f"{number:,.3g}"
    if 1000 <= number < 10_000:
        text = f"{number:,.0f}"
    return f"{text}%" if percent else text
