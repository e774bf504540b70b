"""The chain of one version for a terminal: the verdict, then each link with its digest."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

from clr.audit.document import Document, day, named, periods

SHORTEST = 12
"""Hex digits of a digest that are shown at least; more where two would look the same."""

_DIGEST = re.compile(r"(sha256|md5):([0-9a-f]{32,64})((?:\.dir)?)")
Line = tuple[str, str, str]
"""Link, what is to be known of it, its digest."""


def render(document: Document) -> str:
    """Return the document as text; the full digests are in its JSON form."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    short = shortener(_digests(document))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    broken = {one["link"] for one in document["verdict"]["problems"]}
    for link, fact, digest in _lines(document):
        mark = "✗" if _LINK_OF.get(link, link) in broken else " "
        table.add_row(f"{mark} {escape(link)}", escape(short(fact)), short(digest))
    screen = io.StringIO()
    width = max(100, shutil.get_terminal_size((110, 24)).columns)
    Console(file=screen, width=width, highlight=False).print(table)
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    return "\n".join([*_head(document, short), "", *lines, *_tail(document, short)])


_LINK_OF = {
    "run": "training",
    "review": "reviews",
    "released": "service",
    "replaced": "replacement",
    "registered": "registration",
}


def shortener(digests: Iterable[str]) -> Any:
    """Return a function that shortens the digests in a text, so that none looks like another."""
    known = {found[2] for one in digests for found in _DIGEST.finditer(one)}
    length = SHORTEST
    while len({one[:length] for one in known}) < len(known):
        length += 1

    def short(text: str) -> str:
        return _DIGEST.sub(lambda found: f"{found[1]}:{found[2][:length]}…", text)

    return short


def _digests(document: Document) -> Iterator[str]:
    for link in ("data", "validation", "code", "environment", "backbone", "adapter", "gate"):
        yield from (one for one in document[link].values() if isinstance(one, str))
    yield from (str(one["digest"]) for one in document["service"])
    yield from (one["message"] for one in document["verdict"]["problems"])


def _head(document: Document, short: Any) -> Iterator[str]:
    verdict = document["verdict"]
    yield verdict["sentence"]
    for one in verdict["problems"]:
        yield f"  BROKEN {one['link']}: {short(one['message'])}"
        yield f"         {one['fix']}"
    title = document["title"] or document["task"]
    asked = document["asked"]
    when = f", which answered at {asked['at']}" if asked["at"] else ""
    yield ""
    yield f"{document['subject']}  {title}{when}"


def _lines(document: Document) -> Iterator[Line]:
    yield from _origin(document)
    yield from _making(document)
    yield from _life(document)


def _origin(document: Document) -> Iterator[Line]:
    data, checked = document["data"], document["validation"]
    same = {
        True: "hashed now: the same bytes",
        False: "hashed now: OTHER BYTES",
        None: "not on this machine",
    }
    classes = data["classes"] or []
    images = f"{_known(data['train'])} to train, {_known(data['test'])} to test"
    named = ", ".join(classes[:6]) + (" …" if len(classes) > 6 else "")
    yield "images", f"{images}; {len(classes)} classes: {named}", data["manifest"] or "–"
    commit = data["commit"] or "none"
    dirty = ", with changes" if data["dirty"] else ""
    yield "data", f"{same[data['same_bytes']]}; git commit {commit[:12]}{dirty}", data["digest"]
    warnings = checked["warnings"] or []
    text = "".join(f"; warning: {one}" for one in warnings)
    rules = f"{_known(checked['expectations'])} rules, {len(warnings)} warnings{text}"
    yield "validation", rules, checked["digest"] or "–"


def _making(document: Document) -> Iterator[Line]:
    environment, backbone = document["environment"], document["backbone"]
    run, adapter, gate = document["training"], document["adapter"], document["gate"]
    yield "code", "", document["code"]["digest"] or "–"
    named = [f"{one} {environment[one]}" for one in ("python", "torch", "timm") if environment[one]]
    yield "environment", ", ".join(named), environment["digest"] or "–"
    about = ", ".join(filter(None, (backbone["source"], backbone["licence"])))
    yield (
        "backbone",
        f"{_known(backbone['name'])} ({about or 'source unknown'})",
        backbone["digest"],
    )
    seconds = (run["seconds"] or {}).get("train")
    lasted = "" if seconds is None else f", {seconds:.0f} s"
    on = ", ".join(filter(None, (run["device"], run["hardware"])))
    yield "run", f"{_known(run['run_id'])}, {on}, seed {_known(run['seed'])}{lasted}", ""
    size = "" if adapter["bytes"] is None else f"{adapter['bytes']:,} bytes"
    there = "" if adapter["present"] else ", MISSING"
    yield "adapter", f"{size}, {_known(adapter['variant'])}{there}", adapter["digest"]
    yield "gate", _known(gate["sentence"] or gate["verdict"]), gate["digest"] or "–"
    for one in gate["retention"] or ():
        yield "", f"{one['task']}: {one['verdict']}, {one['how']}", one["evidence"]


def _life(document: Document) -> Iterator[Line]:
    registered, after = document["registration"], document["replaced_by"]
    who = f"{_known(registered['actor'])} ({_known(registered['authentication'])})"
    yield "registered", f"{day(registered['time'])} by {who}, {_known(registered['verdict'])}", ""
    for one in document["reviews"]:
        words = f": “{one['reason']}”" if one["reason"] else ""
        who = f"{one['reviewer']} ({one['authentication']})"
        yield "review", f"{day(one['time'])} {one['decision']} by {who}{words}", ""
    for spell in periods(document):
        first, end = spell[0], spell[-1]["to"]
        when = f"{day(first['from'])} to {day(end) if end else 'now'}"
        yield "released", f"{when}: {named(spell)}", first["digest"]
    if not document["service"]:
        yield "released", "never served", ""
    if after:
        by = f"version {after['version']}" if after["version"] else "nothing"
        reason = f": “{after['reason']}”" if after["reason"] else ""
        yield "replaced", f"{day(after['time'])} by {by}, a {after['kind']}{reason}", ""
    ledger = document["ledger"]
    state = "chain and signatures hold" if ledger["intact"] else "THE CHAIN IS BROKEN"
    yield "ledger", f"{ledger['count']} entries, {state}", (ledger["head"] or {}).get("hash", "–")


def _known(value: object) -> str:
    return "unknown" if value is None or value == "" else str(value)


def _tail(document: Document, short: Any) -> Iterator[str]:
    notes = document["verdict"]["notes"]
    if notes:
        yield ""
    for one in notes:
        yield f"note   {one['subject']}: {short(one['message'])}"
    entry = document["asked"]["entry"]
    if entry is not None:
        yield f"This export is entry {entry} of the ledger."
