"""Find the test images of a task, and run all of them through what would serve."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.errors import DataRefused
from flows.measure import test_digest
from flows.session import Session

if TYPE_CHECKING:
    from clr.core.evidence import Evidence
    from clr.gate.evidence import Ints
    from clr.registry.release import Release

LOG = logging.getLogger("clr")
Predict = Callable[[Any, str], Any]
"""Logits [N, classes] of (float images [N, 3, H, W], task)."""


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


def replay_is_due(session: Session, release: Release, task: str) -> bool:
    """Say whether policy wants a task's whole test set through the new release.

    Always up to ``CLR_GATE_REPLAY_TASKS`` tasks; beyond, each task once in
    ``CLR_GATE_REPLAY_EVERY`` releases, the tasks spread over them by their names.
    """
    settings = session.settings
    if len(release.tasks) <= settings.gate_replay_tasks:
        return True
    turn = zlib.crc32(task.encode()) % settings.gate_replay_every
    return release.version % settings.gate_replay_every == turn


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
