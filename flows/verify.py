"""Recompute every digest, and see that registry and ledger tell the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError, IntegrityBroken
from flows.session import EVIDENCE_FILE, Session

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.registry.release import Release
    from clr.registry.versions import Version

Result = dict[str, Any]
Registered = dict[str, "list[Entry]"]


@dataclass
class _Findings:
    """What was looked at, and what was found broken."""

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[Result] = field(default_factory=list)
    notes: list[Result] = field(default_factory=list)

    def add(self, subject: str, message: str) -> None:
        """Note something broken."""
        self.problems.append({"subject": subject, "message": message})


def run_verify(session: Session) -> Result:
    """Return what ``clr verify --json`` prints: {checked, problems, notes, seconds}.

    A note is worth knowing and breaks nothing: evidence weaker than a server's, a quorum that
    was raised since.
    """
    started = time.perf_counter()
    found = _Findings()
    _ledger(session, found)
    if (session.settings.state / "mlflow.db").exists() or session.settings.registry:
        release = _release(session, found)
        _backbone(session, release, found)
        recorded = _read_recorded(session)
        for version in _versions(session):
            _version(session, version, recorded, found)
        for task, champion in release.tasks.items() if release else ():
            _data(session, task, champion.data_digest, found)
        if release is not None:
            _router(session, release, found)
        _agreement(session, found)
    return {
        "checked": dict(found.checked),
        "problems": found.problems,
        "notes": found.notes,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _ledger(session: Session, found: _Findings) -> None:
    problems = session.ledger.verify()
    found.checked["ledger"] += 1
    for one in problems:
        found.add(f"ledger entry {one.seq}" if one.seq else "ledger", one.message)


def _release(session: Session, found: _Findings) -> Release | None:
    from clr.registry.releases import current_release

    try:
        release = current_release(session.registry)
        if release is not None:
            session.gate_report(release)
        return release
    except ClrError as error:
        found.add("release in force", error.message)
        return None


def _read_recorded(session: Session) -> Registered:
    """Return the ledger's entries about registrations by what they are about, oldest first."""
    found: Registered = {}
    for action in ("adapter.registered", "version.create"):
        for one in session.ledger.entries(action=action):
            found.setdefault(one.subject, []).append(one)
    return found


def _recorded(
    version: Version, registered: Registered, what: str, digest: str, found: _Findings
) -> None:
    """See that the ledger names the same digest, in its newest entry about the registration."""
    name = f"clr-{version.task}/{version.version}"
    entries = registered.get(name, [])
    recorded = [
        one.payload[what]
        for one in entries
        if one.action == "adapter.registered" and what in one.payload
    ] or [
        _seen(one, what)
        for one in entries
        if one.action == "version.create" and one.payload.get("source") == version.source
    ]
    if not recorded:
        found.add(name, "is in the registry, but the ledger knows nothing of it")
    elif recorded[-1] != digest:
        found.add(name, f"the ledger recorded another {what} than {digest}")


def _seen(entry: Entry, what: str) -> object:
    """Return a digest as the server saw it when a version was registered."""
    if what == "adapter":
        return entry.payload.get("actual")
    return dict(entry.payload.get("tags", {})).get(f"clr.{what}_digest", "")


def _agreement(session: Session, found: _Findings) -> None:
    from flows.agreement import compare

    try:
        told = compare(session)
    except IntegrityBroken as error:
        found.add("registry and ledger", error.message)
        return
    found.checked["releases"] += told.releases
    found.checked["reviews"] += told.reviews
    for subject, message in told.problems:
        found.add(subject, message)
    found.notes += [{"subject": one, "message": message} for one, message in told.notes]


def _backbone(session: Session, release: Release | None, found: _Findings) -> None:
    found.checked["backbones"] += 1
    try:
        session.backbone.check()
        if release is not None and session.backbone.digest != release.backbone:
            found.add(
                f"backbone {session.backbone.name}",
                f"has {session.backbone.digest}, the release needs {release.backbone}",
            )
    except ClrError as error:
        found.add(f"backbone {session.settings.backbone}", error.message)


def _versions(session: Session) -> Iterator[Version]:
    from clr.registry.overview import overview

    for versions in overview(session.registry).versions.values():
        yield from versions


def _version(session: Session, version: Version, registered: Registered, found: _Findings) -> None:
    from clr.core.files import sha256_file
    from clr.registry.fetch import fetch, fetch_adapter
    from clr.registry.local import scratch

    subject = f"clr-{version.task}/{version.version}"
    files = {"adapter": version.adapter_digest}
    files["evidence"] = version.tags.get("clr.evidence_digest", "")
    with scratch(session.registry) as folder:
        for what, digest in files.items():
            found.checked[f"{what} files"] += 1
            try:
                path = (
                    fetch_adapter(session.registry, version.task, version.version, folder)
                    if what == "adapter"
                    else fetch(session.registry, version.run_id, EVIDENCE_FILE, folder)
                )
                actual = sha256_file(path) if path.is_file() else "missing"
            except (ClrError, OSError) as error:
                actual = str(error)
            if actual != digest:
                found.add(subject, f"its {what} file should have {digest}, but is {actual}")
            _recorded(version, registered, what, digest, found)


def _data(session: Session, task: str, digest: str, found: _Findings) -> None:
    from clr.data.versioning import check_data

    found.checked["data sets"] += 1
    try:
        for one in check_data(session.settings, task, digest):
            found.add(one["subject"], one["message"])
    except ClrError as error:
        found.add(f"data/{task}", error.message)


def _router(session: Session, release: Release, found: _Findings) -> None:
    found.checked["routers"] += 1
    try:
        session.router(release)
    except ClrError as error:
        found.add("router", error.message)
