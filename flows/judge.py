"""Show the retention gate the evidence: of the newcomer, and of every task in the release."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clr.core.files import canonical_json, sha256_bytes
from flows.measure import numeric_environment
from flows.replay import Predict, replay, replay_is_due, test_folder
from flows.session import Session

if TYPE_CHECKING:
    from clr.core.evidence import Evidence
    from clr.core.routing import Router
    from clr.gate.evidence import Bools, EarlierTask, Ints, Limits, Newcomer
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
    from clr.core.routing import Router
    from clr.gate.evidence import Offer
    from clr.gate.verdict import decide

    session.backbone.check()
    before = _evidence(session, release)
    others = {task: one for task, one in before.items() if task != newcomer.task}
    routers = (
        session.router(release) if release else Router({}),
        Router({one.task: one.statistics for one in (*others.values(), newcomer)}),
    )
    earlier = []
    for task, one in others.items():
        assert release is not None
        shown = earlier_task(session, release, release.tasks[task], one, routers)
        LOG.info("gate      %s: %s", task, "replayed" if shown.replay_due else "canaries")
        earlier.append(shown)
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
    routers: tuple[Router, Router] | None,
    *,
    predict: Predict | None = None,
    backbone: str = "",
) -> EarlierTask:
    """Return what the gate is shown of one earlier task.

    Args:
        session: the workspace.
        release: what serves now.
        champion: the task's entry in it.
        evidence: recorded with it.
        routers: before and after the newcomer; None without routing.
        predict: logits of (batch, task) in place of the network that serves.
        backbone: digest of the backbone behind `predict`.
    """
    from clr.core.evidence import (
        attached_digest,
        canary_logits,
        logits_digest,
        preprocessing_digest,
    )
    from clr.gate.evidence import EarlierTask, Snapshot

    task, network = champion.task, session.champion_network(champion)
    spec = network.adapter(task).spec
    after = Snapshot(
        backbone=backbone or session.backbone.digest,
        adapter=attached_digest(network, task),
        preprocessing=preprocessing_digest(spec.preprocessing),
        environment=numeric_environment(session),
        canary="" if predict else logits_digest(canary_logits(network, task)),
    )
    before = Snapshot(
        backbone=release.backbone,
        adapter=champion.adapter_digest,
        preprocessing=str(evidence.about["preprocessing"]),
        environment=str(evidence.about["environment"]),
        canary=evidence.canary_digest,
    )
    due = bool(predict) or replay_is_due(session, release, task)
    due = due or before.environment != after.environment
    with test_folder(session, task, champion.data_digest) as folder:
        test, replayed = replay(session, folder, evidence, spec, predict, due)
    after_answers = evidence.predicted if replayed is None else replayed
    routed = [
        _routed(router, evidence, answers)
        for router, answers in zip(routers or (), (evidence.predicted, after_answers), strict=False)
    ]
    return EarlierTask(
        task=task,
        before=before,
        after=after,
        test_before=str(evidence.about["test"]),
        test_after=test,
        labels=evidence.labels,
        stored=evidence.predicted,
        replayed=replayed,
        replay_due=due,
        routed_before=routed[0] if routed else None,
        routed_after=routed[1] if routed else None,
    )


def _routed(router: Router, evidence: Evidence, answers: Ints) -> Bools:
    """Say which test items reach their task and are answered rightly there."""
    found = router.route(evidence.features) == router.tasks.index(evidence.task)
    right: Bools = found & (answers == evidence.labels)
    return right


def _evidence(session: Session, release: Release | None) -> dict[str, Evidence]:
    if release is None:
        return {}
    return {task: session.evidence(ref) for task, ref in sorted(release.tasks.items())}


def _newcomer(
    session: Session,
    evidence: Evidence,
    champion: Evidence | None,
    release: Release | None,
    router: Router,
) -> Newcomer:
    from clr.gate.evidence import Newcomer

    about = evidence.about
    return Newcomer(
        task=evidence.task,
        labels=evidence.labels,
        predicted=evidence.predicted,
        probe=evidence.probe,
        majority=np.full(len(evidence.labels), about["majority"], dtype=np.int64),
        champion=_champion_answers(session, evidence, champion, release.tasks[evidence.task])
        if champion and release
        else None,
        routed=_routed(router, evidence, evidence.predicted),
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
