"""The answer to an auditor's question for a terminal: one sentence, then a table."""

from __future__ import annotations

import io
import shutil
from typing import Any

from clr.audit.document import day
from flows.audit.text import shortener

_TIMES = frozenset({"time", "registered", "since"})


def render(document: dict[str, Any]) -> str:
    """Return an answer (``clr.answer/1``) as text; the full digests are in its JSON form.

    The lineage of the adapter, which comes with the answer about a request, follows it.
    """
    text = _rendered(document)
    if "adapter" not in document:
        return text
    from flows.audit.text import render as lineage

    return f"{text}\n\n{lineage(document['adapter'])}".rstrip("\n")


def _rendered(document: dict[str, Any]) -> str:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    rows = document["rows"]
    short = shortener(str(value) for row in rows for value in row.values())
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(escape(short(_cell(name, row.get(name)))) for name in names))
    screen = io.StringIO()
    width = max(100, shutil.get_terminal_size((120, 24)).columns)
    if rows:
        Console(file=screen, width=width, highlight=False).print(table)
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    return "\n".join([*_head(document), *([""] if lines else []), *lines, *_tail(document)])


def _head(document: dict[str, Any]) -> list[str]:
    ledger = document["ledger"]
    lines = [document["sentence"]]
    if not ledger["intact"]:
        first = ledger["problems"][0]
        lines.append(f"BROKEN {first['subject']}: {first['message']} Trust nothing above.")
    return lines


def _tail(document: dict[str, Any]) -> list[str]:
    notes = [f"note   {one}" for one in document["notes"]]
    entry = document["asked"]["entry"]
    if entry is not None:
        notes.append(f"This answer is entry {entry} of the ledger.")
    return ["", *notes] if notes else []


def _cell(name: str, value: Any) -> str:
    if value is None or value == "":
        return "–"
    if name in _TIMES:
        return day(value)
    if name == "served":
        return "; ".join(
            f"release {one['release']}, {day(one['from'])} to "
            f"{day(one['to']) if one['to'] else 'now'}"
            for one in value
        ) or "never"  # fmt: skip
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
