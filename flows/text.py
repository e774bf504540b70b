"""What a person reads: the result of each command as text."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from flows import text_routing

Result = dict[str, Any]


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; columns after the first are right-aligned, no cell is cut."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        drawn.add_column(escape(column), justify="right" if number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(cell) for cell in row))
    screen = io.StringIO()
    width = max(110, shutil.get_terminal_size((120, 24)).columns)
    Console(file=screen, width=width, highlight=False).print(drawn)
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    return "\n".join([title, *lines] if title else lines).strip("\n")


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as a percentage, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def kilobytes(count: int) -> str:
    """Return a number of bytes in kB (1 kB = 1,000 bytes)."""
    return f"{count / 1000:.0f} kB"


def accuracy_with_interval(result: Result) -> str:
    """Return the accuracy with its 95 % interval."""
    low, high = result["accuracy_ci"]
    return f"{percent(result['accuracy'])} [{100 * low:.1f}, {100 * high:.1f}]"


def onboarded(result: Result) -> str:
    """Describe one onboarding: verdict first, then the figures and where to look."""
    if result["verdict"] == "data-refused":
        return f"{result['task']}: data refused, report in {result['reports']['quarantine']}"
    name, mlflow = result["task"], result["mlflow"]
    lines = [f"{name} version {result['version']}: {result['verdict']}"]
    if result.get("already"):
        lines[0] = (
            f"{name} is already onboarded as version {result['version']}: " + (result["verdict"])
        )
    base, adapter = result["baseline"], result["adapter"]
    seconds = ", ".join(f"{step} {value:.1f}" for step, value in result["seconds"].items())
    lines += [
        f"  accuracy   {accuracy_with_interval(result)}   linear probe "
        f"{percent(base['linear_probe'])}, majority class {percent(base['majority'])}",
        f"  gate       {result['gate']['verdict']} over {result['gate']['earlier_tasks']} earlier "
        f"task(s)" + _failed(result["gate"]),
        *text_routing.overlaps(result["gate"]),
        f"  adapter    {kilobytes(adapter['bytes'])}, {adapter['params']:,} kernel parameters "
        f"({adapter['params_pct']:.2f} % of the backbone)",
        f"  business   {roi_sentence(result['roi'])}",
        f"  seconds    {seconds}",
        f"  registry   models:/{mlflow['model']}/{mlflow['version']}  run {mlflow['run_id']}",
        f"  read       {result['reports']['gate']}",
    ]
    if result["verdict"] == "passed" and not result.get("already"):
        lines.append(f"  next       clr review {name} {result['version']} approve --reason …")
    return "\n".join(lines)


def _failed(gate: Result) -> str:
    return f", failed: {', '.join(gate['failed'])}" if gate["failed"] else ""


def roi_sentence(fields: Result) -> str:
    """Return the business case in one line; says so where no assumption was given."""
    roi = fields.get("roi_percent") or fields.get("roi_pct")
    payback = fields.get("payback_months")
    if not roi or "value" in roi:
        return "no business assumptions given (see docs/roi.md)"
    parts = [f"ROI {_middle(roi)} %"]
    if payback and payback.get("middle") is not None:
        parts.append(f"payback {_middle(payback)} months")
    return ", ".join(parts) + " (derived; assumptions in task.yaml)"


def _middle(field: Result) -> str:
    low, middle, high = (field.get(end) for end in ("low", "middle", "high"))
    return f"{_number(middle)} [{_number(low)}, {_number(high)}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2g}"


def reviewed(result: Result) -> str:
    """Say what a review did."""
    if result["decision"] == "reject":
        return f"{result['task']} version {result['version']} is rejected: {result['reason']}"
    if result.get("waiting"):
        return f"Recorded. {result['waiting']}"
    if result.get("already"):
        return f"{result['task']} version {result['version']} is already champion."
    return promoted(result)


def promoted(result: Result) -> str:
    """Say which release a version made."""
    return (
        f"{result['task']} version {result['version']} is champion; release {result['release']} "
        f"({result['release_digest'][:19]}…) is in force."
    )


def rolled_back(result: Result) -> str:
    """Say which release serves after a rollback or a retirement, and why."""
    what = (
        f"Release {result['release']} ({result['release_digest'][:19]}…) of {result['tasks']} "
        "task(s) is in force"
    )
    if result.get("already"):
        return f"{what} already."
    return f"{what} in place of release {result['from']}: {result['reason']}"


def _known_by(evidence: str) -> str:
    """Return how it is known who approved a champion, in a word."""
    from clr.registry.acts import AUTHENTICATED, LOCAL  # costs every command otherwise

    words = {AUTHENTICATED: "server", LOCAL: "local (weaker)"}
    return words.get(evidence, evidence or "–")


def status(result: Result) -> str:
    """Draw the tasks and the release in force."""
    release = result["release"]
    title = (
        f"Release {release['version']} ({release['digest'][:19]}…), backbone {release['backbone']}"
        if release
        else "No release yet: approve a candidate with clr review TASK VERSION approve."
    )
    rows = (
        (
            one["name"],
            str(one["champion"] or "–"),
            _known_by(one["evidence"]),
            str(one["candidate"] or "–"),
            f"{one['review']} ({one['approvals'].split(':')[0]})" if one["review"] else "–",
            percent(one["accuracy"]),
            one["verdict"] or "–",
        )
        for one in result["tasks"]
    )
    columns = ("task", "champion", "approved by", "candidate", "review", "accuracy", "last verdict")
    shown = table(title, columns, rows)
    warnings = (f"WARNING  {one}" for one in result["warnings"])
    return "\n".join([*warnings, *_working(result), shown])


def _working(result: Result) -> list[str]:
    """Draw services, queue, runs and what waits for review, each where there is something."""
    tables = []
    if result["health"]:
        rows = (
            (name, one["state"], one["address"] or "–", one["since"] or "–", str(one["restarts"]))
            for name, one in result["health"].items()
        )
        tables.append(table("Services", ("service", "state", "address", "since", "restarts"), rows))
    queue = result["queue"]
    counts = [f"{number} {state}" for state, number in queue["arrivals"].items()]
    counts += [f"{queue[one]} {one} runs" for one in ("scheduled", "late") if queue[one]]
    if counts:
        tables.append("Arrivals  " + ", ".join(counts))
    if result["runs"]:
        columns = ("task", "run", "step", "since")
        runs = ((one["task"], one["flow"], one["step"] or "–", one["since"][:19])
                for one in result["runs"])  # fmt: skip
        tables.append(table("In progress", columns, runs))
    if result["waiting"]:
        columns = ("task", "version", "since", "link")
        waiting = ((one["task"], str(one["version"]), one["since"], one["link"])
                   for one in result["waiting"])  # fmt: skip
        tables.append(table("Waiting for review", columns, waiting))
    return tables


def verified(result: Result) -> str:
    """List what was checked and what was found broken."""
    checked = ", ".join(f"{count} {what}" for what, count in result["checked"].items())
    lines = [f"checked {checked} in {result['seconds']:.1f} s"]
    problems = result["problems"]
    lines += [f"BROKEN {one['subject']}: {one['message']} [{one['kind']}]" for one in problems]
    lines += [f"note   {one['subject']}: {one['message']}" for one in result["notes"]]
    if not problems:
        return "\n".join([*lines, "everything is as recorded"])
    fixes = {one["kind"]: one["fix"] for one in problems if one["fix"]}
    return "\n".join([*lines, "What to do:", *(f"  {kind}: {fix}" for kind, fix in fixes.items())])


def anchored(result: Result) -> str:
    """Say where the ledger's head is kept now, and how it is used."""
    here = result["where"].startswith("git tag")
    how = "finds it by itself; push it" if here else f"--anchor {result['where']} compares with it"
    return (
        f"entry {result['seq']} ({result['hash']}) is anchored: {result['where']}; clr verify {how}"
    )


def settings(result: Result) -> str:
    """Draw the table of settings."""
    rows = ((name, str(one["value"]), str(one["meaning"])) for name, one in result.items())
    return table("Settings in force", ("name", "value", "meaning"), rows)


def demonstrated(result: Result) -> str:
    """Draw the demo's table, the refusal, and what to look at next."""
    rows = (
        (
            one["task"],
            percent(one["baseline"]["linear_probe"]),
            accuracy_with_interval(one),
            one["verdict"],
            f"{one['adapter']['params']:,} = {one['adapter']['params_pct']:.2f} %",
            kilobytes(one["adapter"]["bytes"]),
            f"{one['seconds']['total']:.0f}",
            _number(one["roi"].get("roi_pct", {}).get("middle")),
            _number(one["roi"].get("payback_months", {}).get("middle")),
        )
        for one in result["tasks"]
    )
    columns = (
        *("task", "probe", "accuracy [95 %]", "verdict", "parameters added", "bytes", "seconds"),
        *("ROI %", "payback, months"),
    )
    refusal = result["refusal"]
    forgotten = (
        (one["task"], percent(one["before"]), percent(one["after"]), percent(one["forgetting"]))
        for one in refusal["forgetting"]
    )
    return "\n\n".join(
        [
            table("Three tasks, one frozen backbone", columns, rows),
            table(
                f"The same gate, offered a backbone fully fine-tuned on {refusal['task']}: "
                f"{refusal['verdict'].upper()}",
                ("earlier task", "before", "after", "forgotten"),
                forgotten,
            ),
            "\n".join(["Look at next:", *(f"  {line}" for line in result["next"])]),
        ]
    )
