"""What an auditor asks besides the lineage of one adapter; most of it the ledger alone tells.

Each question is a function of the ledger, read once, that returns rows for a table; every row
names the entry it rests on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clr.errors import UsageError
from flows.audit import history
from flows.recorded import APPROVED, REJECTED

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.registry.release import Release
    from flows.audit.gather import Told
    from flows.audit.history import Named

Row = dict[str, Any]
REGISTERED = "adapter.registered"
REFUSALS: Mapping[str, str] = {
    "refused": "request",
    "order.refused": "order",
    "promotion.refused": "promotion",
    "data.refused": "data",
    REJECTED: "review",
}
"""Acts that say that something was refused, and what it was."""

_VERSION = ("entry", "registered", "by", "verdict", "approved_by", "adapter", "data")
_WHY = ("sentence", "message", "reason")


@dataclass(frozen=True)
class Answered:
    """The answer to a question.

    Attributes:
        rows: all with the same fields, in order.
        sentence: what they come to.
        notes: what could not be looked into, and what is worth knowing.
    """

    rows: Sequence[Row]
    sentence: str
    notes: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Span:
    """A time from `begin` to before `end`, in the ledger's own form; empty: unbounded."""

    begin: str = ""
    end: str = ""

    def of(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the entries of this time."""
        return (
            one
            for one in entries
            if self.begin <= one.time and (not self.end or one.time < self.end)
        )

    def __str__(self) -> str:
        words = [f"from {self.begin}"] if self.begin else []
        return " ".join([*words, f"before {self.end}"] if self.end else words) or "ever"


def acts(told: Told, span: Span) -> Answered:
    """Return everything that was recorded in a time."""
    rows = [
        {
            "entry": one.seq,
            "time": one.time,
            "action": one.action,
            "subject": one.subject,
            "by": one.actor,
            "authentication": one.authentication,
            "told": _why(one),
        }
        for one in span.of(told.entries)
    ]
    people = {row["by"] for row in rows}
    return Answered(rows, f"{_count(rows, 'act')} of {len(people)} people or services, {span}.")


def reviews(told: Told, span: Span) -> Answered:
    """Return who approved or rejected what, and with which words."""
    rows = [
        {
            "entry": one.seq,
            "time": one.time,
            "decision": "approved" if one.action == APPROVED else "rejected",
            "subject": one.subject,
            "by": one.actor,
            "authentication": one.authentication,
            "reason": _reason(told.entries, one),
            "adapter": one.payload.get("adapter", ""),
        }
        for one in span.of(told.entries)
        if one.action in (APPROVED, REJECTED)
    ]
    said = sum(row["decision"] == "approved" for row in rows)
    return Answered(rows, f"{said} approved, {len(rows) - said} rejected, {span}.")


def _reason(entries: Sequence[Entry], decision: Entry) -> str:
    """Return a reviewer's words: given with the decision, or put in its own tag before or after.

    The last words before the decision stood when it was made. Only without any are those its own
    that came after it and before the same person decided again.
    """
    if decision.payload.get("reason"):
        return str(decision.payload["reason"])
    before = after = ""
    for one in entries:
        if (one.subject, one.actor) != (decision.subject, decision.actor):
            continue
        if one.action == "review.reason" and one.seq < decision.seq:
            before = str(one.payload.get("value", ""))
        elif one.action == "review.reason":
            after = after or str(one.payload.get("value", ""))
        elif one.action in (APPROVED, REJECTED) and one.seq > decision.seq:
            break
    return before or after


def refusals(told: Told, span: Span) -> Answered:
    """Return what was refused, by whom or what, and why."""
    rows = [
        {
            "entry": one.seq,
            "time": one.time,
            "refused": REFUSALS.get(one.action, "adapter"),
            "subject": one.subject,
            "by": one.actor,
            "why": _why(one) or str(one.payload.get("verdict", "")),
        }
        for one in span.of(told.entries)
        if one.action in REFUSALS
        or (one.action == REGISTERED and one.payload.get("verdict", "passed") != "passed")
    ]
    kinds = Counter(str(row["refused"]) for row in rows)
    named = ", ".join(f"{count} {one}" for one, count in sorted(kinds.items()))
    return Answered(rows, f"{_count(rows, 'refusal')}{f' ({named})' if rows else ''}, {span}.")


def _why(entry: Entry) -> str:
    return next((str(entry.payload[one]) for one in _WHY if entry.payload.get(one)), "")


def serving(told: Told, moment: str, named: Callable[[str], Named]) -> Answered:
    """Return which version of each task answered at a moment.

    Args:
        told: what the ledger tells.
        moment: in the ledger's own form.
        named: see `made_of`.
    """
    rows: list[Row] = []
    release, notes = None, list[str]()
    for task in _tasks(told):
        times = history.periods(told.records.moves, task, named(task))
        period = history.at(times, moment)
        release, notes = period or release, list(history.set_back(times))
        if period is None or period.version is None:
            continue
        rows.append(_version(told, f"clr-{task}/{period.version}") | {"since": period.begin})
    if release is None:
        return Answered(rows, f"No release served at {moment}.")
    return Answered(
        rows,
        f"Release {release.release} ({release.digest}) served {_count(rows, 'task')} then.",
        notes,
    )


def made_of(
    told: Told, field_name: str, digests: Sequence[str], named: Callable[[str], Named]
) -> Answered:
    """Return the versions whose registration names one of these digests, served or not.

    Args:
        told: what the ledger tells.
        field_name: ``data``, ``backbone`` or ``adapter``.
        digests: what is looked for.
        named: reader of a task's version in releases that the ledger does not tell of.
    """
    found = [
        one
        for one in told.records.registered.values()
        if one.payload.get(field_name) in set(digests)
    ]
    rows = [served(told, one.subject, named) for one in sorted(found, key=lambda one: one.seq)]
    return Answered(rows, _of_versions(rows))


def _of_versions(rows: Sequence[Row]) -> str:
    live = [row["subject"] for row in rows if row["serves"]]
    return f"{_count(rows, 'version')}; serving now: {', '.join(live) or 'none'}."


def holding_image(
    told: Told,
    sha256: str,
    images: Iterable[tuple[str, Iterable[Row] | None]],
    named: Callable[[str], Named],
) -> Answered:
    """Return the versions that were trained or tested with an image.

    Args:
        told: what the ledger tells.
        sha256: of the image file, ``sha256:…``.
        images: (version, {path, sha256, split, class} of its images; None: cannot be told).
        named: see `made_of`.
    """
    rows: list[Row] = []
    unknown: list[str] = []
    for subject, there in images:
        if there is None:
            unknown.append(subject)
            continue
        uses = [one for one in there if one["sha256"] == sha256]
        rows += [
            served(told, subject, named) | {key: one[key] for key in ("split", "class", "path")}
            for one in uses
        ]
    notes = [
        f"{one}: the list of its images is gone, so this image may be in it" for one in unknown
    ]
    return Answered(rows, _of_versions(rows), notes)


def between(told: Told, before: Release, after: Release) -> Answered:
    """Return what changed from one release to another."""
    rows: list[Row] = []
    for task in sorted({*before.tasks, *after.tasks}):
        was, now = before.tasks.get(task), after.tasks.get(task)
        if was == now:
            continue
        known = _version(told, f"clr-{task}/{now.version}") if now else {}
        rows.append(
            {
                "task": task,
                "change": "joined" if was is None else "left" if now is None else "replaced",
                "before": was.version if was else None,
                "after": now.version if now else None,
                "adapter": now.adapter_digest if now else "",
                "data": now.data_digest if now else "",
                "approved_by": known.get("approved_by", ""),
            }
        )
    same = sum(after.tasks.get(task) == was for task, was in before.tasks.items())
    other = [one for one in ("backbone", "router") if getattr(before, one) != getattr(after, one)]
    changed = f"{' and '.join(other)} changed" if other else "backbone and router are the same"
    return Answered(
        rows,
        f"Release {before.version} to {after.version}: {_count(rows, 'task')} changed, "
        f"{same} did not; {changed}.",
    )


def _tasks(told: Told) -> list[str]:
    found = {one.rpartition("/")[0].removeprefix("clr-") for one in told.records.registered}
    return sorted(found)


def served(told: Told, subject: str, named: Callable[[str], Named]) -> Row:
    """Return what the ledger tells of a version, and when it served."""
    task, number = subject.removeprefix("clr-").rsplit("/", 1)
    times = [
        one
        for one in history.periods(told.records.moves, task, named(task))
        if one.version == int(number)
    ]
    return _version(told, subject) | {
        "served": [
            {"release": one.release, "from": one.begin, "to": one.end or None} for one in times
        ],
        "serves": bool(times) and not times[-1].end,
    }


def _version(told: Told, subject: str) -> Row:
    entry = told.records.registered.get(subject)
    if entry is None:
        return {"subject": subject, **dict.fromkeys(_VERSION, "")}
    decisions = told.records.decisions.get(subject, ())
    approved = dict.fromkeys(one.actor for one in decisions if one.action == APPROVED)
    payload = entry.payload
    told_of = (
        entry.seq,
        entry.time,
        entry.actor,
        payload.get("verdict", ""),
        ", ".join(approved),
        payload.get("adapter", ""),
        payload.get("data", ""),
    )
    return {"subject": subject, **dict(zip(_VERSION, told_of, strict=True))}


def matching(known: Iterable[str], asked: str) -> list[str]:
    """Return the digests that begin as `asked` does, which may leave out ``sha256:``.

    Raises:
        UsageError: `asked` has fewer than 8 hex digits.
    """
    wanted = asked.split(":", 1)[-1].lower()
    if len(wanted) < 8:
        raise UsageError(f"{asked!r} is too short for a digest.", fix="Give 8 hex digits or more.")
    return sorted({one for one in known if one.split(":", 1)[-1].startswith(wanted)})


def _count(rows: Sequence[Any], noun: str) -> str:
    return f"{len(rows)} {noun}{'' if len(rows) == 1 else 's'}"
