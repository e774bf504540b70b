"""The dashboard's pages: server-side HTML without scripts, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from clr.gate.style import CSS
from clr.pages import templates
from clr.serving.dashboard.facts import SOURCES
from clr.serving.dashboard.plots import plot, points

if TYPE_CHECKING:
    from jinja2 import Environment

    from clr.serving.dashboard.facts import Facts, Task
    from clr.serving.values import Health

PLOTS = (
    ("items", "Items a month", "bars", False),
    ("error_rate", "Error rate, 95 % interval", "dots", True),
    ("defect_rate", "Defect rate", "dots", True),
    ("latency_p95_served_ms", "Latency, 95 % of items, ms", "dots", False),
    ("items_per_hour", "Items an hour", "dots", False),
    ("maintenance_hours", "Hours of upkeep", "bars", False),
    ("incidents", "Incidents", "bars", False),
)
"""Fields that are drawn by month: name, title, form, whether it is a share."""


def overview(facts: Facts, health: Health, allowed: Sequence[str] = ()) -> str:
    """Return the page of all tasks.

    Args:
        facts: of the installation.
        health: of the engine.
        allowed: the only tasks to show; empty: all.
    """
    if allowed:
        facts, health = _limited(facts, health, allowed)
    return _page("overview.html", facts, health, limited=bool(allowed))


def task_page(facts: Facts, health: Health, task: Task, allowed: Sequence[str] = ()) -> str:
    """Return the page of one task; `allowed` as in `overview`."""
    if allowed:
        facts, health = _limited(facts, health, allowed)
    months = task.told.get("months", [])
    plots = []
    for name, title, form, percent in PLOTS:
        rows = points(months, name)
        if any(middle is not None for _, _, middle, _ in rows):
            drawn = plot(name.replace("_", "-"), title, rows, form=form, percent=percent)
            plots.append(Markup(drawn))  # noqa: S704  # it escapes
    return _page("task.html", facts, health, task=task, plots=plots)


def _limited(facts: Facts, health: Health, allowed: Sequence[str]) -> tuple[Facts, Health]:
    """Return what a key that is for some tasks may see: nothing that names or tells of another.

    Words that were not written about one task may speak of any: what is wrong is told without
    them, and acts, which are about releases of all tasks, are left out.
    """
    own = [one for one in facts.problems if one.partition(": ")[0] in allowed]
    shared = {one.partition(":")[0] for one in facts.problems} & set(SOURCES)
    return replace(
        facts,
        tasks={name: one for name, one in facts.tasks.items() if name in allowed},
        releases=(),
        problems=(*(f"{one} cannot be read now." for one in sorted(shared)), *own),
    ), replace(
        health,
        tasks=tuple(one for one in health.tasks if one in allowed),
        refused={name: why for name, why in health.refused.items() if name in allowed},
        routing=health.routing and "Images without a task cannot be answered now.",
        registry=health.registry and "The registry cannot be asked now.",
        journal=health.journal and "Answers cannot be written down now.",
    )


def _page(template: str, facts: Facts, health: Health, **about: Any) -> str:
    return (
        _templates().get_template(template).render(facts=facts, health=health, css=style(), **about)
    )


@cache
def style() -> Markup:
    """Return the style sheet of the pages, which the policy names by its digest."""
    own = _templates().get_template("dashboard.css").render()
    return Markup(CSS + own)  # noqa: S704  # ours


@cache
def policy() -> str:
    """Return the Content-Security-Policy of the pages: that style sheet, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _templates() -> Environment:
    return templates("clr.serving.dashboard", field=field, when=_when, ends=_ends, words=_words)


def field(one: Mapping[str, Any] | None, end: str = "") -> str:
    """Return a field of a case or window as people read it; an en dash where it is unknown.

    Args:
        one: {unit, value} or {unit, low, middle, high}.
        end: ``low`` or ``high``; else the middle, or the value.
    """
    if one is None:
        return "–"
    value = one[end] if end else one.get("value", one.get("middle"))
    if value is None:
        return "never" if one["unit"] == "months" else "–"
    if not isinstance(value, int | float):
        return ", ".join(value) if isinstance(value, list) else str(value)
    unit = one["unit"]
    if unit == "share":
        return f"{100 * value:.1f}\u00a0%"
    shown = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.3g}"
    return shown.replace("-", "−") + (f"\u00a0{unit}" if unit in ("%", "ms", "months") else "")


def _ends(one: Mapping[str, Any] | None) -> str:
    """Return the interval of a field; empty where it has none."""
    if one is None or "middle" not in one:
        return ""
    return f"{field(one, 'low')} to {field(one, 'high')}"


def _when(time: str) -> str:
    return f"{time[:10]} {time[11:16]}"


def _words(name: str) -> str:
    """Return the name of a field as words."""
    return name.replace("_", " ")
