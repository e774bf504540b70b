"""Show the retention gate the evidence: of the newcomer, and of every task in the release."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clr.core.files import canonical_json, sha256_bytes
from flows.offered import shown, shown_newcomer
from flows.recorded import JUDGED
from flows.replay import Question, look, replay_is_due, turn_of
from flows.runners import fan_out
from flows.session import Session

if TYPE_CHECKING:
    from clr.core.evidence import Evidence
    from clr.core.routing import Router
    from clr.gate.evidence import EarlierTask, Limits
    from clr.registry.release import Release

LOG = logging.getLogger("clr")


@dataclass(frozen=True)
class Judged:
    """The gate's report and what a release needs to name.

    Attributes:
        report: schema ``clr.gate/1``, with the digests of adapter and release it is about, and
            its turn (flows/replay.py).
        data: its canonical JSON.
        router: digest of the router with the newcomer.
        release: digest of the release that was judged against; empty at the first.
    """

    report: Mapping[str, Any]
    data: bytes
    router: str
    release: str

    @property
    def digest(self) -> str:
        """Digest of the report."""
        return sha256_bytes(self.data)


def judge(session: Session, newcomer: Evidence, release: Release | None) -> Judged:
    """Run the gate for an adapter against the release that serves.

    Args:
        session: its network has the newcomer attached under its adapter digest.
        newcomer: its evidence.
        release: what serves now.

    Raises:
        IntegrityBroken: an earlier task's adapter or evidence is not what was recorded.
    """
    from clr.gate.evidence import Offer
    from clr.gate.verdict import decide

    session.backbone.check()
    admitted = session.gate_report(release) if release else {}
    turn = turn_of(admitted, release) if release else 0
    before, routers = _recorded(session, newcomer, release)
    try:
        earlier = (
            _earlier(session, before, newcomer.task, release, routers, turn) if release else []
        )
    finally:
        session.held.clear()
    offer = Offer(
        newcomer=shown_newcomer(session, newcomer, before.get(newcomer.task), release, routers[1]),
        earlier=tuple(earlier),
        matrix=admitted["matrix"] if release else None,
    )
    against = release.digest if release else ""
    report = {
        **decide(offer, limits(session)).to_dict(),
        "adapter": str(newcomer.about["adapter"]),
        "release": against,
        "turn": turn,
    }
    return Judged(report, canonical_json(report), routers[1].digest, against)


def record_judged(session: Session, subject: str, judged: Judged, **about: str) -> None:
    """Write into the ledger what the gate said, before anybody rests on it; once a report.

    Args:
        session: the workspace.
        subject: ``clr-<task>``, or ``clr-<task>/<number>`` of a registered version.
        judged: the answer.
        about: more for the entry: run, data, source.
    """
    report = judged.report
    session.record(
        JUDGED,
        subject,
        {
            "verdict": report["verdict"],
            "failed": [*report["failed"], *report["inconclusive"]],
            "adapter": report["adapter"],
            "gate": judged.digest,
            "router": judged.router,
            "release": judged.release,
            **about,
        },
        f"{JUDGED}:{subject}:{judged.digest}",
    )


def _recorded(
    session: Session, newcomer: Evidence, release: Release | None
) -> tuple[dict[str, Evidence], tuple[Router, Router]]:
    """Read what was recorded of every task, once: slim evidence, routers without and with the new.

    Raises:
        IntegrityBroken: evidence, or the router of the release, is not what was recorded.
    """
    from clr.core.routing import Gathering, Router

    before: dict[str, Evidence] = {}
    was, will_be = Gathering(), Gathering()
    champions = release.tasks if release else {}
    for task in sorted({*champions, newcomer.task}):
        if task in champions:
            evidence = session.evidence(champions[task])
            digest = evidence.described.digest
            was.add(task, evidence.described, digest)
            before[task] = session.held[champions[task].evidence_digest] = evidence.slim()
        if task == newcomer.task:
            will_be.add(task, newcomer.described)
        else:
            will_be.add(task, evidence.described, digest)
    routers = Router(was), Router(will_be)
    if release is not None:
        session.keep_router(release, routers[0])
    return before, routers


def _earlier(
    session: Session,
    before: Mapping[str, Evidence],
    newcomer: str,
    release: Release,
    routers: tuple[Router, Router],
    turn: int,
) -> list[EarlierTask]:
    """Return what the gate is shown of every earlier task but the newcomer's own."""
    from clr.core.tried import drawn

    others = {task: one for task, one in before.items() if task != newcomer}
    asked = [
        Question(release.tasks[one], replay_is_due(session, release, one, turn)) for one in others
    ]
    looks = fan_out(session, look, asked, what="gate")
    features = {task: one.features for task, one in others.items()}
    was, will_be = (drawn(router, features, newcomer) for router in routers)
    replays = sum(one.replayed is not None for one in looks)
    LOG.info("gate      %d earlier tasks looked at, %d replayed", len(looks), replays)
    return [
        shown(release, one, seen, (was[one.task], will_be[one.task]))
        for one, seen in zip(others.values(), looks, strict=True)
    ]


def limits(session: Session) -> Limits:
    """Return the gate's limits as the settings give them."""
    from clr.gate.evidence import Limits

    settings = session.settings
    return Limits(
        margin=settings.gate_margin,
        alpha=settings.gate_alpha,
        routing_margin=settings.gate_routing_margin,
        max_params_pct=settings.gate_max_params_pct,
        max_adapter_mb=settings.gate_max_adapter_mb,
        max_latency_ratio=settings.gate_max_latency_ratio,
    )
