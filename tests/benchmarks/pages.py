"""The pages of docs/ that have tables of benchmarks in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def write_docs(page: str, tables: Mapping[str, str]) -> None:
    """Put each table between its marks, ``<!-- name -->`` and ``<!-- /name -->``.

    Args:
        page: name of a file in docs/.
        tables: by name.

    Raises:
        ValueError: the page has no such marks.
    """
    path = DOCS / page
    text = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, begun, rest = text.partition(begin)
        _, ended, tail = rest.partition(end)
        if not (begun and ended):
            raise ValueError(f"{page} has no marks of {name}")
        text = f"{head}{begin}{table}\n{end}{tail}"
    path.write_text(text, encoding="utf-8")
