"""The model card: what a reviewer reads in the registry before approving a version (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

LIMIT = 5000
"""Characters; MLflow's database keeps no more of a version's description."""

ROWS = 20
"""Earlier tasks shown in the retention table; the rest are counted."""

Facts = Mapping[str, Any]

_VERDICTS = {
    "pass": "Passed the retention gate",
    "fail": "Refused by the retention gate",
    "inconclusive": "Not decided: the retention gate is inconclusive",
}
_ALIASES = {"passed": "pass", "refused": "fail"}
_BUDGETS = ("parameters", "bytes", "latency")
_ROI = (
    ("adoption_cost", "Adoption cost"),
    ("annual_benefit", "Benefit a year"),
    ("annual_running_cost", "Running cost a year"),
    ("payback_months", "Payback"),
    ("npv", "Net present value"),
    ("roi_pct", "Return on investment"),
)
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~>-])")


def model_card(facts: Facts) -> str:
    """Return the card of one adapter version as Markdown of at most `LIMIT` characters.

    Args:
        facts: what ``clr onboard --json`` prints, as far as known: task, verdict,
            accuracy, accuracy_ci, baseline, adapter, data, roi; and besides:
            ``title``, ``owner``; ``report`` (``gate.json``); ``backbone``
            ({name, source, licence}); ``digests`` ({name: digest});
            ``links`` ({label: address}). What is absent is left out, except the verdict.

    Raises:
        KeyError: no ``task`` or no ``verdict``.
    """
    for rows in (ROWS, 12, 6, 0):
        card = _build(facts, rows)
        if len(card) <= LIMIT:
            return card
    return card[: LIMIT - 2].rsplit("\n", 1)[0] + "\n…"


def _build(facts: Facts, rows: int) -> str:
    sections = (
        _verdict(facts),
        _accuracy(facts),
        _retention(facts, rows),
        _budgets(facts),
        _business(facts),
        _approval(facts),
        _origin(facts),
        _links(facts),
    )
    return "\n\n".join(text for section in sections if (text := "\n".join(section))) + "\n"


def _verdict(facts: Facts) -> Iterator[str]:
    report = facts.get("report") or {}
    verdict = _word(facts)
    yield f"**{_VERDICTS.get(verdict, _text(verdict))}.** {_text(report.get('sentence', ''), 600)}"
    open_points = [*report.get("failed", ()), *report.get("inconclusive", ())]
    if open_points:
        shown = ", ".join(f"`{_code(one)}`" for one in open_points[:8])
        more = f" and {len(open_points) - 8} more" if len(open_points) > 8 else ""
        yield f"\nNot passed: {shown}{more}."
    named = " · ".join(
        f"{word} {_text(facts[name], 120)}"
        for name, word in (("title", "Title:"), ("owner", "Owner:"))
        if facts.get(name)
    )
    if named:
        yield f"\n{named}"


def _word(facts: Facts) -> str:
    verdict = str(facts["verdict"])
    return _ALIASES.get(verdict, verdict)


def _accuracy(facts: Facts) -> Iterator[str]:
    if facts.get("accuracy") is None:
        return
    yield "### Accuracy on the test split\n"
    yield "| | accuracy |\n|---|---|"
    interval = facts.get("accuracy_ci")
    about = f" (95 %: {_percent(interval[0])} to {_percent(interval[1])})" if interval else ""
    yield f"| **this adapter** | **{_percent(facts['accuracy'])}**{about} |"
    baseline = facts.get("baseline") or {}
    for name, words in (("linear_probe", "linear probe, before"), ("majority", "majority class")):
        if baseline.get(name) is not None:
            yield f"| {words} | {_percent(baseline[name])} |"
    for check in _checks(facts, "improvement", "own-champion"):
        yield f"\n{_text(check['message'], 300)}"


def _retention(facts: Facts, rows: int) -> Iterator[str]:
    checks = _checks(facts, "retention")
    if not checks:
        if facts.get("report"):
            yield "### Earlier tasks\n\nThere are none yet."
        return
    passed = sum(check["verdict"] == "pass" for check in checks)
    yield f"### Earlier tasks: {passed} of {len(checks)} keep what they had\n"
    checks = sorted(checks, key=lambda check: (check["verdict"] == "pass", check["task"]))
    if rows:
        yield "| task | before | after | proof | verdict |\n|---|---|---|---|---|"
    for check in checks[:rows]:
        known = check.get("facts") or {}
        before, after = _percent(known.get("before")), _percent(known.get("after"))
        yield (
            f"| {_text(check['task'])} | {before} | {after} | {_text(check['how']) or '–'} "
            f"| {_text(check['verdict'])} |"
        )
    if len(checks) > rows:
        yield f"\n{len(checks) - rows} more are in gate.json."


def _budgets(facts: Facts) -> Iterator[str]:
    checks = _checks(facts, *_BUDGETS)
    if checks:
        yield "### Budgets\n"
    for check in checks:
        yield f"- {_text(check['verdict'])}: {_text(check['message'], 240)}"


def _business(facts: Facts) -> Iterator[str]:
    case = facts.get("roi")
    if case is None:
        return
    yield "### Business case\n"
    derived = {name: one for name, one in case.items() if one.get("kind") == "derived"}
    shown = [(words, derived[name]) for name, words in _ROI if name in derived]
    if not shown:
        yield "No business assumptions were given, so nothing is derived."
        return
    yield "| derived from assumptions | low | middle | high |\n|---|---|---|---|"
    for words, one in shown:
        sure = {"low": None, "middle": one.get("value"), "high": None}
        ends = " | ".join(_figure({**sure, **one}[end]) for end in sure)
        yield f"| {words} ({_text(one.get('unit', ''), 20)}) | {ends} |"
    yield "\nLow and high are the ends of the accuracy's interval. Assumptions: roi.json."


def _approval(facts: Facts) -> Iterator[str]:
    task = _code(facts["task"])
    yield "### Review\n"
    if _word(facts) != "pass":
        yield "This version cannot be promoted: the gate has not passed."
        return
    yield (
        "Set the tag `review` of this version to `approved` or `rejected`, with your words in "
        f'`review.reason`; or run `clr review {task} VERSION approve --reason "…"`.'
    )


def _origin(facts: Facts) -> Iterator[str]:
    lines = list(_origin_lines(facts))
    if lines:
        yield "### Origin\n"
        yield from lines


def _origin_lines(facts: Facts) -> Iterator[str]:
    if data := facts.get("data"):
        classes = data.get("classes")
        number = len(classes) if isinstance(classes, Sequence) else classes
        yield (
            f"- data: {data.get('train', '?')} training and {data.get('test', '?')} test images, "
            f"{number} classes"
        )
    if adapter := facts.get("adapter"):
        yield (
            f"- adapter: {adapter['bytes'] / 1000:,.0f} kB, {adapter['params']:,} kernel "
            f"parameters ({adapter['params_pct']:.2f} % of the backbone)"
        )
    if backbone := facts.get("backbone"):
        parts = [_text(backbone.get(part, ""), 120) for part in ("name", "source", "licence")]
        yield f"- backbone: {', '.join(part for part in parts if part)}"
    for name, digest in sorted((facts.get("digests") or {}).items()):
        yield f"- {_text(name, 40)}: `{_code(digest)}`"


def _links(facts: Facts) -> Iterator[str]:
    links = facts.get("links") or {}
    if links:
        yield "### More\n"
    for label, address in links.items():
        yield f"- {_link(_text(label, 60), str(address))}"


def _checks(facts: Facts, *names: str) -> list[Mapping[str, Any]]:
    checks: Iterable[Mapping[str, Any]] = (facts.get("report") or {}).get("checks", ())
    return [check for check in checks if check["name"] in names]


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.1f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _text(value: Any, longest: int = 80) -> str:
    """Return words from outside as one line that Markdown and HTML take for words only."""
    line = re.sub(r"\s+", " ", str(value)).strip()
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return _SPECIAL.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;"))


def _code(value: Any) -> str:
    return re.sub(r"[`|\s]+", " ", str(value))[:100]


def _link(label: str, address: str) -> str:
    if not re.match(r"(https?://|#|/|[\w.-]+(/|$))", address):
        return f"{label}: `{_code(address)}`"
    return f"[{label}]({quote(address, safe=':/#?&=%@+,;~.-_')})"
