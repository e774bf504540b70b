"""Show the retention gate the evidence: of the newcomer, and of every task in the release."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clr.core.files import canonical_json, sha256_bytes
from flows.recorded import JUDGED
from flows.replay import Look, Predict, Question, look, look_through, replay_is_due, test_folder
from flows.runners import fan_out
from flows.session import Session

if TYPE_CHECKING:
    from clr.core.evidence import Evidence
    from clr.core.routing import Router
    from clr.core.tried import Drawn
    from clr.gate.evidence import EarlierTask, Ints, Limits, Newcomer
    from clr.registry.release import ChampionRef, Release

LOG = logging.getLogger("clr")


@dataclass(frozen=True)
class Judged:
    """The gate's report and what a release needs to name.

    Attributes:
        report: schema ``clr.gate/1``, with the digests of adapter and release it is about.
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
    before, routers = _recorded(session, newcomer, release)
    try:
        earlier = _earlier(session, before, newcomer.task, release, routers) if release else []
    finally:
        session.held.clear()
    offer = Offer(
        newcomer=_newcomer(session, newcomer, before.get(newcomer.task), release, routers[1]),
        earlier=tuple(earlier),
        matrix=_history(session, release),
    )
    against = release.digest if release else ""
    report = {
        **decide(offer, limits(session)).to_dict(),
        "adapter": str(newcomer.about["adapter"]),
        "release": against,
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
) -> list[EarlierTask]:
    """Return what the gate is shown of every earlier task but the newcomer's own."""
    from clr.core.tried import drawn

    others = {task: one for task, one in before.items() if task != newcomer}
    asked = [Question(release.tasks[one], replay_is_due(session, release, one)) for one in others]
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


def earlier_task(
    session: Session,
    release: Release,
    champion: ChampionRef,
    evidence: Evidence,
    *,
    predict: Predict | None = None,
    backbone: str = "",
) -> EarlierTask:
    """Return what the gate is shown of one earlier task, without routing.

    Args:
        session: the workspace.
        release: what serves now.
        champion: the task's entry in it.
        evidence: recorded with it.
        predict: logits of (batch, task) in place of the network that serves.
        backbone: digest of the backbone behind `predict`.
    """
    due = replay_is_due(session, release, champion.task)
    seen = look_through(session, Question(champion, due), evidence, predict)
    return shown(release, evidence, seen, None, backbone)


def shown(
    release: Release,
    evidence: Evidence,
    seen: Look,
    sent: tuple[Drawn, Drawn] | None,
    backbone: str = "",
) -> EarlierTask:
    """Put what was recorded of a task beside what is seen of it today.

    Args:
        release: what serves now.
        evidence: recorded with its champion.
        seen: today.
        sent: where its items went before and go after; None without routing.
        backbone: digest of another backbone than the one that was looked at.
    """
    from clr.gate.evidence import EarlierTask, Snapshot

    after = Snapshot(
        backbone or seen.backbone,
        seen.adapter,
        seen.preprocessing,
        seen.environment,
        seen.canary,
    )
    before = Snapshot(
        backbone=release.backbone,
        adapter=release.tasks[evidence.task].adapter_digest,
        preprocessing=str(evidence.about["preprocessing"]),
        environment=str(evidence.about["environment"]),
        canary=evidence.canary_digest,
    )
    answers = evidence.predicted if seen.replayed is None else seen.replayed
    return EarlierTask(
        task=evidence.task,
        before=before,
        after=after,
        test_before=str(evidence.about["test"]),
        test_after=seen.test,
        labels=evidence.labels,
        stored=evidence.predicted,
        replayed=seen.replayed,
        replay_due=seen.due,
        routed_before=sent[0].found & (evidence.predicted == evidence.labels) if sent else None,
        routed_after=sent[1].found & (answers == evidence.labels) if sent else None,
        taken=sent[1].taken if sent else None,
        doubted=sent[1].doubted if sent else None,
        doubted_before=sent[0].doubted if sent else None,
    )


def _newcomer(
    session: Session,
    evidence: Evidence,
    champion: Evidence | None,
    release: Release | None,
    router: Router,
) -> Newcomer:
    from clr.gate.evidence import Newcomer

    about = evidence.about
    chosen = router.route(evidence.features)
    sent = Counter(router.tasks[at] for at in chosen)
    reached = chosen == router.tasks.index(evidence.task)
    return Newcomer(
        task=evidence.task,
        labels=evidence.labels,
        predicted=evidence.predicted,
        probe=evidence.probe,
        majority=np.full(len(evidence.labels), about["majority"], dtype=np.int64),
        champion=_champion_answers(session, evidence, champion, release.tasks[evidence.task])
        if champion and release
        else None,
        routed=reached & (evidence.predicted == evidence.labels),
        strayed={task: times for task, times in sent.items() if task != evidence.task},
        params_pct=about["params_pct"],
        adapter_bytes=about["adapter_bytes"],
        latency_p95_ms=about["latency"]["p95"],
        bare_latency_p95_ms=about["latency"]["bare_p95"],
        digests=about["digests"],
    )


def _champion_answers(
    session: Session, newcomer: Evidence, champion: Evidence, serving: ChampionRef
) -> Ints:
    """Return what the task's own champion says on the newcomer's test set, by label name."""
    from clr.core.evaluate import predicted, run
    from flows.job import images_of

    answers = champion.predicted
    if champion.about["test"] != newcomer.about["test"]:
        ours = session.network.adapter(str(newcomer.about["adapter"])).spec
        network = session.champion_network(serving)
        theirs = network.adapter(newcomer.task).spec
        data = str(newcomer.about["digests"]["data"])
        with test_folder(session, newcomer.task, data) as folder:
            images = images_of(session, folder, "test", ours, preprocessing=theirs.preprocessing)
            logits = run(
                lambda batch: network.logits(batch, newcomer.task),
                images,
                theirs.preprocessing,
                session.backbone.device,
            )
        answers = predicted(logits)
    places = {label: at for at, label in enumerate(newcomer.about["labels"])}
    ours_by_theirs = [places.get(label, -1) for label in champion.about["labels"]]
    return np.array(ours_by_theirs, dtype=np.int64)[answers]


def _history(session: Session, release: Release | None) -> Mapping[str, Any] | None:
    if release is None:
        return None
    report = session.gate_report(release)
    matrix: Mapping[str, Any] = report["matrix"]
    return matrix
