"""Recompute every digest, and see that registry and ledger tell the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError, IntegrityBroken
from flows.findings import Finding
from flows.session import Session

if TYPE_CHECKING:
    from clr.audit.anchor import Anchor
    from clr.audit.chain import Entry
    from clr.registry.overview import Overview
    from clr.registry.release import Release
    from flows.agreement import Known
    from flows.recorded import Records

Result = dict[str, Any]


@dataclass
class _Findings:
    """What was looked at, and what was found broken."""

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[Finding] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def add(self, subject: str, kind: str, message: str, fix: str = "") -> None:
        """Note something broken."""
        self.problems.append(Finding(subject, kind, message, fix))


def run_verify(session: Session, anchors: Iterable[Anchor] = ()) -> Result:
    """Return what ``clr verify --json`` prints: {checked, problems, notes, seconds}.

    A problem is {subject, kind, message, fix}, the kinds are those of flows/findings.py. A note
    is worth knowing and breaks nothing: evidence weaker than a server's, a quorum that was
    raised since.

    Args:
        session: the workspace.
        anchors: heads of the ledger that were kept elsewhere, besides git tags of the workspace.
    """
    started = time.perf_counter()
    found = _Findings()
    _ledger(session, [*anchors], found)
    if (session.settings.state / "mlflow.db").exists() or session.settings.registry:
        _registry(session, found)
    problems = dict.fromkeys(found.problems)
    return {
        "checked": dict(found.checked),
        "problems": [one.as_dict() for one in problems],
        "notes": [{"subject": one, "message": message} for one, message in found.notes],
        "seconds": round(time.perf_counter() - started, 3),
    }


def _ledger(session: Session, anchors: Sequence[Anchor], found: _Findings) -> None:
    from flows.anchors import git_anchors

    tags, unreadable = git_anchors(session.settings.workspace)
    found.problems += unreadable
    anchors = [*anchors, *tags]
    found.checked["ledger"] += 1
    found.checked["anchors"] += len(anchors)
    for one in session.ledger.verify(anchors):
        subject = f"ledger entry {one.seq}" if one.seq else "ledger"
        found.add(subject, f"ledger-{one.kind}", one.message, one.fix)


def _registry(session: Session, found: _Findings) -> None:
    from clr.registry.overview import overview
    from flows.recorded import read_records

    known: Known = {}
    there = overview(session.registry)
    try:
        records = read_records(_in_time(session.ledger.entries(), found))
    except IntegrityBroken as error:
        found.add("registry and ledger", "registry-unreadable", error.message, error.fix)
        return
    release = _releases(session, there, known, found)
    _backbone(session, release, found)
    _versions(session, there, records, found)
    for task, digest in _data_sets(session, there, release, found):
        _data(session, task, digest, found)
    if release is not None:
        _router(session, release, found)
    _quarantine(session, records, found)
    _agreement(session, known, found)


def _in_time(entries: Iterable[Entry], found: _Findings) -> Iterator[Entry]:
    """Yield entries as they are; note where one is earlier than the one before it.

    That breaks nothing: a clock was set back, or the clocks of several machines differ.
    """
    back, before = list[str](), ""
    for one in entries:
        if one.time < before:
            back.append(
                f"entry {one.seq} ({one.time}) is earlier than the one before it ({before})"
            )
        before = one.time
        yield one
    if back:
        more = f", and so are {len(back) - 1} more" if len(back) > 1 else ""
        message = f"{back[0]}{more}: a clock was set back, or clocks of machines differ"
        found.notes.append(("ledger", message))


def _releases(session: Session, there: Overview, known: Known, found: _Findings) -> Release | None:
    """Check the gate report of every release; return the one that serves, if it can be read."""
    from clr.registry.releases import get_release

    serving = None
    for one in there.releases:
        found.checked["gate reports"] += 1
        try:
            release = get_release(session.registry, one.version)
        except ClrError:
            continue  # told by the comparison with the ledger
        known[one.version, release.digest] = release
        if one.version == there.release_aliases.get("champion"):
            serving = release
        try:
            session.gate_report(release)
        except ClrError as error:
            found.add(f"clr-release/{one.version}", "gate-report-changed", error.message)
    return serving


def _agreement(session: Session, known: Known, found: _Findings) -> None:
    from flows.agreement import compare

    try:
        told = compare(session, known)
    except IntegrityBroken as error:
        found.add("registry and ledger", "registry-unreadable", error.message, error.fix)
        return
    found.checked["releases"] += told.releases
    found.checked["reviews"] += told.reviews
    found.problems += told.problems
    found.notes += told.notes


def _backbone(session: Session, release: Release | None, found: _Findings) -> None:
    found.checked["backbones"] += 1
    try:
        session.backbone.check()
        if release is not None and session.backbone.digest != release.backbone:
            message = f"has {session.backbone.digest}, the release needs {release.backbone}"
            found.add(f"backbone {session.backbone.name}", "backbone-changed", message)
    except ClrError as error:
        found.add(f"backbone {session.settings.backbone}", "backbone-changed", error.message)


def _versions(session: Session, there: Overview, records: Records, found: _Findings) -> None:
    from flows.verify_files import file_findings, is_sealed

    unsealed = 0
    for version in (one for versions in there.versions.values() for one in versions):
        found.checked["adapter files"] += 1
        found.checked["evidence files"] += 1
        unsealed += not is_sealed(version, records)
        found.problems += file_findings(session, version, records)
    if unsealed:
        message = (
            f"has no digests of the files and parameters of {unsealed} version(s), registered "
            "before it kept them, or not by `clr onboard`"
        )
        found.notes.append(("ledger", message))


def _data_sets(
    session: Session, there: Overview, release: Release | None, found: _Findings
) -> list[tuple[str, str]]:
    """Return (task, digest) of what champions were trained on, and of what ``data.dvc`` pins."""
    from clr.data.check import OBJECT, task_digests

    champions = {task: one.data_digest for task, one in release.tasks.items()} if release else {}
    try:
        pinned = task_digests(session.settings.workspace.absolute())
    except IntegrityBroken as error:
        found.add("data.dvc", OBJECT, str(error))  # as each champion's data tell, where one serves
        pinned = {}
    known = {task: digest for task, digest in pinned.items() if there.versions.get(task)}
    return sorted({*champions.items(), *known.items()})


def _data(session: Session, task: str, digest: str, found: _Findings) -> None:
    from clr.data.versioning import check_data

    found.checked["data sets"] += 1
    try:
        for one in check_data(session.settings, task, digest):
            found.add(one["subject"], one["kind"], one["message"])
    except ClrError as error:
        found.add(f"data/{task}", "data-object-changed", error.message)


def _router(session: Session, release: Release, found: _Findings) -> None:
    found.checked["routers"] += 1
    try:
        session.router(release)
    except ClrError as error:
        found.add("router", "router-changed", error.message)


def _quarantine(session: Session, records: Records, found: _Findings) -> None:
    """Compare what is still kept of refused data with what the ledger recorded of it."""
    from clr.core.files import sha256_file

    for entry in records.refused:
        place = str(entry.payload.get("quarantine", ""))
        folder = session.settings.workspace / "quarantine" / place
        for what, name in {"validation": "validation.json", "message": "message.txt"}.items():
            file = folder / name
            if not file.is_file():
                continue  # thrown away by its owner, or by `clr prune`
            found.checked["quarantine files"] += 1
            if sha256_file(file) != entry.payload.get(what):
                subject = f"quarantine/{place}/{name}"
                message = f"is not what was refused (entry {entry.seq} of the ledger)"
                found.add(subject, "quarantine-changed", message)
