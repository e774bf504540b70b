"""An audit as one page for a person, ``audit.html``: everything is on it, nothing is loaded.

No scripts; what the page cannot be sure of (names, titles, reasons, file names) is escaped by the
template engine, and again for the style sheet where the printed head shows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from clr.audit.chain import canonical
from clr.audit.document import LINKS, Document, named, periods
from clr.audit.evidence import DIGEST, Evidence, audited, every_image, evidence, registry
from clr.audit.graph import NARROW, WIDE, svg
from clr.core.files import sha256_bytes
from clr.gate.style import CSS
from clr.pages import templates

if TYPE_CHECKING:
    from jinja2 import Environment

LISTED_IMAGES = 2_000
"""Images that are listed at most; the JSON form has all of them."""

LISTED_ROWS = 12
"""Rows of other tables that are shown unasked; more are folded up, and printed all the same."""

_LONG_HEX = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,52}\b")


def render(document: Document) -> str:
    """Return the page of an audit's answer, complete in one file.

    Args:
        document: of schema ``clr.audit/1``.
    """
    known = evidence(document)
    verdict = document["verdict"]
    broken = list(dict.fromkeys(one["link"] for one in verdict["problems"]))
    return (
        _templates()
        .get_template("audit.html")
        .render(
            **document,
            answer=_answer_digest(document),
            broken=broken,
            commands={"all": audited(document), "images": every_image(document)},
            css=CSS,
            digests=list(known.values()),
            digest=_linker(known),
            every_link=LINKS,
            graphs=(svg(document, WIDE), svg(document, NARROW)),
            linked=_linker(known, within=True),
            listed=_listed(document),
            rows=LISTED_ROWS,
            recompute={one.digest: one.command for one in known.values()},
            registry_command=registry(document),
            line=_line(document),
        )
    )


@cache
def _templates() -> Environment:
    return templates(
        "clr.audit",
        css=_css,
        hashed=_hashed,
        known=_known,
        lasted=_lasted,
        number=_number,
        shown=_shown,
        pretty=lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        short=lambda text: _LONG_HEX.sub(r"\1…", text),
        when=_when,
    )


def _answer_digest(document: Mapping[str, Any]) -> str:
    """Return the sha256 that the ledger's entry about this answer names; empty without one."""
    if document["asked"]["entry"] is None:
        return ""
    before = {**document, "asked": {**document["asked"], "entry": None}}
    return sha256_bytes(canonical(before, "The document").encode())


def _linker(known: Mapping[str, Evidence], within: bool = False) -> Callable[[Any], Markup]:
    """Return a function that makes digests links to what they are of.

    Args:
        known: by digest.
        within: for digests in other words, instead of a digest alone.
    """

    def one(digest: str) -> Markup:
        found = known.get(digest)
        code = Markup('<code class="digest">{}</code>').format(digest)
        if found is None:
            return code
        return Markup('<a href="#{}" title="{}">{}</a>').format(found.anchor, found.what, code)

    def words(text: Any) -> Markup:
        parts, end = [], 0
        for match in DIGEST.finditer(str(text)):
            parts += [escape(str(text)[end : match.start()]), one(match[0])]
            end = match.end()
        return Markup("").join([*parts, escape(str(text)[end:])])

    return words if within else lambda digest: one(digest) if digest else Markup("not recorded")


def _listed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the images to list, those with a problem first, how many there are, and places.

    ``places`` are the anchors of images by how a problem calls them.
    """
    wrong = {one["subject"] for one in document["verdict"]["problems"]}
    rows = [
        {**one, "subject": f"data/{document['task']}/{one['path']}"}
        for one in document["data"]["images"] or ()
    ]
    rows.sort(key=lambda one: one["subject"] not in wrong)
    shown = rows[:LISTED_IMAGES]
    places = {one["subject"]: f"image-{place}" for place, one in enumerate(shown, start=1)}
    return {"images": shown, "count": len(rows), "places": places, "wrong": wrong}


def _line(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the times of service as shares of the time from the registration to the answer."""
    spells = periods(document)
    begin = document["registration"]["time"] or (spells[0][0]["from"] if spells else None)
    if not spells or begin is None:
        return None
    end = document["asked"]["time"]
    begin = min(begin, spells[0][0]["from"])
    whole = max(_seconds(begin, end), 1e-6)
    bars = []
    for spell in spells:
        start, stop = spell[0]["from"], spell[-1]["to"] or end
        bars.append(
            {
                "name": named(spell),
                "anchor": f"release-{spell[0]['entry']}",
                "from": start,
                "to": spell[-1]["to"],
                "left": round(100 * _seconds(begin, start) / whole, 2),
                "width": round(100 * _seconds(start, stop) / whole, 2),
            }
        )
    return {"begin": begin, "end": end, "bars": bars}


def _seconds(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def _lasted(period: Mapping[str, Any], now: str) -> str:
    """Return how long something was in force, in the two largest units."""
    left = int(_seconds(period["from"], period["to"] or now))
    days, rest = divmod(left, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    parts = zip((days, hours, minutes, seconds), ("d", "h", "min", "s"), strict=True)
    told = [f"{value} {unit}" for value, unit in parts if value]
    return " ".join(told[:2]) or "under 1 s"


def _when(time: str | None) -> str:
    """Return a time as people read it, to the second; the ledger's entries have all of it."""
    return "not recorded" if not time else f"{time[:10]} {time[11:19]} UTC"


def _known(value: object) -> str:
    return "not recorded" if value is None or value == "" else str(value)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value + 0.0:.6g}"


def _shown(value: Any) -> str:
    """Return one value of a recipe or of what was measured, as JSON would have it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _hashed(entry: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the fields of a ledger entry that its hash covers in another form than shown here.

    Names and people's words are stored as refs, which can be erased without breaking the chain.
    """
    found = dict(entry.get("stored") or {})
    if found.get("payload") == canonical(entry["payload"], "The payload"):
        del found["payload"]
    return {name: value for name, value in found.items() if value != entry[name]}


def _css(text: str) -> Markup:
    """Return text as the inside of a string of a style sheet, whatever is in it."""
    escaped = re.sub(r"[^A-Za-z0-9 :/.-]", lambda sign: f"\\{ord(sign[0]):x} ", str(text))
    return Markup(escaped)  # noqa: S704 - no sign that means anything to HTML or CSS is left
