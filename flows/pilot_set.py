"""A pilot set: a task folder whose images have been through the bare backbone, nothing more."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from clr.errors import DataRefused
from flows.session import Session

if TYPE_CHECKING:
    from torch import Tensor

    from clr.core.images import ImageSet, Preprocessing
    from clr.core.recipe import Recipe
    from clr.data.folder import TaskFolder
    from clr.data.manifest import Manifest

LOG = logging.getLogger("clr")
STRENGTH = 0.03
"""L2 penalty of the probes that find the turns: in the middle of those that are tried."""
STEP = 3.5
"""A training step costs so many forward passes: forward, input gradients, kernels' gradients."""


@dataclass(frozen=True, eq=False)
class Pilot:
    """What is known of a pilot set before any model is trained.

    Attributes:
        session: settings and backbone.
        task: what its folder says.
        classes: names.
        recipe: how adapters are trained here.
        preprocessing: of its images.
        train: images that subsets are drawn from.
        held: images that judge, never trained on.
        features: float32 [train, channels] of the bare backbone.
        held_features: the same of the held-out images.
        forward: seconds that one image takes through the backbone.
    """

    session: Session
    task: TaskFolder
    classes: tuple[str, ...]
    recipe: Recipe
    preprocessing: Preprocessing
    train: ImageSet
    held: ImageSet
    features: Tensor
    held_features: Tensor
    forward: float

    def seconds(self, images: int) -> float:
        """Return about how long a training on so many images takes, and its judging."""
        return self.forward * (STEP * self.recipe.epochs * images + len(self.held))

    @cached_property
    def turns(self) -> tuple[str, ...]:
        """Mirrored and turned images that keep their label, for trainings."""
        from clr.core.baseline import label_keeping_turns

        if not self.recipe.flips:
            return ()
        return label_keeping_turns(
            self.session.backbone,
            self.train,
            self.preprocessing,
            self.features,
            STRENGTH,
            self.recipe.seed,
        )


def read_pilot(session: Session, path: Path, epochs: int, name: str | None = None) -> Pilot:
    """Read the folder of a task, called `name` or as it is, and run its images through once.

    Raises:
        UsageError: a bad folder or recipe.
        DataRefused: images that cannot be read, too few of them, or some that cannot judge.
    """
    from statistics import median

    from clr.core.images import Preprocessing
    from clr.core.recipe import Recipe, image_size
    from clr.data.manifest import scan
    from clr.plan import check_pilot
    from flows.asked import check_request

    task = check_request(session, path, name)
    LOG.info("scan      %s …", task.name)
    manifest = scan(task, max_pixels=session.settings.max_image_pixels)
    _refuse_bad_files(manifest)
    check_pilot(_counts(manifest, task.name), manifest.test)
    _refuse_bad_judges(manifest)
    recipe = Recipe.of(task.recipe, seed=session.settings.seed)
    side = median(max(row.width, row.height) for row in manifest.rows)
    size = recipe.image_size or image_size(side)
    recipe = Recipe.of({**recipe.as_dict(), "image_size": size, "epochs": epochs})
    backbone = session.backbone
    preprocessing = Preprocessing(size, backbone.mean, backbone.std, backbone.interpolation)
    train, held = (_images(session, manifest, s, preprocessing) for s in ("train", "test"))
    LOG.info("features  %d images …", len(train) + len(held))
    held_features = _features(session, held, preprocessing)
    begun = time.perf_counter()
    features = _features(session, train, preprocessing)
    forward = (time.perf_counter() - begun) / len(train)
    return Pilot(
        session, task, manifest.classes, recipe, preprocessing, train, held, features,
        held_features, forward,
    )  # fmt: skip


def _refuse_bad_files(manifest: Manifest) -> None:
    bad = [row for row in manifest.rows if row.error]
    if bad:
        raise DataRefused(
            f"{len(bad)} of {len(manifest.rows)} files cannot be used, first {bad[0].path}: "
            f"{bad[0].error}",
            fix="Replace or remove them.",
            files=[row.path for row in bad],
        )


def repeated(found: Iterable[tuple[str, str]]) -> set[str]:
    """Return the digests that are in more than one place.

    Args:
        found: digest and place of each file: its class, its split or its path.
    """
    places: dict[str, set[str]] = {}
    for digest, place in found:
        places.setdefault(digest, set()).add(place)
    return {digest for digest, names in places.items() if len(names) > 1}


def _refuse_bad_judges(manifest: Manifest) -> None:
    """Refuse images that an onboarding would not take as a test either.

    Raises:
        DataRefused: the same bytes are in both splits or in several classes, or a class has no
            held-out images.
    """
    labels = repeated((row.sha256, row.label) for row in manifest.rows)
    splits = repeated((row.sha256, row.split) for row in manifest.rows)
    for several, where, fix in (
        (labels, "in several classes", "Decide on one class for each."),
        (splits, "in train and in test", "Keep each in one split."),
    ):
        bad = [row.path for row in manifest.rows if row.sha256 in several]
        if bad:
            raise DataRefused(
                f"{len(bad)} of {len(manifest.rows)} files are {where} with the same bytes, "
                f"first {bad[0]}.",
                fix=fix,
                files=bad,
            )
    judged = {row.label for row in manifest.rows if row.split == "test"}
    if missing := [name for name in manifest.classes if name not in judged]:
        raise DataRefused(
            f"The pilot set has no held-out images of {', '.join(missing)}.",
            fix="Add images of each class under test/, or remove test/: then one image in five "
            "of train/ judges.",
        )


def _counts(manifest: Manifest, task: str) -> list[int]:
    """Return the number of training images of each class."""
    if len(manifest.classes) < 2:
        raise DataRefused(
            f"Task {task} has one class; a classifier needs two or more.",
            fix="Add a folder for each class under train/.",
        )
    labels = [row.label for row in manifest.rows if row.split == "train"]
    return [labels.count(name) for name in manifest.classes]


def _images(
    session: Session, manifest: Manifest, split: str, preprocessing: Preprocessing
) -> ImageSet:
    from clr.core.images import ImageSet

    rows = [row for row in manifest.rows if row.split == split]
    return ImageSet(
        [manifest.root / row.path for row in rows],
        [manifest.classes.index(row.label) for row in rows],
        preprocessing,
        cache_mb=session.settings.image_cache_mb,
        max_pixels=session.settings.max_image_pixels,
    )


def _features(session: Session, images: ImageSet, preprocessing: Preprocessing) -> Tensor:
    from clr.core.evaluate import run

    backbone = session.backbone
    return run(backbone.module, images, preprocessing, backbone.device)
