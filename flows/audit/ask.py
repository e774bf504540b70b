"""Answer a question of an auditor: read what it needs, say whether that can be trusted, record it.

The document has the schema ``clr.answer/1``: {schema, question, asked, ledger: {intact, entries,
head, problems}, sentence, rows, notes}. What the ledger tells counts only where its chain holds,
so the chain is walked for each answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.audit.chain import format_time
from clr.errors import IntegrityBroken, UsageError
from flows.audit import questions
from flows.audit.chosen import refuse_future
from flows.audit.exported import asking, record_export
from flows.audit.gather import Told, named, read_ledger
from flows.audit.questions import Answered, Row, Span

if TYPE_CHECKING:
    from flows.session import Session

SCHEMA = "clr.answer/1"
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


def ask(session: Session, kind: str, about: str, span: Span) -> dict[str, Any]:
    """Return the answer to a question; the ledger then tells that it was given.

    Args:
        session: the workspace.
        kind: ``acts``, ``reviews``, ``refusals``, ``at``, ``image``, ``data``, ``backbone``,
            ``between`` or ``request``.
        about: a moment, a digest or file, a name, two releases as ``1..2``, or a request id;
            empty for the first three.
        span: the time that is asked about, for the first three.

    Raises:
        UsageError: nothing of that name or number is known.
        ServiceUnavailable: registry or ledger cannot be reached.
        IntegrityBroken: the ledger, or a release that is asked about, cannot be read.
    """
    told = read_ledger(session)
    answered = _ANSWERS[kind](session, told, about, span)
    question = {"kind": kind, "about": about, "from": span.begin or None, "to": span.end or None}
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "question": question,
        "asked": asking(session),
        "ledger": {
            "intact": not told.problems,
            "entries": len(told.entries),
            "head": told.head.hash if told.head else None,
            "problems": [one.as_dict() for one in told.problems],
        },
        "sentence": answered.sentence,
        "rows": list(answered.rows),
        "notes": list(answered.notes),
    }
    subject = f"{kind} {about}" if about else f"{kind} {span}"
    entry, trouble = record_export(session, subject, subject, "answer", document)
    document["asked"]["entry"] = entry
    document["notes"] += [trouble] if trouble else []
    return document


def _of_span(ask_ledger: Callable[[Told, Span], Answered]) -> Any:
    return lambda session, told, about, span: ask_ledger(told, span)


def _at(session: Session, told: Told, about: str, span: Span) -> Answered:
    moment = format_time(about)
    refuse_future(moment)
    return questions.serving(told, moment, _named(session))


def _image(session: Session, told: Told, about: str, span: Span) -> Answered:
    from clr.core.files import sha256_file

    written = _SHA256.fullmatch(about.lower())
    if not written and not Path(about).is_file():
        raise UsageError(
            f"{about!r} is neither a file nor the sha256 of one.",
            fix="Give the image itself, or its sha256 (64 hex digits).",
        )
    sha256 = f"sha256:{written[1]}" if written else sha256_file(Path(about))
    images = ((one, _images(session, told, one)) for one in sorted(told.records.registered))
    return questions.holding_image(told, sha256, images, _named(session))


def _images(session: Session, told: Told, subject: str) -> Iterable[Row] | None:
    """Return the images of a version as its run lists them; None where that is gone or changed."""
    from clr.data.manifest import Manifest
    from clr.registry.fetch import fetch
    from clr.registry.local import scratch
    from flows.audit.files import MANIFEST_FILE

    run = str(told.records.registered[subject].payload.get("run", ""))
    try:
        with scratch(session.registry) as folder:
            text = fetch(session.registry, run, MANIFEST_FILE, folder).read_text(encoding="utf-8")
        manifest = Manifest.from_json(text)
    except (IntegrityBroken, OSError, UnicodeDecodeError):
        return None
    return [
        {"path": row.path, "sha256": row.sha256, "split": row.split, "class": row.label}
        for row in manifest.rows
    ]


def _data(session: Session, told: Told, about: str, span: Span) -> Answered:
    return _made_of(session, told, "data", about)


def _backbone(session: Session, told: Told, about: str, span: Span) -> Answered:
    if re.fullmatch(r"(?:sha256:)?[0-9a-fA-F]{8,64}", about):
        return _made_of(session, told, "backbone", about)
    digests, nameless = _backbones(session, told, about)
    gone = [f"{one}: no run that names this backbone is left" for one in nameless]
    if not digests:
        raise UsageError(
            " ".join([f"No adapter was registered over a backbone {about!r}.", *gone]),
            fix="Give its whole name, as `clr audit TASK` shows it, or its digest.",
        )
    answered = questions.made_of(told, "backbone", digests, _named(session))
    return replace(answered, notes=[*answered.notes, *gone])


def _backbones(session: Session, told: Told, name: str) -> tuple[list[str], list[str]]:
    """Return the digests that a run gave this name, and those whose every run is gone.

    Runs may call the same weights by several names, a file's say, so all are asked.
    """
    from clr.registry.lineage import read_run

    found: set[str] = set()
    known: set[str] = set()
    payloads = [one.payload for one in told.records.registered.values()]
    runs = {(str(one.get("backbone", "")), str(one.get("run", ""))) for one in payloads}
    for digest, run in sorted(runs):
        facts = None if digest in found else read_run(session.registry, run)
        if facts is None:
            continue
        known.add(digest)
        if facts.params.get("backbone") == name:
            found.add(digest)
    return sorted(found), sorted({digest for digest, _ in runs if digest} - known)


def _made_of(session: Session, told: Told, what: str, about: str) -> Answered:
    known = [str(one.payload.get(what, "")) for one in told.records.registered.values()]
    digests = questions.matching(known, about)
    if not digests:
        raise UsageError(
            f"No adapter was registered with the {what} {about}.",
            fix=f"`clr audit TASK` shows the {what} of an adapter.",
        )
    return questions.made_of(told, what, digests, _named(session))


def _between(session: Session, told: Told, about: str, span: Span) -> Answered:
    from clr.registry.releases import get_release

    found = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", about)
    if not found:
        raise UsageError(f"{about!r} are no two releases.", fix="Write 3..4.")
    before, after = (get_release(session.registry, int(one)) for one in found.groups())
    return questions.between(told, before, after)


def _request(session: Session, told: Told, about: str, span: Span) -> Answered:
    from flows.audit.requests import requested

    return requested(session, told, about, _named(session))


def _named(session: Session) -> Callable[[str], Any]:
    return lambda task: named(session, task)


_ANSWERS: dict[str, Callable[[Session, Told, str, Span], Answered]] = {
    "acts": _of_span(questions.acts),
    "reviews": _of_span(questions.reviews),
    "refusals": _of_span(questions.refusals),
    "at": _at,
    "image": _image,
    "data": _data,
    "backbone": _backbone,
    "between": _between,
    "request": _request,
}


def span(begin: str | None, end: str | None) -> Span:
    """Return a time of whole days or of moments; a day that ends it is part of it.

    Raises:
        UsageError: neither a day (2026-03-01) nor a moment with a time zone, too late for any
            calendar, or it ends before it begins.
    """
    found = Span(_moment(begin, 0), _moment(end, 1))
    if found.begin and found.end and found.end <= found.begin:
        raise UsageError(f"{end} is not after {begin}.", fix="Swap --from and --to.")
    return found


def _moment(text: str | None, days: int) -> str:
    if not text:
        return ""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        try:
            day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError as error:
            raise UsageError(f"There is no day {text}.", fix="Write 2026-03-01.") from error
        try:
            return format_time(day + timedelta(days=days))
        except OverflowError as error:
            raise UsageError(f"There is no day after {text}.", fix="Leave --to out.") from error
    return format_time(text)
