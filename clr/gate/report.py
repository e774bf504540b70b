"""``gate.html``: the gate report as one page for a person.

No scripts, nothing loaded from elsewhere, every word from the report escaped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from clr.gate.advice import next_steps
from clr.gate.checks import percent, signed
from clr.gate.heatmap import accuracy_svg
from clr.gate.style import CSS

Report = Mapping[str, Any]

_WORDS = {"pass": ("✓", "Pass"), "fail": ("✕", "Fail"), "inconclusive": ("?", "Inconclusive")}
_ORDER = {"fail": 0, "inconclusive": 1, "pass": 2}
_SPOKEN_TASKS = 12  # checks are spelled out for so many earlier tasks, the worst first
_LISTED_TASKS = 200
_NAMES = {
    "improvement": "Better than the baseline",
    "own-champion": "Against its version in use",
    "parameters": "Added parameters",
    "bytes": "File size",
    "latency": "Latency",
    "provenance": "Provenance",
}


def gate_html(report: Report) -> str:
    """Return the page for a report in its ``gate.json`` form (schema ``clr.gate/1``)."""
    newcomer = report["newcomer"]
    named = f"Retention gate: {newcomer or 'change of the shared parts'}"
    title = str(report.get("title", named))
    body = [
        _headline(report, title),
        _figures(report),
        _next(report),
        _newcomer(report),
        _earlier(report),
        _matrix(report),
        _reading(report),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escape(title)}</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _headline(report: Report, title: str) -> str:
    verdict = report["verdict"]
    return (
        f'<header class="{_escape(verdict)}"><p class="kind">{_escape(title)}</p>'
        f"<h1>{_badge(verdict)}</h1><p class=lead>{_escape(report['sentence'])}</p></header>"
    )


def _figures(report: Report) -> str:
    metrics = report["metrics"]
    proofs = [
        f"{metrics[name]:.0f} {word}"
        for name, word in (
            ("identical", "identical"),
            ("replayed", "replayed"),
            ("paired_test", "by paired test"),
        )
        if metrics[name]
    ]
    kept = sum(metrics[name] for name in ("identical", "replayed", "paired_test"))
    tiles = [
        ("Retention proved", f"{kept:.0f} of {metrics['earlier_tasks']:.0f}", ", ".join(proofs))
    ]
    for one in report["checks"]:
        if one["name"] == "improvement":
            facts = one["facts"]
            low, high = facts["accuracy_ci"]
            tiles.append(
                (
                    f"Accuracy of {report['newcomer']}",
                    percent(facts["accuracy"]),
                    f"95 %: {100 * low:.1f} to {100 * high:.1f}; probe "
                    f"{percent(facts['linear_probe'])}",
                )
            )
    if "average_accuracy" in metrics:
        tiles.append(("Average accuracy", percent(metrics["average_accuracy"]), "of all tasks"))
    if "forgetting" in metrics:
        transfer = signed(metrics["backward_transfer"])
        tiles.append(("Forgetting", _plain(metrics["forgetting"]), f"backward transfer {transfer}"))
    cells = "".join(
        f"<div><dt>{_escape(name)}</dt><dd>{_escape(value)}</dd><p>{_escape(note)}</p></div>"
        for name, value, note in tiles
    )
    return f"<dl class=tiles>{cells}</dl>"


def _next(report: Report) -> str:
    steps = "".join(f"<li>{_escape(step)}</li>" for step in next_steps(report))
    return f"<section><h2>What to do next</h2><ul class=next>{steps}</ul></section>"


def _newcomer(report: Report) -> str:
    rows = "".join(
        f"<tr class={_escape(one['verdict'])}><td>{_badge(one['verdict'])}</td>"
        f"<th scope=row>{_escape(_NAMES.get(one['name'], one['name']))}</th>"
        f"<td>{_sentence(one)}</td></tr>"
        for one in report["checks"]
        if one["task"] == report["newcomer"]
    )
    if not rows:
        return ""
    return (
        f"<section><h2>The newcomer: {_escape(report['newcomer'])}</h2><div class=wide>"
        f"<table class=words><thead><tr><th>Verdict<th>Check<th>Finding</thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _earlier(report: Report) -> str:
    tasks: dict[str, list[Report]] = defaultdict(list)
    for one in report["checks"]:
        if one["task"] != report["newcomer"]:
            tasks[one["task"]].append(one)
    if not tasks:
        return (
            "<section><h2>Earlier tasks</h2><p>There is none yet: this is the first task.</p>"
            "</section>"
        )
    ordered = sorted(tasks.items(), key=lambda item: _rank(*item))
    stopped = sum(_worst(checks) < _ORDER["pass"] for _, checks in ordered)
    rows = "".join(
        _task_rows(name, checks, place < _SPOKEN_TASKS, len(ordered) <= _SPOKEN_TASKS)
        for place, (name, checks) in enumerate(ordered[:_LISTED_TASKS])
    )
    notes = []
    if stopped > _SPOKEN_TASKS:
        notes.append(f"The {_SPOKEN_TASKS} worst of {stopped:,} that did not pass are spelled out.")
    if len(ordered) > _LISTED_TASKS:
        notes.append(f"{len(ordered) - _LISTED_TASKS:,} more tasks are in gate.json.")
    more = f"<p class=note>{' '.join(notes)}</p>" if notes else ""
    return (
        f"<section><h2>Earlier tasks ({len(ordered):,})</h2><div class=wide><table class=tasks>"
        "<thead><tr><th>Verdict<th>Task<th>Proof<th class=n>Images<th class=n>Before"
        "<th class=n>After<th class=n>Change<th class=n>Routed before<th class=n>after</thead>"
        f"{rows}</table></div>{more}</section>"
    )


def _task_rows(name: str, checks: Sequence[Report], spoken: bool, passes_too: bool) -> str:
    retention = _retention(checks)
    routing: Report = next((one["facts"] for one in checks if one["name"] == "routing"), {})
    verdict = min((one["verdict"] for one in checks), key=lambda word: _ORDER[word])
    told = [one for one in checks if spoken and (passes_too or one["verdict"] != "pass")]
    before, after = retention["facts"]["before"], retention["facts"]["after"]
    change = _change(checks)
    proof = retention["how"] or "none"
    if not told:
        proof += "".join(
            f" {_WORDS[one['verdict']][0]} {one['name']}"
            for one in checks
            if one["verdict"] != "pass"
        )
    numbers = (
        f"{retention['n']:,}",
        percent(before),
        percent(after),
        signed(change),
        percent(routing.get("before")),
        percent(routing.get("after")),
    )
    cells = "".join(f"<td class=n>{_escape(value)}</td>" for value in numbers)
    span = ' rowspan="2"' if told else ""
    words = "".join(
        f"<li class={_escape(one['verdict'])}><b>{_escape(one['name'])}</b> {_sentence(one)}</li>"
        for one in told
    )
    second = f'<tr class=why><td colspan="8"><ul>{words}</ul></td></tr>' if told else ""
    return (
        f"<tbody class={_escape(verdict)}><tr><td{span}>{_badge(verdict)}</td>"
        f"<th scope=row>{_escape(name)}</th><td>{_escape(proof)}</td>{cells}"
        f"</tr>{second}</tbody>"
    )


def _matrix(report: Report) -> str:
    matrix = report["matrix"]
    if not matrix["tasks"]:
        return ""
    explained = (
        "Each row is a state of the system, each column a task. Without forgetting a column keeps "
        "its shade from top to bottom."
        if matrix["rows"]
        else "Each mark is a task. Without forgetting every dot lies on its ring."
    )
    return (
        f"<section><h2>Accuracy matrix</h2><p>{explained}</p>"
        f"<div class=wide>{accuracy_svg(matrix)}</div></section>"
    )


def _reading(report: Report) -> str:
    limits = report["limits"]
    declared = ", ".join(report["declared"]) or "no change of any shared part"
    terms = (
        ("identical", "All digests are unchanged and canary answers are bit-equal: no forgetting."),
        ("replayed", "Every test image was answered again, each exactly as before."),
        (
            "paired-test",
            "Answers moved. The upper confidence limit of the fall (Tango 1998) must lie below "
            f"{100 * limits['margin']:g} points at {100 * (1 - limits['alpha']):g} % confidence.",
        ),
        ("inconclusive", "Too few test images to tell. It does not promote."),
        (
            "routed",
            "Share of images that are sent to their own task and answered right, without being "
            f"told the task. It may fall by less than {100 * limits['routing_margin']:g} points.",
        ),
        ("declared", f"The offer says that it changes: {declared}."),
    )
    listed = "".join(f"<dt>{_escape(name)}</dt><dd>{_escape(text)}</dd>" for name, text in terms)
    return (
        f"<section class=reading><h2>How to read this</h2><dl>{listed}</dl>"
        "<p>The digest of what each check was shown is in gate.json, field "
        "<code>evidence</code>.</p></section>"
    )


def _retention(checks: Sequence[Report]) -> Report:
    return next(one for one in checks if one["name"] == "retention")


def _change(checks: Sequence[Report]) -> float | None:
    facts = _retention(checks)["facts"]
    if facts["before"] is None or facts["after"] is None:
        return None
    return float(facts["after"] - facts["before"])


def _rank(name: str, checks: Sequence[Report]) -> tuple[int, float, str]:
    """Sort what did not pass to the top, the largest fall first."""
    worst = _worst(checks)
    return worst, 0.0 if worst == _ORDER["pass"] else (_change(checks) or 0.0), name


def _worst(checks: Sequence[Report]) -> int:
    return min(_ORDER[one["verdict"]] for one in checks)


def _badge(verdict: str) -> str:
    sign, word = _WORDS[verdict]
    return f'<span class="badge {_escape(verdict)}"><i aria-hidden=true>{sign}</i>{word}</span>'


def _sentence(check: Report) -> str:
    """The message without the task's name in front: the page shows that beside it."""
    text = check["message"].removeprefix(f"{check['task']}: ")
    return _escape(text[:1].upper() + text[1:])


def _plain(difference: float) -> str:
    return f"{round(100 * difference, 1) + 0.0:.1f} points".replace("-", "−")


def _escape(text: object) -> str:
    """Escape for HTML; a number keeps its percent sign beside it."""
    return escape(str(text)).replace(" %", "\u00a0%")
