"""What the gate is shown of a task: what was recorded of it beside what is seen of it today."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from flows.replay import Look, Predict, Question, look_through, replay_is_due, test_folder, turn_of
from flows.session import Session

if TYPE_CHECKING:
    from clr.core.evidence import Evidence
    from clr.core.routing import Router
    from clr.core.tried import Drawn
    from clr.gate.evidence import EarlierTask, Ints, Newcomer
    from clr.registry.release import ChampionRef, Release


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
    turn = turn_of(session.gate_report(release), release)
    due = replay_is_due(session, release, champion.task, turn)
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


def shown_newcomer(
    session: Session,
    evidence: Evidence,
    champion: Evidence | None,
    release: Release | None,
    router: Router,
) -> Newcomer:
    """Return what the gate is shown of the newcomer.

    Args:
        session: its network has the newcomer attached under its adapter digest.
        evidence: of the newcomer.
        champion: evidence of its task's champion; None: it has none.
        release: what serves now.
        router: with the newcomer.
    """
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
        dropped=tuple(sorted(set(champion.about["labels"]) - set(about["labels"])))
        if champion
        else (),
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
