"""The accuracy matrix as inline SVG: a heat map for few tasks, a dot plot for many.

Colours are one blue ramp (light is low, dark is high) and vermilion for a loss
(Okabe & Ito 2008): both stay apart for colour-blind readers and in grey print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

LOSS = "#b34700"
INK = "#1c2733"
FAINT = "#5b6875"

_RAMP = (
    (0xEE, 0xF4, 0xFA),
    (0xA8, 0xCB, 0xE6),
    (0x4F, 0x94, 0xC7),
    (0x1B, 0x5E, 0x9C),
    (8, 48, 94),
)
_NUMBERED = 14
_MAX_DOTS = 240

Row = Sequence[float | None]


def accuracy_svg(matrix: Mapping[str, Any]) -> str:
    """Return the picture of an accuracy matrix in its ``gate.json`` form; empty for no task."""
    if not matrix["tasks"]:
        return ""
    return heat_map(matrix) if matrix["rows"] else dot_plot(matrix)


def heat_map(matrix: Mapping[str, Any]) -> str:
    """Draw one row a promotion and one column a task; losses are outlined in the last row."""
    tasks, rows, after = matrix["tasks"], matrix["rows"], matrix["after"]
    numbered = len(tasks) <= _NUMBERED
    width = max(16, min(58, 812 // len(tasks)))
    height = min(34, width)
    size = max(10, min(13, width // 2))
    left = 20 + 7.2 * min(30, max(len(name) for name in after) + 6) * size / 13
    top = 26 + 5.2 * min(24, max(len(name) for name in tasks)) * size / 13
    low = _floor(value for row in rows for value in row)
    parts = []
    for column, name in enumerate(tasks):
        x, y = left + (column + 0.5) * width, top - 8
        parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" transform="rotate(-45 {x:.1f} {y:.1f})" '
            f'font-size="{size}">{escape(_cut(name, 24))}</text>'
        )
    for line, (row, name) in enumerate(zip(rows, after, strict=True)):
        y = top + line * height
        label = name if name in ("release in force", "this offer") else f"after {name}"
        parts.append(
            f'<text x="{left - 10:.1f}" y="{y + height / 2 + size * 0.36:.1f}" text-anchor="end" '
            f'font-size="{size}">{escape(_cut(label, 36))}</text>'
        )
        best = matrix["best"] if line == len(rows) - 1 else row
        for column, value in enumerate(row):
            lost = value is not None and best[column] is not None and value < best[column] - 1e-9
            cell = _cell(value, left + column * width, y, (width, height), low, lost, numbered)
            shown = "not measured" if value is None else f"{100 * value:.1f} %"
            parts.append(f"<g><title>{escape(tasks[column])}: {shown}</title>{cell}</g>")
    bottom = top + len(rows) * height
    total = max(left + len(tasks) * width + 70, left + 330)
    parts.append(_legend(left, bottom + 18, low))
    return _svg(total, bottom + 62, "Accuracy of every task after every promotion", parts)


def dot_plot(matrix: Mapping[str, Any]) -> str:
    """Draw each task's accuracy when learned (ring) and now (dot), joined where it fell."""
    points = list(
        zip(matrix["tasks"], matrix["learned"], matrix["best"], matrix["now"], strict=True)
    )
    shown = points
    if len(points) > _MAX_DOTS:  # the worst ones, still in the order they were learned
        worst = sorted(range(len(points)), key=lambda i: (points[i][3] or 0) - points[i][2])
        shown = [points[i] for i in sorted(worst[:_MAX_DOTS])]
    low = _floor(value for _, *values in shown for value in values)
    step = max(3.6, min(15.0, 860 / len(shown)))
    left, top, height = 52.0, 16.0, 250.0
    right = left + step * len(shown)

    def level(value: float) -> float:
        return top + height * (1 - (value - low) / (1 - low))

    parts = []
    for tick in range(5):
        value = low + (1 - low) * tick / 4
        y = level(value)
        parts.append(
            f'<line x1="{left}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dde3e9"/>'
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" font-size="12" '
            f'fill="{FAINT}">{100 * value:.0f} %</text>'
        )
    radius = min(4.2, step * 0.36)
    for place, (name, learned, best, now) in enumerate(shown):
        x = left + step * (place + 0.5)
        parts.append(_dot(name, learned, best, now, x, radius, level))
    parts.append(_dot_legend(left, top + height + 24))
    return _svg(max(right + 16, 640), top + height + 66, "Accuracy when learned and now", parts)


def _dot(
    name: str, learned: float, best: float, now: float | None, x: float, radius: float, level: Any
) -> str:
    title = f"{name}: {100 * learned:.1f} % when learned, " + (
        "now not measured" if now is None else f"{100 * now:.1f} % now"
    )
    marks = [
        f'<circle cx="{x:.1f}" cy="{level(learned):.1f}" r="{radius:.1f}" fill="#fff" '
        f'stroke="{FAINT}" stroke-width="1.2"/>'
    ]
    if now is not None:
        lost = now < best - 1e-9
        if lost:
            marks.insert(
                0,
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{level(best):.1f}" y2="{level(now):.1f}" '
                f'stroke="{LOSS}" stroke-width="2"/>',
            )
        shape = _triangle(x, level(now), radius) if lost else (
            f'<circle cx="{x:.1f}" cy="{level(now):.1f}" r="{radius:.1f}" fill="#1b5e9c"/>'
        )  # fmt: skip
        marks.append(shape)
    return f"<g><title>{escape(title)}</title>{''.join(marks)}</g>"


def _triangle(x: float, y: float, radius: float) -> str:
    r = radius * 1.35
    return f'<path d="M{x - r:.1f} {y - r:.1f}h{2 * r:.1f}l{-r:.1f} {2 * r:.1f}z" fill="{LOSS}"/>'


def _dot_legend(x: float, y: float) -> str:
    words = (
        (
            f'<circle cx="{x + 6}" cy="{y + 8}" r="4.2" fill="#fff" stroke="{FAINT}"/>',
            18,
            "learned",
        ),
        (f'<circle cx="{x + 96}" cy="{y + 8}" r="4.2" fill="#1b5e9c"/>', 108, "now"),
        (_triangle(x + 156, y + 8, 4.2), 168, "now, below its best before"),
    )
    drawn = [
        f'{mark}<text x="{x + shift}" y="{y + 12}" font-size="12">{text}</text>'
        for mark, shift, text in words
    ]
    return "".join(drawn) + (
        f'<text x="{x + 360}" y="{y + 12}" font-size="12" fill="{FAINT}">tasks from left to right '
        "in the order they were learned</text>"
    )


def _cell(
    value: float | None,
    x: float,
    y: float,
    size: tuple[int, int],
    low: float,
    lost: bool,
    numbered: bool,
) -> str:
    width, height = size
    box = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{width - 2}" height="{height - 2}" rx="3"'
    if value is None:
        return f'<rect {box} fill="#fff" stroke="#e3e8ee"/>'
    share = (value - low) / (1 - low)
    edge = f' stroke="{LOSS}" stroke-width="3"' if lost else ""
    drawn = f'<rect {box} fill="{_colour(share)}"{edge}/>'
    if not numbered:
        return drawn
    ink = "#fff" if share > 0.45 else INK
    text = f"{'▼ ' if lost else ''}{100 * value:.1f}"
    return drawn + (
        f'<text x="{x + width / 2:.1f}" y="{y + height / 2 + 4.5:.1f}" text-anchor="middle" '
        f'font-size="13" fill="{ink}">{text}</text>'
    )


def _legend(x: float, y: float, low: float) -> str:
    steps = 24
    bars = "".join(
        f'<rect x="{x + i * 6:.1f}" y="{y}" width="6.2" height="10" '
        f'fill="{_colour(i / (steps - 1))}"/>'
        for i in range(steps)
    )
    return (
        f'{bars}<text x="{x:.1f}" y="{y + 26}" font-size="12" fill="{FAINT}">'
        f"{100 * low:.0f}\u00a0%</text>"
        f'<text x="{x + steps * 6:.1f}" y="{y + 26}" font-size="12" text-anchor="end" '
        f'fill="{FAINT}">100 %</text>'
        f'<rect x="{x + 172:.1f}" y="{y - 2}" width="22" height="14" rx="3" fill="none" '
        f'stroke="{LOSS}" stroke-width="3"/>'
        f'<text x="{x + 202:.1f}" y="{y + 10}" font-size="12">below its best before</text>'
    )


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" '
        f'aria-label="{escape(label)}" fill="{INK}">{"".join(parts)}</svg>'
    )


def _colour(share: float) -> str:
    place = min(1.0, max(0.0, share)) * (len(_RAMP) - 1)
    first = min(int(place), len(_RAMP) - 2)
    rest = place - first
    mixed = (round(a + (b - a) * rest) for a, b in zip(_RAMP[first], _RAMP[first + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _floor(values: Any) -> float:
    known = [value for value in values if value is not None]
    return min(0.9, int(10 * min(known, default=0.0)) / 10)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
