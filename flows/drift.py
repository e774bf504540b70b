"""Look for drift: does what serves still answer the same, and are recent images like the test's?

Three questions about every task of the release. Its canaries and its environment against the
evidence: where the environment has changed, its test images are run again. Where images
lie in ``recent/<task>/``, their backbone features against those of the test images, by the
permutation test of clr/gate/drift.py: the chance of any false alarm in one check is at most
`clr.gate.drift.FALSE_ALARMS`, if the recent images are drawn as the test images were. Other
shares of the classes, or many frames of one scene, are a difference, too. And what the
prediction server of this machine has found in what it was sent (clr/serving/drift.py).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow

from clr.errors import ClrError, DataRefused, IntegrityBroken
from flows import prefect_api, tracking
from flows.session import Session

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from clr.core.routing import Floats
    from clr.gate.drift import Compared
    from clr.registry.release import ChampionRef, Release

LOG = logging.getLogger("clr")
Result = dict[str, Any]
EVENT = "clr.drift.found"
RECENT = "recent"
"""Folder of the workspace; below it one folder a task, with images at any depth."""


@flow(name="drift-check", persist_result=False)
def drift_check(workspace: str | None = None) -> Result | State[Any]:
    """Compare canaries, environment and recent images of every task with the evidence.

    Where something differs the run fails with the state ``Drift`` and sends ``clr.drift.found``.

    Args:
        workspace: folder that holds data.dvc. Leave it empty: it is the worker's.

    Raises:
        ServiceUnavailable: the registry cannot be reached.
    """
    from prefect.states import Failed

    session = tracking.opened(workspace)
    tracking.say_where()
    result = check(session)
    for found in result["found"]:
        _send(session, found)
    if result["found"]:
        return Failed(
            name=tracking.DRIFT, message="; ".join(one["sentence"] for one in result["found"])
        )
    return result


def check(session: Session) -> Result:
    """Look at every task of the release; changes nothing.

    Returns:
        {release, tasks: {name: {p, level, distance, images} or {skipped: why}},
        found: [{task, kind: ``answers``, ``images``, ``features`` or ``confidence``, sentence,
        wanted: what helps against it}]}.

    Raises:
        ServiceUnavailable: the registry cannot be reached.
    """
    from clr.registry.releases import current_release

    release = current_release(session.registry)
    if release is None:
        return {"release": None, "tasks": {}, "found": []}
    found = _answers(session, release)
    tasks_told: Result = {}
    places = {task: session.settings.workspace / RECENT / task for task in sorted(release.tasks)}
    there = {task: place for task, place in places.items() if place.is_dir()}
    for task, place in there.items():
        champion = release.tasks[task]
        tasks_told[task], sentence = _images(session, champion, place, len(there))
        if sentence:
            found.append({"task": task, "kind": "images", "sentence": sentence})
    found += _served(session, release)
    for one in found:
        one["wanted"] = _wanted(one)
    LOG.info("drift     %d tasks, %d findings", len(release.tasks), len(found))
    return {"release": release.version, "tasks": tasks_told, "found": found}


def _answers(session: Session, release: Release) -> list[Result]:
    """Return what answers otherwise than recorded: a finding for each task, or one for all."""
    from flows.replay_retention import examine, failures

    try:
        report = examine(session, release, everything=False)
    except IntegrityBroken as error:  # the backbone, which all tasks share
        return [{"task": "", "kind": "answers", "sentence": error.message}]
    tasks = sorted({one.partition(":")[2] for one in failures(report)})
    return [{"task": one, "kind": "answers", "sentence": report["sentence"]} for one in tasks]


def _images(session: Session, champion: ChampionRef, place: Path, looks: int) -> tuple[Result, str]:
    """Compare recent images with the test images; return what was seen, and the alarm if any."""
    from clr.gate.drift import FEWEST, compare

    try:
        recent = features(session, place)
        before = session.evidence(champion).features
    except ClrError as error:
        return {"skipped": error.message}, f"{champion.task}: {error.message}"
    if min(len(recent), len(before)) < FEWEST:
        return {"skipped": f"fewer than {FEWEST} images"}, ""
    seen: Compared = compare(before, recent, looks=looks, seed=session.settings.seed)
    told = {"p": seen.p, "level": seen.level, "distance": seen.distance, "images": len(recent)}
    if not seen.alarm:
        return told, ""
    return told, (
        f"{champion.task}: {len(recent)} recent images are not like its test images "
        f"(p = {seen.p:.2g}, at most {seen.level:.2g} is an alarm)"
    )


def _served(session: Session, release: Release) -> list[Result]:
    """Return the alarms of this machine's prediction server about adapters that serve now."""
    from datetime import UTC, datetime

    from clr.serving.drift import alarms, read_drift

    found = []
    for task, told in sorted(read_drift(session.settings.state).items()):
        champion = release.tasks.get(task)
        if champion is None or told.get("adapter") != champion.adapter_digest:
            continue
        for kind, since in alarms(told).items():
            time = datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
            sentence = f"{task}: since {time} the {kind} of its images are not as before"
            found.append({"task": task, "kind": kind, "sentence": sentence})
    return found


def _wanted(found: Result) -> str:
    """Say what helps; for whoever is told by the event, a person or an automation."""
    if found["kind"] == "answers":
        return "Run `clr verify`; images do not help."
    return (
        f"Look at recent images of {found['task']}. If they are right as they are, bring new ones "
        f"with labels in incoming/{found['task']}/, which trains another version."
    )


def features(session: Session, place: Path) -> Floats:
    """Return the projected features [n, d] of all images below a folder, as the router sees them.

    Raises:
        DataRefused: a file is no image that can be read.
    """
    import numpy as np

    from clr.core.evaluate import run
    from clr.core.images import ImageSet
    from clr.core.routing import project
    from clr.data.listing import walk
    from flows.measure import router_preprocessing

    settings, backbone = session.settings, session.backbone
    try:
        paths = sorted(place / path for path, _ in walk(place))
    except OSError as error:
        raise DataRefused(f"{place} cannot be read: {error.strerror}.") from error
    if not paths:
        return np.empty((0, 1), dtype=np.float32)
    preprocessing = router_preprocessing(session)
    images = ImageSet(
        paths,
        [0] * len(paths),
        preprocessing,
        cache_mb=settings.image_cache_mb,
        max_pixels=settings.max_image_pixels,
    )
    return project(run(backbone.module, images, preprocessing, backbone.device).numpy())


def _send(session: Session, found: Result) -> None:
    """Tell Prefect's server; a server that does not hear it is no reason to fail."""
    import os
    import uuid
    from datetime import UTC, datetime

    event = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": EVENT,
        "resource": {"prefect.resource.id": f"clr.task.{found['task'] or 'release'}"},
        "payload": found,
    }
    LOG.warning("drift     %s", found["sentence"])
    if os.environ.get("PREFECT_API_URL"):
        try:
            prefect_api.post(session.settings, "/events", [event])
        except ClrError as error:
            LOG.warning("drift     %s", error)
