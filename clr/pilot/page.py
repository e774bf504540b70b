"""A pilot as one page for a manager, in English or Japanese: all is on it, nothing is loaded.

No scripts; titles, names and messages are escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from clr.gate.style import CSS
from clr.pages import templates
from clr.pilot import words
from clr.pilot.figure import bars
from clr.roi import OF_PROBE

if TYPE_CHECKING:
    from jinja2 import Environment

Document = Mapping[str, Any]
SIGNS = {"met": ("pass", "✓"), "not met": ("fail", "✕"), "unknown": ("inconclusive", "?")}
DECISIONS = {"go": ("pass", "✓"), "no-go": ("fail", "✕"), "open": ("inconclusive", "?")}
SHOWN = (
    "accuracy", "current_error_rate", "items_per_year", "error_cost", "images_labelled",
    "adoption_cost", "annual_running_cost", "annual_benefit", "payback_months", "npv", "roi_pct",
)  # fmt: skip
"""Fields of the business case that a manager asks for; pilot.json has all."""


def render(document: Document, language: str) -> str:
    """Return the page of a pilot, complete in one file.

    Args:
        document: of schema ``clr.pilot/1``.
        language: ``en`` or ``ja``.
    """
    said = words.WORDS[language]
    found = {one["name"]: one for one in document["criteria"]}
    page = (
        _templates()
        .get_template("pilot.html")
        .render(
            **document,
            language=language,
            t=said,
            css=CSS,
            sign=DECISIONS[document["decision"]],
            signs=SIGNS,
            headline=words.headline(document, language),
            summary=words.summary(document, language),
            steps=words.next_steps(document, language),
            figures=[
                Markup(bars(_rows(found, said, language), said["figure"], form))  # noqa: S704  # it escapes
                for form in ("wide", "narrow")
            ],
            asked_of=partial(words.threshold_of, language=language),
            result_of=partial(words.result_of, language=language),
            percent=partial(words.percent, language=language),
            count=partial(words.count, language=language),
            worth=_worth(document["roi"], said, language),
            trained=document["stages"]["trained"],
            before=document["stages"]["before"],
            on_site=document["stages"]["site"],
        )
    )
    return page.replace(" %", "\u00a0%")  # no line begins with a sign


def _rows(found: Mapping[str, Document], said: Mapping[str, str], language: str) -> list[Any]:
    """Return (name, note, {low, middle, high}) of every bar of the figure."""
    gain, site, rows = found["gain"], found["site"], []
    if "today" in gain:
        today = gain["today"]
        note = said["given"] if today["of"] is None else said["sampled"].format(**today)
        error = today["error"]
        right = {"low": 1 - error["high"], "middle": 1 - error["middle"], "high": 1 - error["low"]}
        rows.append((said["today"], note, right))
    judged = words.count(gain["n"], language)
    rows += [(said["probe"], judged, gain["probe_accuracy"])]
    rows += [(said["adapter"], judged, gain["accuracy"])]
    if "accuracy" in site:
        rows.append((said["on site"], words.count(site["n"], language), site["accuracy"]))
    return [
        (name, note, words.percent(ends["middle"], language), ends) for name, note, ends in rows
    ]


def _worth(case: Document, said: Mapping[str, str], language: str) -> list[dict[str, Any]]:
    """Return the rows of the table of money; empty where nothing of it is known."""
    if "annual_benefit" not in case:
        return []
    rows = []
    for name in SHOWN:
        if name not in case:
            continue
        field = case[name]
        ends = ["value"] if "value" in field else ["low", "middle", "high"]
        rows.append(
            {
                "name": said["roi:probe" if field.get("source") == OF_PROBE else f"roi:{name}"],
                "kind": field["kind"],
                "values": [_value(field, end, said, language) for end in ends],
            }
        )
    return rows


def _value(field: Document, end: str, said: Mapping[str, str], language: str) -> str:
    unit, value = field["unit"], field[end]
    if unit == "share":
        return words.percent(value, language)
    if unit == "months":
        return words.months(value, language)
    money = {"error": ("error", "件"), "year": ("year", "年")}
    amount, _, per = unit.partition("/")
    if per in money and amount != "items" and language == "ja":
        unit = f"{amount}/{money[per][1]}"
    return words.money(value, said.get(f"unit:{unit}", unit), language)


@cache
def _templates() -> Environment:
    return templates("clr.pilot")
