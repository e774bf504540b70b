"""Look at an earlier task today: its adapter, canaries, test images, and where due a replay.

This is the part of a gate that grows with the number of tasks, and may run on other machines
(flows/runners.py): what it is given and what it answers is small.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.errors import DataRefused
from flows.measure import numeric_environment, test_digest
from flows.session import Session

if TYPE_CHECKING:
    from clr.core.evidence import Evidence
    from clr.gate.evidence import Ints
    from clr.registry.release import ChampionRef, Release

LOG = logging.getLogger("clr")
Predict = Callable[[Any, str], Any]
"""Logits [N, classes] of (float images [N, 3, H, W], task)."""


@dataclass(frozen=True)
class Question:
    """Which earlier task to look at.

    Attributes:
        champion: its entry in the release.
        due: whether policy wants its whole test set replayed.
    """

    champion: ChampionRef
    due: bool


@dataclass(frozen=True)
class Look:
    """What is seen of an earlier task today.

    Attributes:
        backbone: digest of the backbone behind it.
        adapter: digest of its adapter as it is attached.
        preprocessing: digest of its preprocessing.
        environment: what equal numbers may depend on, where it was looked at.
        canary: digest of the canary logits; empty where none were taken.
        due: whether a replay was due, by policy or since the environment has changed.
        test: digest of its test images; empty where some are missing.
        replayed: int64 [n], what was answered; None where not run.
    """

    backbone: str
    adapter: str
    preprocessing: str
    environment: str
    canary: str
    due: bool
    test: str
    replayed: Ints | None


def look(session: Session, asked: Question) -> Look:
    """Look at one task through the network that would serve; runs where a worker is.

    Raises:
        IntegrityBroken: its adapter or evidence is not what was recorded.
    """
    held = session.held.get(asked.champion.evidence_digest)
    return look_through(session, asked, held or session.evidence(asked.champion), None)


def look_through(
    session: Session, asked: Question, evidence: Evidence, predict: Predict | None
) -> Look:
    """Look at one task, perhaps through something else than the network that serves.

    Args:
        session: the workspace.
        asked: which task.
        evidence: recorded with it.
        predict: logits of (batch, task) in place of that network; then all is replayed, and
            no canary taken.
    """
    from clr.core.evidence import (
        attached_digest,
        canary_logits,
        logits_digest,
        preprocessing_digest,
    )

    champion, task = asked.champion, asked.champion.task
    network = session.champion_network(champion)
    spec, environment = network.adapter(task).spec, numeric_environment(session)
    due = asked.due or bool(predict) or str(evidence.about["environment"]) != environment
    with test_folder(session, task, champion.data_digest) as folder:
        test, replayed = replay(session, folder, evidence, spec, predict, due)
    return Look(
        backbone=session.backbone.digest,
        adapter=attached_digest(network, task),
        preprocessing=preprocessing_digest(spec.preprocessing),
        environment=environment,
        canary="" if predict else logits_digest(canary_logits(network, task)),
        due=due,
        test=test,
        replayed=replayed,
    )


@contextmanager
def test_folder(session: Session, task: str, digest: str) -> Iterator[Path]:
    """Give a folder with the test images of one version of a task's data.

    That is ``data/<task>`` while that version is pinned there; a former one, whose
    champion still serves, comes out of DVC's cache.
    """
    from clr.data.former import holds, restore_split
    from clr.registry.local import scratch

    settings = session.settings
    if holds(settings.workspace, task, digest):
        yield settings.workspace / "data" / task
        return
    with scratch(session.registry) as folder:
        restore_split(settings, digest, "test", folder)
        yield folder


def turn_of(report: Mapping[str, Any], release: Release) -> int:
    """Return the turn of a gate against a release: one more than that of the gate before it.

    Turns are counted from gate to gate, and not by numbers of releases: retirements, and releases
    that were gone back from, use those up without any gate.

    Args:
        report: of the gate that admitted `release`; an older one has no turn.
        release: what serves now.
    """
    return int(report.get("turn", release.version - 1)) + 1


def replay_is_due(session: Session, release: Release, task: str, turn: int) -> bool:
    """Say whether policy wants a task's whole test set through the new release.

    Always up to ``CLR_GATE_REPLAY_TASKS`` tasks; beyond, each task once in
    ``CLR_GATE_REPLAY_EVERY`` gates that follow one another, spread over them by their names.

    Args:
        session: the workspace.
        release: what serves now.
        task: one of its tasks.
        turn: see `turn_of`.
    """
    settings = session.settings
    if len(release.tasks) <= settings.gate_replay_tasks:
        return True
    return (turn - zlib.crc32(task.encode())) % settings.gate_replay_every == 0


def replay(
    session: Session,
    folder: Path,
    evidence: Evidence,
    spec: Any,
    predict: Predict | None,
    due: bool,
) -> tuple[str, Ints | None]:
    """Look at a task's test set today and, where due, run all of it again.

    Args:
        session: the workspace.
        folder: holds ``test/``.
        evidence: recorded with the task's champion.
        spec: of its adapter.
        predict: logits of (batch, task) in place of the network that serves.
        due: whether every image is run again.

    Returns:
        digest of the test files today ("" if some are missing), and int64 [n] predictions,
        None where not run.
    """
    from clr.core.evaluate import predicted, run
    from flows.job import images_of

    if _files_below(folder, "test") != set(evidence.about["test_files"]):
        return "", None
    if not due:
        return str(evidence.about["test"]), None
    try:
        images = images_of(session, folder, "test", spec)
        logits = run(
            lambda batch: (predict or session.network.logits)(batch, spec.task),
            images,
            spec.preprocessing,
            session.backbone.device,
        )
    except DataRefused as error:
        LOG.warning("gate      %s", error.message)
        return "", None
    if len(images) != len(evidence.labels):
        return "", None
    return test_digest(images, folder), predicted(logits)


def _files_below(folder: Path, split: str) -> set[str]:
    from clr.data.listing import walk

    return {f"{split}/{path}" for path, _ in walk(folder / split)}
