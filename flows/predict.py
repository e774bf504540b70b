"""Label images with the release in force; where no task is named, the router finds it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.errors import DataRefused, UsageError
from flows.session import Session

if TYPE_CHECKING:
    from clr.core.choosing import Routed
    from clr.registry.release import Release

Result = dict[str, Any]


def run_predict(session: Session, images: Sequence[Path], task: str | None) -> Result:
    """Return what ``clr predict --json`` prints; an unreadable image is that item's error.

    Raises:
        UsageError: no release yet, or no such task in it.
        IntegrityBroken: backbone, adapter or router are not what the release names.
    """
    from clr.registry.release import check_backbone
    from clr.registry.releases import current_release

    release = current_release(session.registry)
    if release is None:
        raise UsageError(
            "No release serves yet.",
            fix="Onboard a task and approve it: clr review TASK 1 approve.",
        )
    if task is not None and task not in release.tasks:
        raise UsageError(
            f"Task {task!r} is not in release {release.version}.",
            fix=f"It serves: {', '.join(sorted(release.tasks))}.",
        )
    check_backbone(release, session.backbone.digest)
    if task is None and len(release.tasks) > 1:
        settings = session.settings
        session.router(release).calibrate(settings.router_doubt, settings.router_unknown)
    return {
        "release": release.version,
        "release_digest": release.digest,
        "predictions": [_predict(session, release, path, task) for path in images],
    }


def _predict(session: Session, release: Release, path: Path, task: str | None) -> Result:
    import torch

    from clr.core.images import decode, prepare

    try:
        data = _bytes(path, session.settings.max_image_pixels)
        routed = None if task else _route(session, release, data)
        chosen = task or (routed.task if routed else next(iter(release.tasks)))
        champion = release.tasks[chosen]
        network = session.champion_network(champion)
        spec = network.adapter(chosen).spec
        way = spec.preprocessing
        pixels = decode(
            data,
            way.size,
            interpolation=way.interpolation,
            max_pixels=session.settings.max_image_pixels,
        )
    except OSError as error:
        return {"file": str(path), "error": f"cannot be read: {error.strerror}"}
    except DataRefused as error:
        return {"file": str(path), "error": error.message}
    logits = network.logits(prepare(pixels[None], way), chosen)
    probabilities = torch.softmax(logits[0].float(), 0).tolist()
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    return {
        "file": str(path),
        "task": chosen,
        "routed": task is None,
        "label": spec.labels[best],
        "probability": probabilities[best],
        "doubtful": routed.doubt if routed else "",
        "unknown": bool(routed and routed.unknown),
        "adapter": champion.adapter_digest,
        "request_id": uuid.uuid4().hex,
    }


def _bytes(path: Path, max_pixels: int) -> bytes:
    """Return a file's bytes; never those of a device or of what no image can be."""
    from clr.data.inspect import UnreadableError, max_bytes, read_confined

    try:
        real = Path(os.path.realpath(path))  # resolve() raises where links lead in a circle
        return read_confined(real.parent, real.name, limit=max_bytes(max_pixels))
    except UnreadableError as error:
        raise DataRefused(f"The image {error}.") from error


def _route(session: Session, release: Release, data: bytes) -> Routed | None:
    """Return what the router sees of an image; None where there is nothing to choose."""
    from clr.core.images import decode, prepare
    from clr.core.routing import project
    from flows.measure import router_preprocessing

    if len(release.tasks) == 1:
        return None
    way = router_preprocessing(session)
    pixels = decode(
        data,
        way.size,
        interpolation=way.interpolation,
        max_pixels=session.settings.max_image_pixels,
    )
    features = session.network.features(prepare(pixels[None], way)).cpu().numpy()
    router = session.router(release)
    return router.choose(project(features))[0]
