"""The chain of an audit as a picture: one SVG of boxes and arrows, each box a link (pure).

The chain always has the same shape, so its places are fixed: what it was made of above, the run
and its adapter in the middle, people and releases below, the ledger under all of it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from clr.audit.document import LINKS, Node, arrows, nodes

WIDE, NARROW = 4, 1
"""Boxes side by side: on a screen or sheet, and on a phone."""

_ROWS = (
    ("code", "environment", "backbone"),
    ("images", "data", "validation", "training"),
    ("adapter", "gate", "registration", "reviews"),
)
"""Links of the rows above the releases; those of one link stand under each other."""

_MARGIN, _GAP, _ROW_GAP, _STACK_GAP = 16, 34, 36, 12
_TEXT, _HEAD, _FOOT = 16, 28, 8
_WIDTHS = {WIDE: 216, NARROW: 300}
_LETTERS = {WIDE: 28, NARROW: 42}
_SPOKEN_TASKS = 4
_HEX = 12
_RUN = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20}\b")
_SIGNS = {"pass": "✓", "fail": "✕", "inconclusive": "?"}


@dataclass(frozen=True)
class _Box:
    """A node and its place, in the picture's units.

    Attributes:
        node: what is drawn.
        lines: (text, class) under its title.
        x: left edge.
        y: upper edge.
        width: of the box.
        column: its place in the row, from 0.
        last: whether nothing stands under it in its stack.
    """

    node: Node
    lines: tuple[tuple[str, str], ...]
    x: float
    y: float
    width: float
    column: int = 0
    last: bool = True

    @property
    def height(self) -> float:
        return _height(self.lines)

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        """Of its height where arrows meet it: on the first lines, so that rows align."""
        return self.y + 34

    @property
    def centre(self) -> float:
        return self.x + self.width / 2


def svg(document: Mapping[str, Any], columns: int = WIDE) -> Markup:
    """Return the chain as one ``<svg>`` element.

    Args:
        document: the answer of an audit.
        columns: `WIDE` or `NARROW`.
    """
    name = "graph" if columns == WIDE else "chain"
    boxes, bottom = _placed(document, columns)
    ground = _ground(document, columns, bottom)
    by_id = {one.node.id: one for one in boxes}
    width = int(2 * _MARGIN + columns * _WIDTHS[columns] + (columns - 1) * _GAP)
    lines = [_arrow(by_id[a], by_id[b], columns, name) for a, b in arrows(document)]
    boxes.append(ground)
    drawn = [_box(one) for one in boxes]
    told = _described([one.node for one in boxes], arrows(document))
    markers = Markup("").join(_marker(name, kind) for kind in ("sound", "broken"))
    return Markup(
        '<svg class="{0}" viewBox="0 0 {1} {2}" role="group" '
        'aria-labelledby="{0}-title {0}-desc"><title id="{0}-title">Lineage of {3}</title>'
        '<desc id="{0}-desc">{4}</desc><defs>{5}</defs>{6}{7}</svg>'
    ).format(
        *(name, width, round(ground.bottom + 6), document["subject"], told),
        *(markers, Markup("").join(lines), Markup("").join(drawn)),
    )


def _described(drawn: Sequence[Node], pairs: Sequence[tuple[str, str]]) -> str:
    """Return the picture in words: what came from what, and what is broken."""
    titles = {one.id: one.title for one in drawn}
    told = "; ".join(f"{titles[a]} to {titles[b]}" for a, b in pairs)
    wrong = ", ".join(dict.fromkeys(one.title for one in drawn if one.broken))
    return f"{told}. {f'Broken: {wrong}.' if wrong else 'No link is broken.'}"


def _placed(document: Mapping[str, Any], columns: int) -> tuple[list[_Box], float]:
    """Return every box at its place, and where the last row ends."""
    width, boxes, top = _WIDTHS[columns], [], 4.0
    for row in _rows(document, columns):
        bottom = top
        for column, stack in enumerate(row):
            y = top
            for place, node in enumerate(stack):
                x = _MARGIN + column * (width + _GAP)
                lines = _lines(document, node, _LETTERS[columns])
                last = place == len(stack) - 1
                boxes.append(_Box(node, lines, x, y, width, column, last))
                y += _height(lines) + _STACK_GAP
            bottom = max(bottom, y - _STACK_GAP)
        top = bottom + _ROW_GAP
    return boxes, top - _ROW_GAP


def _rows(document: Mapping[str, Any], columns: int) -> list[list[list[Node]]]:
    """Return rows of stacks of nodes."""
    by_link: dict[str, list[Node]] = {}
    for one in nodes(document):
        by_link.setdefault(one.link, []).append(one)
    rows = [[by_link[link] for link in row if link in by_link] for row in _ROWS]
    later = [[one] for link in ("service", "replacement") for one in by_link.get(link, [])]
    rows += [later[start : start + WIDE] for start in range(0, len(later), WIDE)]
    if columns == WIDE:
        return rows
    return [[[node]] for row in rows for stack in row for node in stack]


def _lines(document: Mapping[str, Any], node: Node, letters: int) -> tuple[tuple[str, str], ...]:
    """Return what is written in a box, line by line, with the class of each."""
    told = _RUN.sub(r"\1…", node.fact)
    fact = textwrap.wrap(told, letters, max_lines=2, placeholder=" …")
    lines = [(one, "fact") for one in fact]
    if node.digest:
        kind, _, value = node.digest.partition(":")
        lines.append((f"{kind}:{value[:_HEX]}…", "digest"))
    if node.link == "gate":
        lines += [(text, "fact") for text in _earlier(document, letters)]
    return tuple(lines) or (("not recorded", "fact"),)


def _earlier(document: Mapping[str, Any], letters: int) -> list[str]:
    """Return what the gate saw on earlier tasks, those that did not pass first."""
    found = document["gate"]["retention"] or []
    found = sorted(found, key=lambda one: one["verdict"] == "pass")
    told = [
        textwrap.shorten(
            f"{_SIGNS.get(one['verdict'], '?')} {one['task']} {one['how']}",
            letters,
            placeholder="…",
        )
        for one in found[:_SPOKEN_TASKS]
    ]
    more = len(found) - len(told)
    return [*told, f"and {more:,} more earlier tasks"] if more else told


def _ground(document: Mapping[str, Any], columns: int, bottom: float) -> _Box:
    """Return the ledger's box: under everything, as wide as everything."""
    ledger = document["ledger"]
    state = "chain and signatures hold" if ledger["intact"] else "THE CHAIN IS BROKEN"
    broken = any(one["link"] == "ledger" for one in document["verdict"]["problems"])
    fact = f"{ledger['count']:,} entries, {state}"
    head = (ledger["head"] or {}).get("hash", "")
    node = Node("ledger", "ledger", LINKS["ledger"], fact, head, broken or not ledger["intact"])
    width = columns * _WIDTHS[columns] + (columns - 1) * _GAP
    return _Box(
        node, _lines(document, node, columns * _LETTERS[columns]), _MARGIN, bottom + _ROW_GAP, width
    )


def _height(lines: Sequence[object]) -> float:
    return _HEAD + _TEXT * len(lines) + _FOOT


def _box(box: _Box) -> Markup:
    node = box.node
    words = Markup("").join(
        Markup('<text class="{}" x="{:g}" y="{:g}">{}</text>').format(
            kind, box.x + 12, box.y + _HEAD + _TEXT * place + 10, text
        )
        for place, (text, kind) in enumerate(box.lines)
    )
    mark = (
        Markup('<text class="mark" x="{:g}" y="{:g}">✕ broken</text>').format(
            box.right - 12, box.y + 21
        )
        if node.broken
        else ""
    )
    told = ": ".join(filter(None, (node.title, node.fact, node.digest)))
    return Markup(
        '<a href="#{}" class="{}"><title>{}</title>'
        '<rect x="{:g}" y="{:g}" width="{:g}" height="{:g}" rx="8"/>'
        '<text class="name" x="{:g}" y="{:g}">{}</text>{}{}</a>'
    ).format(
        *(node.id, f"node {node.link} {_state(node)}", told),
        *(box.x, box.y, box.width, box.height),
        *(box.x + 12, box.y + 21, node.title, mark, words),
    )


def _state(node: Node) -> str:
    return "broken" if node.broken else "sound"


def _arrow(a: _Box, b: _Box, columns: int, name: str) -> Markup:
    kind = _state(a.node)
    return Markup('<path class="{0}" d="{1}" marker-end="url(#{2}-{0})"/>').format(
        kind, _path(a, b) if columns == WIDE else _straight_down(a, b), name
    )


def _path(a: _Box, b: _Box) -> str:
    """Return the way of an arrow in the wide picture: along gaps, never across a box."""
    if a.y == b.y and b.column == a.column + 1:
        return f"M{a.right:g} {a.middle:g} H{b.x:g}"
    if b.node.link == "reviews":
        return f"M{a.right:g} {a.middle:g} H{b.x - _GAP / 2:g} V{b.middle:g} H{b.x:g}"
    channel = b.y - _ROW_GAP / 2
    end = f"V{channel:g} H{b.centre:g} V{b.y:g}"
    if a.last:
        return f"M{a.centre:g} {a.bottom:g} {end}"
    return f"M{a.right:g} {a.middle:g} H{a.right + _MARGIN / 2:g} {end}"


def _straight_down(a: _Box, b: _Box) -> str:
    """Return the way of an arrow in the narrow picture: down, or around at one side.

    What leaves the registration goes around on the left, all else on the right.
    """
    if b.y - a.bottom == _ROW_GAP:
        return f"M{a.centre:g} {a.bottom:g} V{b.y:g}"
    left = a.node.link == "registration"
    aside = _MARGIN / 2 if left else a.right + _MARGIN / 2
    start, end = (a.x, b.x) if left else (a.right, b.right)
    return f"M{start:g} {a.middle:g} H{aside:g} V{b.middle:g} H{end:g}"


def _marker(name: str, kind: str) -> Markup:
    return Markup(
        '<marker id="{0}-{1}" class="{1}" viewBox="0 0 8 8" refX="7.5" refY="4" '
        'markerUnits="userSpaceOnUse" '
        'markerWidth="11" markerHeight="11" orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker>'
    ).format(name, kind)
