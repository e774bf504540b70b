"""The answer to one audit, schema ``clr.audit/1``: its published form, and the chain as a graph.

Every form of an export is made of this document alone (pure functions of it), so all of them say
the same. `links` and `arrows` are the order in which the chain is told, drawn and judged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Any

from clr.errors import UsageError

SCHEMA = "clr.audit/1"
SCHEMA_FILE = "schema/audit-1.json"

Document = dict[str, Any]

LINKS = {
    "images": "Image files",
    "data": "Data",
    "validation": "Validation",
    "code": "Code",
    "environment": "Environment",
    "backbone": "Backbone",
    "training": "Training run",
    "adapter": "Adapter",
    "gate": "Retention gate",
    "registration": "Registration",
    "reviews": "Review",
    "service": "Release",
    "replacement": "Replaced by",
    "ledger": "Ledger",
}
"""Links of the chain, in order, and how people call them."""


@dataclass(frozen=True)
class Node:
    """One thing in the chain.

    Attributes:
        id: unique in the document; the link's name where there is one such thing.
        link: the link it is part of, see `LINKS`.
        title: what it is.
        fact: what to know of it first, in a few words; may be empty.
        digest: of its bytes; empty where it has none or it was not recorded.
        broken: whether the document names a problem of this link.
    """

    id: str
    link: str
    title: str
    fact: str
    digest: str
    broken: bool


@cache
def schema() -> Mapping[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the document."""
    text = resources.files("clr.audit").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def check(document: Any) -> None:
    """See that a document read from somewhere has the published form.

    Raises:
        UsageError: it has not; the first place that differs is named.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    wrong = best_match(Draft202012Validator(schema()).iter_errors(document))
    if wrong is not None:
        raise UsageError(
            f"Not a document {SCHEMA}: {wrong.json_path}: {wrong.message[:300]}",
            fix="Export it anew: clr audit TASK --format json.",
        )


def nodes(document: Mapping[str, Any]) -> tuple[Node, ...]:
    """Return the things of the chain, in order; reviews and releases one by one.

    Of releases that followed each other without a change of the task, the first stands for all.
    """
    broken = {one["link"] for one in document["verdict"]["problems"]}
    found = [*_origin(document), *_making(document), *_life(document)]
    return tuple(
        Node(name, link, title, fact, digest or "", link in broken)
        for name, link, title, fact, digest in found
    )


def arrows(document: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return what came from what, as pairs (from, to) of ids of `nodes`."""
    by_link: dict[str, list[str]] = {}
    for one in nodes(document):
        by_link.setdefault(one.link, []).append(one.id)
    served = by_link.get("service", [])
    before_service = by_link.get("reviews") or ["registration"]
    pairs = [
        *(("images", "data"), ("data", "validation"), ("validation", "training")),
        *(("code", "training"), ("environment", "training"), ("backbone", "training")),
        *(("training", "adapter"), ("adapter", "gate"), ("gate", "registration")),
        *(("registration", one) for one in by_link.get("reviews", [])),
        *((one, served[0]) for one in before_service if served),
        *pairwise(served),
        *((served[-1], one) for one in by_link.get("replacement", []) if served),
    ]
    return tuple(pairs)


_Row = tuple[str, str, str, str, str | None]


def _origin(document: Mapping[str, Any]) -> list[_Row]:
    data, checked = document["data"], document["validation"]
    counted = data["train"] is not None and data["test"] is not None
    images = f"{data['train']} to train, {data['test']} to test" if counted else ""
    same = {True: "same bytes today", False: "OTHER BYTES TODAY", None: "not on this machine"}
    rules = "" if checked["expectations"] is None else f"{checked['expectations']} rules"
    if checked["warnings"]:
        rules += f", {len(checked['warnings'])} warnings"
    return [
        ("images", "images", LINKS["images"], images, data["manifest"]),
        ("data", "data", LINKS["data"], same[data["same_bytes"]], data["digest"]),
        ("validation", "validation", LINKS["validation"], rules, checked["digest"]),
    ]


def _making(document: Mapping[str, Any]) -> list[_Row]:
    environment, run, gate = document["environment"], document["training"], document["gate"]
    backbone = document["backbone"]
    python = f"Python {environment['python']}" if environment["python"] else ""
    torch = f"torch {environment['torch']}" if environment["torch"] else ""
    return [
        ("code", "code", LINKS["code"], "", document["code"]["digest"]),
        (
            *("environment", "environment", LINKS["environment"]),
            ", ".join(filter(None, (python, torch))),
            environment["digest"],
        ),
        ("backbone", "backbone", LINKS["backbone"], backbone["name"] or "", backbone["digest"]),
        ("training", "training", LINKS["training"], run["run_id"] or "", None),
        (
            *("adapter", "adapter", LINKS["adapter"]),
            document["subject"],
            document["adapter"]["digest"],
        ),
        ("gate", "gate", LINKS["gate"], gate["verdict"] or "", gate["digest"]),
    ]


def _life(document: Mapping[str, Any]) -> list[_Row]:
    registered = document["registration"]
    rows: list[_Row] = [
        (
            *("registration", "registration", LINKS["registration"]),
            f"{registered['actor']}, {day(registered['time'])}" if registered["actor"] else "",
            None,
        )
    ]
    for one in document["reviews"]:
        fact = f"{one['decision']} by {one['reviewer']}, {day(one['time'])}"
        rows.append((f"review-{one['entry']}", "reviews", LINKS["reviews"], fact, None))
    for spell in periods(document):
        first, end = spell[0], spell[-1]["to"]
        fact = f"from {day(first['from'])} {f'to {day(end)}' if end else 'in force'}"
        rows.append((f"release-{first['entry']}", "service", named(spell), fact, first["digest"]))
    after = document["replaced_by"]
    if after:
        version = f"version {after['version']}" if after["version"] else "nothing"
        fact = f"{version}, {after['kind']}, {day(after['time'])}"
        rows.append(("replacement", "replacement", LINKS["replacement"], fact, None))
    return rows


def periods(document: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the items of ``service``, in groups that followed each other without a break."""
    found: list[list[dict[str, Any]]] = []
    for one in document["service"]:
        if found and found[-1][-1]["to"] == one["from"]:
            found[-1].append(one)
        else:
            found.append([one])
    return found


def named(spell: list[dict[str, Any]]) -> str:
    """Return how people call the releases of one of `periods`: one, a few, first and last."""
    numbers = [str(one["release"]) for one in spell]
    if len(numbers) == 1:
        return f"Release {numbers[0]}"
    if len(numbers) < 5:
        return f"Releases {', '.join(numbers)}"
    return f"{len(numbers)} releases, {numbers[0]} … {numbers[-1]}"


def day(time: str | None) -> str:
    """Return a time of the document as people read it: date, hours and minutes, UTC."""
    return "?" if time is None else f"{time[:10]} {time[11:16]}"
