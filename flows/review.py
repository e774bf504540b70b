"""Approve or reject a version on the command line; an approval promotes it to champion."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clr.errors import GateRefused, IntegrityBroken, ReviewRefused
from flows import output, provenance
from flows.judge import Judged, judge
from flows.session import GATE_FILE, Session

if TYPE_CHECKING:
    from clr.registry.release import ChampionRef, Release
    from clr.registry.versions import Version

LOG = logging.getLogger("clr")
Result = dict[str, Any]
AUTHENTICATION = "local-os-user"


def run_review(task: str, number: int, decision: str, reason: str, session: Session) -> Result:
    """Record a person's decision; ``approve`` makes the version the task's champion.

    Args:
        task: task name.
        number: version of its adapter.
        decision: ``approve`` or ``reject``.
        reason: the person's words.
        session: the workspace.

    Raises:
        UsageError: no such version.
        ReviewRefused: it was decided the other way, or its gate did not pass.
        GateRefused: against the release that serves now, its gate does not pass.
    """
    from clr.data.folder import task_name
    from clr.registry.versions import get_version

    output.log_to_stderr()
    with session.lock("promote"):
        version = get_version(session.registry, task_name(task), number)
        if decision == "reject":
            return _reject(session, version, reason)
        return _approve(session, version, reason)


def _approve(session: Session, version: Version, reason: str) -> Result:
    from clr.registry.releases import current_release, promote

    release = current_release(session.registry)
    champion = _champion(version)
    if release is not None:  # a killed promotion may have left it out
        record_release(session, release)
    if release is not None and release.tasks.get(version.task) == champion:
        return _promoted(session, version, release, already=True)
    if version.review == "rejected":
        raise ReviewRefused(
            f"{version.task} version {version.version} was rejected: "
            f"{version.tags.get('review.reason') or 'no reason given'}.",
            fix="Onboard the task again; a rejected version stays rejected.",
        )
    if version.tags.get("clr.verdict") != "passed":
        raise ReviewRefused(
            f"{version.task} version {version.version} has not passed the retention gate "
            f"({version.tags.get('clr.verdict')}).",
            fix="Read its gate report; only what passed can be approved.",
        )
    _decide(session, version, "approved", reason)
    serving = release.digest if release else ""
    judged = _gate_again(session, version, release)
    if judged is None:
        router, gate, report = _recorded(session, version)
    else:
        router, gate, report = judged.router, judged.digest, judged.data
    made = promote(
        session.registry,
        champion,
        gate_release=serving,
        backbone=session.backbone.digest,
        router=router,
        gate=gate,
        files={GATE_FILE: report},
    )
    return _promoted(session, version, made, already=False)


def _champion(version: Version) -> ChampionRef:
    from clr.registry.release import ChampionRef

    return ChampionRef(
        version.task,
        version.version,
        version.adapter_digest,
        version.data_digest,
        version.run_id,
        version.tags.get("clr.evidence_digest", ""),
    )


def _gate_again(session: Session, version: Version, release: Release | None) -> Judged | None:
    """Run the gate anew if another release came since it ran; None where it is fresh."""
    if version.tags.get("clr.gate_release", "") == (release.digest if release else ""):
        return None
    from clr.core.adapter import load_adapter
    from clr.registry.fetch import adapter_path
    from clr.registry.versions import set_version_tags

    LOG.info("review    another promotion came first: the gate runs again")
    champion = _champion(version)
    path = adapter_path(session.registry, version.task, version.version, champion.adapter_digest)
    adapter = load_adapter(path, session.backbone, champion.adapter_digest)
    session.network.attach(adapter, champion.adapter_digest)
    judged = judge(session, session.evidence(champion), release)
    if judged.report["verdict"] != "pass":
        open_points = [*judged.report["failed"], *judged.report["inconclusive"]]
        raise GateRefused(
            f"{version.task} version {version.version} does not pass the gate against the release "
            f"that serves now: {', '.join(open_points)}.",
            fix="Champions are unchanged. Onboard the task again, or reject this version.",
            failed=open_points,
        )
    facts = {
        "clr.gate_digest": judged.digest,
        "clr.gate_release": judged.release,
        "clr.router_digest": judged.router,
    }
    set_version_tags(session.registry, version, facts)
    return judged


def _recorded(session: Session, version: Version) -> tuple[str, str, bytes]:
    """Return router digest, gate digest and gate report as they were registered."""
    from clr.core.files import sha256_bytes
    from clr.registry.local import scratch
    from clr.registry.runs import fetch

    digest = version.tags.get("clr.gate_digest", "")
    with scratch(session.registry) as folder:
        data = fetch(session.registry, version.run_id, "gate/gate.json", folder).read_bytes()
    if sha256_bytes(data) != digest:
        raise IntegrityBroken(
            f"The gate report of {version.task} version {version.version} has been changed.",
            fix="Onboard the task again; approve nothing whose evidence was touched.",
        )
    return version.tags.get("clr.router_digest", ""), digest, data


def _reject(session: Session, version: Version, reason: str) -> Result:
    from clr.registry.releases import current_release
    from clr.registry.versions import drop_candidate, get_version

    release = current_release(session.registry)
    if release is not None and release.tasks.get(version.task) == _champion(version):
        raise ReviewRefused(
            f"{version.task} version {version.version} is the champion.",
            fix="A champion is replaced by approving another version.",
        )
    _decide(session, version, "rejected", reason)
    drop_candidate(session.registry, version)
    now = get_version(session.registry, version.task, version.version)
    return {
        "task": version.task,
        "version": version.version,
        "decision": "reject",
        "reason": now.tags.get("review.reason", ""),
        "reviewer": provenance.local_user(),
    }


def _decide(session: Session, version: Version, decision: str, reason: str) -> None:
    """Record the decision: the ledger first, then what people see."""
    from clr.registry.versions import set_version_tags

    person = provenance.local_user()
    entry = session.ledger.append(
        f"review.{decision}",
        f"clr-{version.task}/{version.version}",
        {"adapter": version.adapter_digest, "reason": reason},
        actor=person,
        authentication=AUTHENTICATION,
        key=f"review:{version.task}/{version.version}:{decision}",
    )
    set_version_tags(
        session.registry,
        version,
        {
            "review": decision,
            "review.reason": str(entry.payload["reason"]),
            "clr.reviewed_by": entry.actor,
            "clr.reviewed_at": entry.time,
        },
    )


def _promoted(session: Session, version: Version, release: Release, *, already: bool) -> Result:
    from clr.registry.releases import settle
    from clr.registry.versions import get_version

    settle(session.registry, release)
    record_release(session, release)
    now = get_version(session.registry, version.task, version.version)
    return {
        "task": version.task,
        "version": version.version,
        "decision": "approve",
        "reason": now.tags.get("review.reason", ""),
        "reviewer": provenance.local_user(),
        "release": release.version,
        "release_digest": release.digest,
        "already": already,
    }


def record_release(session: Session, release: Release) -> None:
    """Write the release in force into the ledger, unless it is there."""
    session.ledger.append(
        "release.activated",
        f"clr-release/{release.version}",
        {
            "release": release.digest,
            "previous": release.previous,
            "backbone": release.backbone,
            "router": release.router,
            "gate": release.gate,
            "tasks": len(release.tasks),
        },
        actor=provenance.local_user(),
        authentication=AUTHENTICATION,
        key=f"release:{release.digest}",
    )
