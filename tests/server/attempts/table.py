"""All attempts in their order, and the table of docs/review.md made of what came of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tests.server.attempts import (
    aliases,
    births,
    deliveries,
    evidence,
    forms,
    odds,
    people,
    reviewing,
)
from tests.server.attempts.model import Attempt

PARTS: dict[str, list[Attempt]] = {
    "Approving and rejecting": reviewing.ROWS,
    "What serves: aliases and releases": aliases.ROWS,
    "Registering, copying, renaming, deleting": births.ROWS,
    "The evidence of a registered version": evidence.ROWS,
    "One forbidden act in other clothes": forms.ROWS,
    "Accounts, passwords and reading": people.ROWS,
    "Webhooks": [*odds.WEBHOOKS, *deliveries.ROWS],
    "The rest of MLflow, hostile words": [*odds.OTHERS, *odds.TEXTS],
}
ATTEMPTS: dict[int, Attempt] = dict(
    enumerate((attempt for rows in PARTS.values() for attempt in rows), start=1)
)
DOCUMENT = Path(__file__).parents[3] / "docs" / "review.md"
BEGIN, END = "<!-- attempts -->", "<!-- /attempts -->"

_CHANGING = (  # what differs from one run of the tests to the next
    (re.compile(r"sha256:[0-9a-f]{8,64}"), "sha256:…"),
    (re.compile(r"m-[0-9a-f]{32}"), "m-…"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "…"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:…"),
    (re.compile(r"(?<=ersion )\d+(?= of clr-(?:patient|red-caps|release)\b)"), "…"),
    (re.compile(r"(?<=Promote version )\d+"), "…"),
    (re.compile(r"(?<=elease )\d+|(?<=than )\d+(?=, which serves)"), "…"),
    (re.compile(r"'(/?)\d+(?=['/])"), r"'\1…"),
    (re.compile(r"(?<=/)\d+(?=/models/m-)"), "…"),
    # where a long path is cut depends on the digits of its experiment's number
    (re.compile(r"('[^']*/artifacts[^']*[/\\%])[^'/\\%]*…'"), r"\1…'"),
)


def normal(text: str) -> str:
    """Return a sentence on one line, without what changes from run to run."""
    for pattern, instead in _CHANGING:
        text = pattern.sub(instead, text)
    return " ".join(text.split())


def cell(text: str) -> str:
    """Return a text as the cell of a Markdown table, shown letter by letter."""
    for sign, instead in (("|", "\\|"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, instead)
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)


def table(answers: Mapping[int, str]) -> str:
    """Return the table of all attempts.

    Args:
        answers: by number of the attempt: what the server said.
    """
    lines: list[str] = []
    number = 0
    for part, rows in PARTS.items():
        lines += ["", f"### {part}", "", "| no. | who | tries what | |", "|---|---|---|---|"]
        for attempt in rows:
            number += 1
            said = cell(normal(answers[number]))
            lines.append(f"| {number} | {attempt.label} | {cell(attempt.tries)} | {said} |")
    return "\n".join([*lines, ""])


def written() -> str:
    """Return the table as docs/review.md has it."""
    return DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def write(text: str) -> None:
    """Put the table into docs/review.md."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
