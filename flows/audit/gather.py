"""Gather what registry, ledger, releases and files say of one version, and recompute its digests.

Only this version's chain is computed from bytes; the ledger is walked whole, since nothing in it
means anything unless all of it holds together. `clr verify` does the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from clr.audit.claims import BrokenLink
from clr.errors import IntegrityBroken, UsageError
from clr.registry.faults import redact
from flows.audit import history
from flows.audit.chosen import Asked, choose, unknown
from flows.audit.data import Look, look
from flows.audit.files import MANIFEST_FILE, Files, read_files
from flows.recorded import Records, read_records
from flows.session import GATE_FILE, Session

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.audit.signing import Head
    from clr.registry.lineage import RunFacts
    from clr.registry.release import Release
    from clr.registry.versions import Version
    from flows.audit.history import Period


@dataclass(frozen=True)
class Told:
    """What the ledger tells, read once.

    Attributes:
        entries: all of them, in order.
        records: the same, ordered for comparison.
        problems: broken links of the chain itself.
        head: newest signed head.
    """

    entries: tuple[Entry, ...]
    records: Records
    problems: tuple[BrokenLink, ...]
    head: Head | None


@dataclass(frozen=True)
class Admitted:
    """A release that the version served in, read from the registry.

    Attributes:
        release: None where its file is missing or was changed.
        trouble: why it is None.
        report: digest of the gate report beside it; empty where that is missing.
        about: digest of the adapter that the report is about; empty where it does not say.
    """

    release: Release | None
    trouble: str = ""
    report: str = ""
    about: str = ""


@dataclass(frozen=True)
class Found:
    """All that is known of one version.

    Attributes:
        version: as the registry has it, or as the ledger has it where it is gone from there.
        registered: whether the registry has it.
        chosen: why this one: ``named``, ``serving``, ``newest`` or ``at``.
        title: of the task.
        run: that made it; None where it is gone.
        files: that are kept with it.
        data: what was seen of its images.
        told: what the ledger tells.
        history: which release was in force when.
        admitted: releases by digest: those in which a time of its service began and ended.
        serving: digest of the release that the registry's alias says serves; empty: none.
        address: of the registry's server; empty: it is a file of the workspace.
    """

    version: Version
    registered: bool
    chosen: str
    title: str
    run: RunFacts | None
    files: Files
    data: Look
    told: Told
    history: tuple[Period, ...]
    admitted: Mapping[str, Admitted] = field(default_factory=dict)
    serving: str = ""
    address: str = ""

    @property
    def subject(self) -> str:
        """How registry and ledger call it."""
        return f"clr-{self.version.task}/{self.version.version}"

    @property
    def about(self) -> tuple[Entry, ...]:
        """The ledger's entries about this version, in order."""
        return tuple(one for one in self.told.entries if one.subject == self.subject)

    @property
    def recorded(self) -> Mapping[str, Any]:
        """What the ledger recorded at its registration; empty where that has no entry."""
        entry = self.told.records.registered.get(self.subject)
        return entry.payload if entry else {}

    @property
    def periods(self) -> tuple[Period, ...]:
        """The times that it served."""
        return tuple(one for one in self.history if one.version == self.version.version)


def gather(session: Session, asked: Asked) -> Found:
    """Return all that is known of the version that is asked about.

    Raises:
        UsageError: no such task or version, or none of it served then.
        ServiceUnavailable: registry or ledger cannot be reached.
        IntegrityBroken: the ledger cannot be read at all.
    """
    from clr.registry.lineage import read_run, read_title
    from clr.registry.releases import serving_version

    if not session.settings.registry and not (session.settings.state / "mlflow.db").exists():
        raise unknown(asked.task)  # reading makes no registry
    serving = serving_version(session.registry)
    told = read_ledger(session)
    times = history.periods(told.records.moves, asked.task, named(session, asked.task))
    version, registered, chosen = choose(session, asked, told.records, times)
    run = read_run(session.registry, version.run_id) if version.run_id else None
    files = read_files(session, version, registered=registered)
    manifest = files.contents.get(MANIFEST_FILE, b"")
    return Found(
        version=version,
        registered=registered,
        chosen=chosen,
        title=read_title(session.registry, asked.task),
        run=run,
        files=files,
        data=look(session.settings, asked.task, _data_digest(version, told.records), manifest),
        told=told,
        history=times,
        admitted=_admitted(session, times, version.version),
        serving=serving[1] if serving else "",
        address=redact(session.settings.registry),
    )


def _data_digest(version: Version, records: Records) -> str:
    """Return the digest of its data: by the ledger, which nobody edits, else by its tag."""
    entry = records.registered.get(f"clr-{version.task}/{version.version}")
    return str(entry.payload.get("data") or version.data_digest) if entry else version.data_digest


def read_ledger(session: Session) -> Told:
    """Walk the ledger, and read it.

    Raises:
        ServiceUnavailable: it cannot be reached.
        IntegrityBroken: it cannot be read at all.
    """
    problems = tuple(
        BrokenLink(
            "ledger", f"entry {one.seq}" if one.seq else "ledger", one.kind, one.message, one.fix
        )
        for one in session.ledger.verify()
    )
    entries = tuple(session.ledger.entries())
    head = None
    if not any(one.kind == "unreadable" for one in problems):
        head = session.ledger.head()
    return Told(entries, read_records(entries), problems, head)


def named(session: Session, task: str) -> history.Named:
    """Return a reader of releases, for what the ledger does not tell."""
    from clr.registry.releases import find_release

    def named(digest: str) -> int | None:
        try:
            release = find_release(session.registry, digest)
        except IntegrityBroken:
            return None
        champion = release.tasks.get(task) if release else None
        return champion.version if champion else None

    return named


def _admitted(session: Session, times: tuple[Period, ...], version: int) -> dict[str, Admitted]:
    """Read the releases that the version joined with, and the last of each time it served."""
    edges: dict[str, Period] = {}
    for serves, group in groupby(times, lambda one: one.version == version):
        spell = list(group)
        if serves:
            joined = [one for one in spell if one.joined]
            edges |= {one.digest: one for one in (spell[0], *joined, spell[-1])}
    return {digest: _read_release(session, one) for digest, one in edges.items()}


def _read_release(session: Session, period: Period) -> Admitted:
    from clr.core.files import sha256_bytes
    from clr.registry.fetch import fetch_file
    from clr.registry.local import scratch
    from clr.registry.releases import get_release
    from clr.registry.store import RELEASE_MODEL

    try:
        release = get_release(session.registry, period.release)
    except (IntegrityBroken, UsageError) as error:
        return Admitted(None, error.message)
    try:
        with scratch(session.registry) as folder:
            path = fetch_file(session.registry, RELEASE_MODEL, period.release, GATE_FILE, folder)
            report = path.read_bytes()
        stated = json.loads(report)
    except (IntegrityBroken, OSError):
        return Admitted(release)
    except ValueError:
        return Admitted(release, report=sha256_bytes(report))
    return Admitted(release, "", sha256_bytes(report), str(stated.get("adapter", "")))
