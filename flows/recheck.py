"""What a version has to show right before it is promoted: its bytes, and a fresh passing gate."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from clr.errors import GateRefused, IntegrityBroken
from clr.registry.versions import Version, champion_of
from flows.session import EVIDENCE_FILE, Session

if TYPE_CHECKING:
    from clr.core.evidence import Evidence
    from clr.registry.release import Release

LOG = logging.getLogger("clr")
REPORT_FILE = "gate/gate.json"
"""Artifact of the run that made a version: the gate's report at its registration."""


@dataclass(frozen=True)
class Admission:
    """What admits a version to a release.

    Attributes:
        release: digest of the release that its gate was run against; empty at the first.
        router: digest of the router with it.
        gate: digest of the gate's report.
        report: that report, canonical JSON.
    """

    release: str
    router: str
    gate: str
    report: bytes


def admit(session: Session, version: Version, release: Release | None) -> Admission:
    """See that everything is as recorded; run the gate anew if another promotion came first.

    Args:
        session: the workspace.
        version: what shall be promoted.
        release: what serves now.

    Raises:
        IntegrityBroken: adapter, evidence, backbone or report are not those of the version.
        GateRefused: against `release` its gate does not pass.
    """
    from flows.judge import limits

    evidence = _check_bytes(session, version, release)
    serving = release.digest if release else ""
    if version.tags.get("clr.gate_release", "") == serving:
        report = _report(session, version)
        if report is not None:
            told = _parsed(version, report)
            _check_report(version, told, release)
            if told["limits"] == asdict(limits(session)):
                tags = version.tags
                router, gate = tags.get("clr.router_digest", ""), tags.get("clr.gate_digest", "")
                return Admission(serving, router, gate, report)
            LOG.info("promote   the gate was run with other limits than these: it runs again")
        else:
            LOG.info("promote   the report of the gate is not kept here: the gate runs again")
    else:
        LOG.info("promote   another promotion came first: the gate runs again")
    return _judge_again(session, version, evidence, release)


def require_passed(session: Session, version: Version) -> None:
    """See that a version's files are as recorded and its gate passed, whatever serves now.

    Raises:
        IntegrityBroken: they are not, or its report does not say so.
        GateRefused: its report is not kept here.
    """
    from clr.registry.releases import current_release, find_release

    _check_bytes(session, version, current_release(session.registry))
    report = _report(session, version)
    if report is None:
        raise GateRefused(
            f"The gate's report of {version.task} version {version.version} is not kept here.",
            fix="Run this where it was promoted or judged last, or onboard the task again.",
        )
    against = version.tags.get("clr.gate_release", "")
    judged = find_release(session.registry, against) if against else None
    _check_report(version, _parsed(version, report), judged)


def _check_bytes(session: Session, version: Version, release: Release | None) -> Evidence:
    """Compare the registered bytes, not local copies of them, with what the version says."""
    from clr.core.files import sha256_file, write_atomic
    from clr.registry.fetch import fetch, fetch_adapter, remember_adapter
    from clr.registry.local import scratch

    session.backbone.check()
    backbones = {version.tags.get("clr.backbone_digest", ""), session.backbone.digest}
    if len(backbones | ({release.backbone} if release else set())) > 1:
        raise _broken(version, "was made for another backbone than the one that serves")
    with scratch(session.registry) as folder:
        adapter = fetch_adapter(session.registry, version.task, version.version, folder)
        if sha256_file(adapter) != version.adapter_digest:
            raise _broken(version, "has an adapter file whose bytes have been changed")
        remember_adapter(session.registry, adapter, version.adapter_digest)
        evidence = fetch(session.registry, version.run_id, EVIDENCE_FILE, folder)
        digest = champion_of(version).evidence_digest
        if sha256_file(evidence) != digest:
            raise _broken(version, "has evidence whose bytes have been changed")
        if not session.evidence_copy(digest).is_file():
            write_atomic(session.evidence_copy(digest), evidence.read_bytes())
    found = session.evidence(champion_of(version))
    if (found.task, str(found.about["adapter"])) != (version.task, version.adapter_digest):
        raise _broken(version, "has evidence of another adapter")
    return found


def _broken(version: Version, what: str) -> IntegrityBroken:
    return IntegrityBroken(
        f"{version.task} version {version.version} {what}.",
        fix="Onboard the task again; approve nothing whose evidence was touched.",
        task=version.task,
        version=version.version,
    )


def _report(session: Session, version: Version) -> bytes | None:
    """Return the gate's report that the version's tag names; None where it is not kept.

    The one from its registration is among its run's files, which nobody may change; one that
    was made anew is kept under ``CLR_HOME`` until a release holds it.

    Raises:
        IntegrityBroken: the registered one has been changed.
    """
    from clr.core.files import sha256_bytes
    from clr.registry.fetch import fetch
    from clr.registry.local import scratch

    digest = version.tags.get("clr.gate_digest", "")
    with scratch(session.registry) as folder:
        data = fetch(session.registry, version.run_id, REPORT_FILE, folder).read_bytes()
    if sha256_bytes(data) == digest:
        return data
    kept = _kept(session, digest)
    if kept.is_file() and sha256_bytes(data := kept.read_bytes()) == digest:
        return data
    if digest == _registered_gate(session, version):
        raise _broken(version, "has a gate report that is missing or has been changed")
    return None


def _parsed(version: Version, report: bytes) -> Any:
    try:
        return json.loads(report)
    except (ValueError, RecursionError) as error:
        raise _broken(version, "has a gate report that is no JSON") from error


def _kept(session: Session, digest: str) -> Any:
    return session.cache("gates") / f"{digest.removeprefix('sha256:')}.json"


def _registered_gate(session: Session, version: Version) -> str:
    entries = session.ledger.entries(
        subject=f"clr-{version.task}/{version.version}", action="adapter.registered"
    )
    digests = [str(one.payload.get("gate", "")) for one in entries]
    return digests[-1] if digests else version.tags.get("clr.gate_digest", "")


def _check_report(version: Version, report: object, release: Release | None) -> None:
    """See that a report says pass, of this adapter, against this release and all its tasks."""
    from clr.gate.admission import why_not_admitted

    against, tasks = (release.digest, release.tasks) if release else ("", {})
    wrong = why_not_admitted(report, version.task, version.adapter_digest, against, tasks)
    if wrong:
        raise _broken(version, f"has a gate report that {wrong}")


def _judge_again(
    session: Session, version: Version, evidence: Evidence, release: Release | None
) -> Admission:
    from clr.core.adapter import load_adapter
    from clr.core.files import write_atomic
    from clr.registry.fetch import adapter_path
    from clr.registry.versions import set_version_tags
    from flows.judge import judge, record_judged

    digest = version.adapter_digest
    path = adapter_path(session.registry, version.task, version.version, digest)
    session.network.attach(load_adapter(path, session.backbone, digest), digest)
    try:
        judged = judge(session, evidence, release)
    finally:
        session.network.detach(digest)
    if judged.report["verdict"] != "pass":
        open_points = [*judged.report["failed"], *judged.report["inconclusive"]]
        raise GateRefused(
            f"{version.task} version {version.version} does not pass the gate against the release "
            f"that serves now: {', '.join(open_points)}.",
            fix="Champions are unchanged. Onboard the task again, or reject this version.",
            failed=open_points,
        )
    write_atomic(_kept(session, judged.digest), judged.data)
    record_judged(session, f"clr-{version.task}/{version.version}", judged, source=version.source)
    facts = {
        "clr.gate_digest": judged.digest,
        "clr.router_digest": judged.router,
        "clr.gate_release": judged.release,  # last: only now the two above are believed
    }
    set_version_tags(session.registry, version, facts)
    return Admission(judged.release, judged.router, judged.digest, judged.data)
