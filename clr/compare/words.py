"""Figures of a comparison as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clr.gate.checks import percent, signed

Document = Mapping[str, Any]
OURS = "clr-reduced"
_KINDS = {"kernels": "kernels", "batch_norm": "batch norm", "head": "head", "other": "other"}


def interval(estimate: Mapping[str, Any] | None) -> str:
    """Return ``low … high`` of an accuracy in percent, cut at 0 and 100; empty without one."""
    if not estimate or estimate["low"] is None:
        return ""
    return f"{100 * max(0.0, estimate['low']):.1f} … {100 * min(1.0, estimate['high']):.1f}"


def gained(estimate: Mapping[str, Any] | None) -> str:
    """Return ``low … high`` of a difference in points; empty where there is none."""
    if not estimate or estimate["low"] is None:
        return ""
    return f"{signed(estimate['low'])} … {signed(estimate['high'])}"


def size(count: float) -> str:
    """Return a number of bytes as people write it."""
    value, units = float(count), ["B", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    digits = 0 if units[0] == "B" or value >= 100 else 1
    return f"{value:.{digits}f} {units[0]}"


def number(value: float) -> str:
    """Return a count with separators."""
    return f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """Return a duration in seconds."""
    if value is None:
        return "–"
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def leader(document: Document) -> Document | None:
    """Return the method that the headline is about: CLR reduced, or the most accurate one."""
    there: list[Document] = [one for one in document["methods"] if one["seeds"]]
    best = sorted(there, key=lambda one: (one["name"] != OURS, -one["average"]["mean"]))
    return best[0] if best else None


def headline(document: Document) -> str:
    """Return the comparison in one sentence."""
    one = leader(document)
    if one is None:
        return "No method is finished on all tasks yet."
    text = (
        f"{one['title']} labels {percent(one['average']['mean'])} of the test images right, on "
        f"average over {count(len(document['tasks']), 'task')} and "
        f"{count(len(one['seeds']), 'seed')}"
    )
    against = one["against"].get("probe")
    if against:
        gain, ends = against["overall"], gained(against["overall"])
        more = "more" if gain["mean"] >= 0 else "less"
        text += (
            f": {abs(100 * gain['mean']):.1f} points {more} than a linear probe"
            f"{f' (95 % interval over tasks {ends})' if ends else ''}"
        )
    share = one["cost"]["share"]
    added = share["kernels"] + share["batch_norm"] + share["other"]
    return (
        f"{text}, for {percent(added, 2)} of added parameters and "
        f"{size(one['cost']['mean']['bytes'])} a task."
    )


def budget(document: Document) -> str:
    """Return what every method could spend on one task."""
    spent = document["budget"]
    if spent["seconds"] is not None:
        return f"{spent['seconds']:g} s of wall time a task"
    return f"{count(spent['epochs'], 'epoch')} a task"


def retained(gate: Mapping[str, Any]) -> tuple[str, str]:
    """Return the gate's verdict on retention, and how it came to it, in words."""
    verdict, told = gate["verdict"], gate["retention"]
    offers = sum(told.values())
    if not verdict:
        return "", "one task only"
    if verdict == "pass":
        proofs = ", ".join(f"{how}: {n}" for how, n in sorted(gate["how"].items()))
        return "pass", f"all {count(offers, 'offer')} ({proofs})"
    refused = offers - told.get("pass", 0)
    return verdict, f"{refused} of {count(offers, 'offer')} refused"


def few_images(document: Document) -> str:
    """Say whether a method with few images falls below the probe; empty without curves."""
    curves = document["curves"]
    if not curves:
        return ""
    compared = [one for one in curves["points"] if one["gain"]]
    if not compared:
        return ""
    amounts = sorted({one["per_class"] for one in compared})
    below = curves["below_probe"]
    where = f"{', '.join(map(str, amounts))} images a class"
    if not below:
        return (
            f"At {where}, no method is below the linear probe by more than the 95 % interval of "
            "the paired difference over seeds, on any task."
        )
    named = "; ".join(
        f"{one['method']} on {one['task']} with {one['per_class']} ({gained(one)} points)"
        for one in below
    )
    return f"Below the linear probe by more than the 95 % interval over seeds: {named}."


def count(value: int, thing: str) -> str:
    """Return e.g. ``1 task`` or ``4 tasks``."""
    return f"{value:,} {thing}{'' if value == 1 else 's'}"


def kinds(cost: Mapping[str, float]) -> str:
    """Return parameters by kind, those that there are."""
    found = [f"{_KINDS[name]} {number(cost[name])}" for name in _KINDS if cost[name]]
    return ", ".join(found) or "none"


def lines(document: Document) -> list[str]:
    """Return a comparison for a terminal: one line a method, the most accurate first."""
    there = sorted(
        (one for one in document["methods"] if one["seeds"]),
        key=lambda one: -one["average"]["mean"],
    )
    head = ("method", "accuracy", "95 %", "forgotten", "bytes", "seconds", "gate")
    rows = [head]
    for one in there:
        forgotten = one["forgetting"]
        rows.append(
            (
                one["name"],
                percent(one["average"]["mean"]),
                interval(one["average"]),
                "–" if forgotten is None else f"{100 * forgotten['mean']:.1f}",
                size(one["cost"]["mean"]["bytes"]),
                seconds(one["seconds"]["mean"]),
                retained(one["gate"])[0] or "–",
            )
        )
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    table = [
        "  ".join(
            cell.ljust(width) if at in (0, len(head) - 1) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    units = document["units"]
    rest = units["planned"] - units["finished"]
    more = [f"{count(rest, 'unit')} of work not finished."] if rest else []
    few = few_images(document)
    return [*table, "", headline(document), *([few] if few else []), *more]
