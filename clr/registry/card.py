"""The model card: what a reviewer reads in the registry before approving a version (pure).

Its order is that of a reader with ten seconds: the verdict, the few figures it rests on
beside what was before or is allowed, how to decide; then the tables behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from clr.gate.advice import next_steps, overlap_step
from clr.markdown import code, figure, link, percent, table, text

LIMIT = 5000
"""Characters; MLflow's database keeps no more of a version's description."""

ROWS = 20
"""Earlier tasks that the retention table shows at least, however long the other words are."""

Facts = Mapping[str, Any]

_VERDICTS = {
    "pass": "✓ Passed the retention gate",
    "fail": "✕ Refused by the retention gate",
    "inconclusive": "? Not decided: the retention gate is inconclusive",
}
_ALIASES = {"passed": "pass", "refused": "fail"}
_MARKS = {"pass": "✓", "fail": "✕ failed", "inconclusive": "? open"}
_BUDGETS = {
    "parameters": ("Added parameters", "{:.2f} % of the backbone", "{:g} %"),
    "bytes": ("Size of its file", "{:.3f} MB", "{:g} MB"),
    "latency": ("Time for a prediction", "{:.2f} times the bare backbone's", "{:g} times"),
}
_ROI = (
    ("adoption_cost", "Adoption cost"),
    ("annual_benefit", "Benefit a year"),
    ("annual_running_cost", "Running cost a year"),
    ("payback_months", "Payback"),
    ("npv", "Net present value"),
    ("roi_pct", "Return on investment"),
)
_CLASSES = 8
_OPEN_POINTS = 8
_OVERLAPS = 5
_STEPS = 4
_MOST_ROWS = 60  # more than fit


def model_card(facts: Facts) -> str:
    """Return the card of one adapter version as Markdown of at most `LIMIT` characters.

    Earlier tasks that did not keep what they had come first in their table; of the others
    as many are shown as there is room for, and the rest is counted.

    Args:
        facts: what ``clr onboard --json`` prints, as far as known: task, verdict,
            accuracy, accuracy_ci, baseline, adapter, data, roi; and besides:
            ``title``, ``owner``; ``report`` (``gate.json``); ``backbone``
            ({name, source, licence}); ``digests`` ({name: digest});
            ``links`` ({label: address}). What is absent is left out, except the verdict.

    Raises:
        KeyError: no ``task`` or no ``verdict``.
    """
    most = min(len(_checks(facts, "retention")), _MOST_ROWS)
    for rows in range(most, min(most, ROWS) - 1, -1):
        card = _build(facts, rows)
        if len(card) <= LIMIT:
            return card
    for rows in (12, 6, 0):
        card = _build(facts, min(rows, most))
        if len(card) <= LIMIT:
            return card
    return card[: LIMIT - 2].rsplit("\n", 1)[0] + "\n…"


def _build(facts: Facts, rows: int) -> str:
    sections = (
        _verdict(facts),
        _glance(facts),
        _links(facts),
        _decision(facts),
        _overlap(facts),
        _retention(facts, rows),
        _accuracy(facts),
        _business(facts),
        _origin(facts),
    )
    return "\n\n".join(words for section in sections if (words := "\n".join(section))) + "\n"


def _verdict(facts: Facts) -> Iterator[str]:
    report = facts.get("report") or {}
    yield f"## {_VERDICTS.get(_word(facts), text(_word(facts)))}\n"
    named = [
        f"{words} {text(facts[name], 120)}"
        for name, words in (("title", ""), ("owner", "Owner:"))
        if facts.get(name)
    ]
    yield f"**{' · '.join([text(facts['task']), *(one.strip() for one in named)])}**"
    if sentence := report.get("sentence"):
        yield f"\n{text(sentence, 600)}"
    if points := [*report.get("failed", ()), *report.get("inconclusive", ())]:
        shown = ", ".join(f"`{code(one)}`" for one in points[:_OPEN_POINTS])
        more = f" and {len(points) - _OPEN_POINTS} more" if len(points) > _OPEN_POINTS else ""
        yield f"\nNot passed: {shown}{more}."


def _word(facts: Facts) -> str:
    verdict = str(facts["verdict"])
    return _ALIASES.get(verdict, verdict)


def _glance(facts: Facts) -> Iterator[str]:
    rows = [*_accuracy_row(facts), *_kept_row(facts), *_budget_rows(facts), *_payback_row(facts)]
    if rows:
        yield from table(("", "this adapter", "before, or allowed", ""), rows)


def _accuracy_row(facts: Facts) -> Iterator[Sequence[str]]:
    if facts.get("accuracy") is None:
        return
    interval = facts.get("accuracy_ci")
    about = f" (95 %: {percent(interval[0])} to {percent(interval[1])})" if interval else ""
    baseline = facts.get("baseline") or {}
    before = ", ".join(
        f"{words} {percent(baseline[name])}"
        for name, words in (("linear_probe", "linear probe"), ("majority", "majority class"))
        if baseline.get(name) is not None
    )
    tests = (facts.get("data") or {}).get("test")
    what = f"Accuracy on {tests} test images" if tests else "Accuracy on the test split"
    mark = next((_mark(one) for one in _checks(facts, "improvement")), "")
    yield what, f"**{percent(facts['accuracy'])}**{about}", before, mark


def _kept_row(facts: Facts) -> Iterator[Sequence[str]]:
    if checks := _checks(facts, "retention"):
        kept = sum(one["verdict"] == "pass" for one in checks)
        all_kept = "✓" if kept == len(checks) else _MARKS["fail"]
        yield (
            "Earlier tasks",
            f"**{kept} of {len(checks)}** keep what they had",
            "all must",
            all_kept,
        )
    elif facts.get("report"):
        yield "Earlier tasks", "there are none yet", "", ""


def _budget_rows(facts: Facts) -> Iterator[Sequence[str]]:
    for one in _checks(facts, *_BUDGETS):
        words, observed, limit = _BUDGETS[one["name"]]
        yield words, observed.format(one["observed"]), limit.format(one["limit"]), _mark(one)


def _payback_row(facts: Facts) -> Iterator[Sequence[str]]:
    case = facts.get("roi") or {}
    payback, gain, years = (case.get(one) for one in ("payback_months", "roi_pct", "horizon_years"))
    if payback and gain and years:
        month = payback["middle"]
        pays = "it does not" if month is None else f"{figure(month)} months"
        pays += " (low end: never)" if month is not None and payback["low"] is None else ""
        pays += f"; {figure(gain['middle'])} % return in {years['value']:g} years"
        yield "Pays back in", pays, "under assumptions, below", ""


def _mark(check: Mapping[str, Any]) -> str:
    return _MARKS.get(check["verdict"], text(check["verdict"]))


def _links(facts: Facts) -> Iterator[str]:
    if links := facts.get("links") or {}:
        shown = (link(text(label, 60), str(address)) for label, address in links.items())
        yield f"Open: {' · '.join(shown)}"


def _decision(facts: Facts) -> Iterator[str]:
    if _word(facts) != "pass":
        yield "### What to do\n"
        yield "This version cannot be promoted: the gate has not passed."
        for step in next_steps(facts["report"])[:_STEPS] if facts.get("report") else ():
            yield f"- {text(step, 300)}"
        return
    task = code(facts["task"])
    yield "### How to decide\n"
    yield "1. Further down, under **Tags**, click the pencil of `review`, near the list's end."
    yield "2. Write `approved` or `rejected` in place of `pending`, then **Save**.\n"
    yield (
        "Approved, it serves within seconds: the alias `champion` moves here. Want to say why? "
        "Add the tag `review.reason` first. Nobody approves what they registered themselves. "
        "Leave **Promote model** alone: it copies, and is refused. In a terminal: "
        f'`clr review {task} VERSION approve --reason "…"`.'
    )


def _overlap(facts: Facts) -> Iterator[str]:
    """Warn of tasks that the router cannot tell from this one, and say what to do."""
    report = facts.get("report") or {}
    found = report.get("overlaps") or []
    if not found:
        return
    yield "### Looks like other tasks\n"
    yield from (f"- {text(one['sentence'], 200)}" for one in found[:_OVERLAPS])
    if _word(facts) == "pass":  # otherwise it is among what to do
        yield f"\n{text(overlap_step(report), 300)}"


def _retention(facts: Facts, rows: int) -> Iterator[str]:
    checks = sorted(
        _checks(facts, "retention"), key=lambda one: (one["verdict"] == "pass", one["task"])
    )
    if not checks:
        return
    yield "### Earlier tasks\n"
    if rows:
        cells = (_task_row(one) for one in checks[:rows])
        yield from table(("task", "before", "after", "proof", ""), cells)
    if len(checks) > rows:
        kept = all(one["verdict"] == "pass" for one in checks[rows:])
        words = "more keep what they had; they" if kept else "more, not all of them kept,"
        yield f"\n{len(checks) - rows} {words} are in the gate report."


def _task_row(check: Mapping[str, Any]) -> Sequence[str]:
    known = check.get("facts") or {}
    before, after = percent(known.get("before")), percent(known.get("after"))
    return text(check["task"]), before, after, text(check["how"]) or "–", _mark(check)


def _accuracy(facts: Facts) -> Iterator[str]:
    if checks := _checks(facts, "improvement", "own-champion"):
        yield from ("### Accuracy in words\n", *(f"- {_message(one)}" for one in checks))


def _message(check: Mapping[str, Any]) -> str:
    words = check["message"].removeprefix(f"{check['task']}: ")
    return text(words[:1].upper() + words[1:], 300)


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
    yield from table(
        ("derived from assumptions", "low", "middle", "high"),
        [(f"{words} ({text(one.get('unit', ''), 20)})", *_ends(one)) for words, one in shown],
    )
    yield "\nLow and high are the ends of the accuracy's interval. Assumptions: roi.json."


def _ends(field: Mapping[str, Any]) -> Iterator[str]:
    sure = {"low": None, "middle": field.get("value"), "high": None, **field}
    return (figure(sure[end]) for end in ("low", "middle", "high"))


def _origin(facts: Facts) -> Iterator[str]:
    if lines := list(_origin_lines(facts)):
        yield from ("### Origin\n", *lines)


def _origin_lines(facts: Facts) -> Iterator[str]:
    words = {
        "data": facts.get("data") and _data(facts["data"]),
        "adapter": facts.get("adapter") and _adapter(facts["adapter"]),
        "backbone": facts.get("backbone") and _backbone(facts["backbone"]),
    }
    digests = facts.get("digests") or {}
    for name in (*words, *sorted(digests.keys() - words.keys())):
        parts = [words.get(name), digests.get(name) and f"`{code(digests[name])}`"]
        if any(parts):
            yield f"- {text(name, 40)}: {'; '.join(part for part in parts if part)}"


def _data(data: Mapping[str, Any]) -> str:
    train, test = data.get("train", "?"), data.get("test", "?")
    return f"{train} training and {test} test images, {_classes(data.get('classes', ()))}"


def _adapter(adapter: Mapping[str, Any]) -> str:
    return (
        f"{adapter['bytes'] / 1000:,.0f} kB, {adapter['params']:,} kernel parameters "
        f"({adapter['params_pct']:.2f} % of the backbone)"
    )


def _backbone(backbone: Mapping[str, Any]) -> str:
    parts = [text(backbone.get(part, ""), 120) for part in ("name", "source", "licence")]
    return ", ".join(part for part in dict.fromkeys(parts) if part)  # a file is named by its source


def _classes(classes: Sequence[str] | int) -> str:
    if isinstance(classes, int):
        return f"{classes} classes"
    more = f" and {len(classes) - _CLASSES} more" if len(classes) > _CLASSES else ""
    names = ", ".join(text(one, 30) for one in classes[:_CLASSES])
    return f"{len(classes)} classes: {names}{more}"


def _checks(facts: Facts, *names: str) -> list[Mapping[str, Any]]:
    checks: Iterable[Mapping[str, Any]] = (facts.get("report") or {}).get("checks", ())
    return [check for check in checks if check["name"] in names]
