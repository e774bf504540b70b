"""How much data does a task need: learning curves of a pilot set, foretold accuracy, its worth.

Nothing is registered, pinned or recorded: a folder and the backbone are enough.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.asked import require_writable
from flows.pilot_set import Pilot, read_pilot
from flows.session import Session

if TYPE_CHECKING:
    from torch import Tensor

    from clr.core.baseline import Baseline
    from clr.plan import Curve, Point

LOG = logging.getLogger("clr")
Result = dict[str, Any]
PROBES = 5
"""Subsets of each size that a linear probe is fitted on."""


def run_plan(
    session: Session,
    path: Path,
    target: float,
    epochs: int,
    minutes: float,
    place: Path | None,
    name: str | None = None,
) -> Result:
    """Measure learning curves of the pilot set in `path`, fit them, write ``plan.json|png``.

    Args:
        session: settings and backbone; neither registry nor ledger is opened.
        path: a task folder.
        target: accuracy that is wanted.
        epochs: of each CLR training.
        minutes: that CLR trainings may take.
        place: folder of the report; by default one under the workspace's state.
        name: of the task, where the folder's is not one.

    Raises:
        UsageError: a bad folder, recipe or assumption.
        DataRefused: images that cannot be read, too few of them, or some that cannot judge.
        ServiceUnavailable: `place` is no folder that can be written.
    """
    from clr.plan import as_document, fit_curve, subset_sizes
    from flows.plan_report import picture, worth

    started = time.monotonic()
    if place is not None:
        require_writable(place)  # now, not after the trainings
    pilot = read_pilot(session, path, epochs, name)
    images, held = len(pilot.train), len(pilot.held)
    sizes = subset_sizes(images, len(pilot.classes))
    chosen, estimate = _affordable(pilot, sizes, 60 * minutes)
    LOG.info(
        "plan      %d probes, %d trainings: about %.0f min",
        PROBES * (len(sizes) - 1) + 1, sum(n for _, n in chosen), estimate / 60,
    )  # fmt: skip
    curves = {"probe": fit_curve(list(probe_points(pilot, sizes)), held, images)}
    begun = time.monotonic()
    training = list(training_points(pilot, chosen, begun + 60 * minutes))
    ended = time.monotonic()
    if len({point.images for point in training}) >= 4:
        curves["clr"] = fit_curve(training, held, images)
    best: Curve = curves.get("clr", curves["probe"])
    document: Result = {
        "task": pilot.task.name,
        "images": images,
        "held_out": held,
        "classes": list(pilot.classes),
        "epochs": epochs,
        "target": target,
        "curves": {name: as_document(curve, target) for name, curve in curves.items()},
    }
    value = worth(pilot, best, curves["probe"], target)
    if value:
        document["worth"] = value
    document["seconds"] = {
        "trainings_estimated": round(estimate, 1),
        "trainings": round(ended - begun, 1),
        "total": round(ended - started, 1),
    }
    folder = place or session.settings.state / "plans" / pilot.task.name
    return document | write(folder, document, picture(curves, target, pilot.task.title))


def write(folder: Path, document: Result, png: bytes) -> Result:
    """Write the report's files; return their paths."""
    from clr.core.files import write_atomic

    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "plan.json", json.dumps(document, indent=2).encode())
    write_atomic(folder / "plan.png", png)
    return {"report": str(folder / "plan.json"), "picture": str(folder / "plan.png")}


def _affordable(
    pilot: Pilot, sizes: list[int], seconds: float
) -> tuple[list[tuple[int, int]], float]:
    """Return the trainings that the time pays, and what they will take."""
    from clr.plan import affordable

    chosen = affordable(sizes, pilot.seconds, seconds)
    return chosen, sum(count * pilot.seconds(images) for images, count in chosen)


def probe_points(pilot: Pilot, sizes: list[int]) -> Iterator[Point]:
    """Fit linear probes on subsets of every size; yield the accuracy of each."""
    from clr.plan import Point

    for size in sizes:
        for repeat in range(PROBES if size < len(pilot.train) else 1):
            baseline = subset_baseline(pilot, size, repeat)
            logits = baseline.whole.logits(pilot.held_features)
            yield Point(size, _accuracy(logits, pilot))
        LOG.info("plan      probes on %d images are done", size)


def training_points(
    pilot: Pilot, chosen: list[tuple[int, int]], deadline: float
) -> Iterator[Point]:
    """Train adapters on subsets, small ones first; yield the accuracy of each.

    Ends early where the next one would pass the deadline (of `time.monotonic`), if it is as much
    slower than estimated as the last one was.
    """
    from clr.core.evaluate import run
    from clr.core.network import ReprogrammedNetwork
    from clr.core.train import fit, spec_of
    from clr.plan import Point

    backbone = pilot.session.backbone
    network = ReprogrammedNetwork(backbone)
    spec = spec_of(pilot.task.name, pilot.classes, backbone, pilot.preprocessing, pilot.recipe)
    turns, slowness = pilot.turns if chosen else (), 1.0
    for size, repeats in reversed(chosen):
        for repeat in range(repeats):
            begun = time.monotonic()
            if begun + slowness * pilot.seconds(size) > deadline:
                LOG.info("plan      no time is left for trainings on %d images", size)
                return
            baseline = replace(subset_baseline(pilot, size, repeat), turns=turns)
            trained = fit(backbone, pilot.train, baseline, spec, pilot.recipe)
            network.attach(trained.adapter)
            logits = run(
                lambda batch: network.logits(batch, spec.task),
                pilot.held, pilot.preprocessing, backbone.device,
            )  # fmt: skip
            accuracy = _accuracy(logits, pilot)
            slowness = (time.monotonic() - begun) / pilot.seconds(size)
            LOG.info("plan      training on %d images: accuracy %.3f", size, accuracy)
            yield Point(size, accuracy)


def subset_baseline(pilot: Pilot, size: int, seed: int) -> Baseline:
    """Return what onboarding would know of a subset, but for the turns."""
    import torch

    from clr.core.baseline import Baseline, class_weights, fit_probes, split
    from clr.plan import subset

    labels = pilot.train.labels
    chosen = torch.from_numpy(subset(labels.numpy(), size, seed))
    train, held = (
        chosen[part] for part in split(labels[chosen], pilot.recipe.validation_share, seed)
    )
    weights = class_weights(labels[train], len(pilot.classes), pilot.recipe.balance)
    probe, whole = fit_probes(pilot.features, labels, train, held, weights)
    return Baseline(probe, whole, train, held, (), weights)


def _accuracy(logits: Tensor, pilot: Pilot) -> float:
    return float((logits.argmax(1) == pilot.held.labels).float().mean())
