"""Markdown for MLflow's pages and model cards: words from outside stay words (pure).

MLflow turns a description into HTML with Showdown (flavour ``github``) and keeps a short
list of tags and no styles. So cells have no padding of their own, an address becomes a
link wherever it stands, ``@name`` a link to GitHub and ``:word:`` a picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

_SPECIAL = re.compile(r"[\\`*_{}\[\]()#+!|~>&<@-]|:(?=\S)|(?<=www)\.", re.IGNORECASE)
_ENTITIES = {"&": "&amp;", "<": "&lt;", "@": "&#64;", ":": "&#58;"}
_ADDRESS = re.compile(r"(https?://|#|/|[\w.-]+(/|$))")
_GAP = "&emsp;"


def text(value: Any, longest: int = 80) -> str:
    """Return words from outside as one line that Markdown and HTML take for words only."""
    line = re.sub(r"\s+", " ", str(value)).strip()
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return _SPECIAL.sub(lambda sign: _ENTITIES.get(sign[0], f"\\{sign[0]}"), line)


def code(value: Any, longest: int = 100) -> str:
    """Return words from outside as they can stand between two backticks."""
    return re.sub(r"[`|\s]+", " ", str(value))[:longest].strip() or "?"


def link(label: str, address: str) -> str:
    """Return a link of MLflow's page or of the web, or the words where it is neither.

    Args:
        label: made by `text`.
        address: ``#/…``, ``/…``, a relative one, or ``http(s)://…``.
    """
    if not _ADDRESS.match(address):
        return f"{label}: `{code(address)}`"
    return f"[{label}]({quote(address, safe=':/#?&=%@+,;~.-_')})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table whose columns stand apart.

    Args:
        head: words of the columns, made by `text` where they come from outside.
        rows: cells, likewise.
    """
    yield _row(head)
    yield "|" + "---|" * len(head)
    yield from (_row(cells) for cells in rows)
    yield "| &nbsp; " + "|" * len(head)  # else what follows stands close under the last row


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join([*(_apart(cell) for cell in cells[:-1]), cells[-1]]) + " |"


def _apart(cell: str) -> str:
    return f"{cell}{_GAP}" if cell else ""


def percent(share: float | None) -> str:
    """Return a share as ``91.0 %``, or a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f} %"


def figure(value: float | None) -> str:
    """Return a number as a person reads it, or a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.1f}"
