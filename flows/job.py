"""One task on its way through the pipeline: what every step of it shares, made on first use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from flows.session import Session
from flows.steps import digest_of

if TYPE_CHECKING:
    from clr.core.adapter import AdapterSpec
    from clr.core.baseline import Baseline
    from clr.core.images import ImageSet, Preprocessing
    from clr.core.recipe import Recipe
    from clr.data.folder import TaskFolder
    from clr.data.manifest import Manifest
    from clr.data.versioning import DataVersion

LOG = logging.getLogger("clr")
Result = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Job:
    """A validated and versioned task.

    Attributes:
        session: the workspace.
        task: what its folder says.
        manifest: its images.
        data: its data as pinned.
        attempt: 0, or how often the same onboarding was refused or rejected before.
    """

    session: Session
    task: TaskFolder
    manifest: Manifest
    data: DataVersion
    attempt: int = 0

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe, its image size decided."""
        from clr.core.recipe import Recipe, image_size

        recipe = Recipe.of(self.task.recipe, seed=self.session.settings.seed)
        if recipe.image_size:
            return recipe
        side = median(max(row.width, row.height) for row in self.manifest.rows)
        return Recipe.of({**recipe.as_dict(), "image_size": image_size(side)})

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How this task's images become inputs."""
        from clr.core.images import Preprocessing

        backbone = self.session.backbone
        return Preprocessing(
            self.recipe.image_size, backbone.mean, backbone.std, backbone.interpolation
        )

    @cached_property
    def spec(self) -> AdapterSpec:
        """What the adapter is for."""
        from clr.core.train import spec_of

        return spec_of(
            self.task.name,
            self.manifest.classes,
            self.session.backbone,
            self.preprocessing,
            self.recipe,
        )

    @cached_property
    def training_key(self) -> str:
        """Digest of all that determines the trained adapter."""
        return digest_of({"spec": asdict(self.spec), "images": self.manifest.digest})

    @cached_property
    def key(self) -> str:
        """Idempotency key of the whole onboarding: the same folder twice is one version."""
        parts = {"training": self.training_key, "data": self.data.digest}
        return digest_of({**parts, "attempt": self.attempt} if self.attempt else parts)

    @cached_property
    def folder(self) -> Path:
        """Where the files of this onboarding are, reports included."""
        short = self.key.removeprefix("sha256:")[:16]
        return self.session.settings.state / "tasks" / self.task.name / short

    @cached_property
    def training_folder(self) -> Path:
        """Where what depends on images and recipe alone is: also found by a second version."""
        short = self.training_key.removeprefix("sha256:")[:16]
        return self.session.settings.state / "trainings" / self.task.name / short

    @cached_property
    def train_images(self) -> ImageSet:
        """The train split, decoded."""
        return images_of(self.session, self.data.folder, "train", self.spec)

    @cached_property
    def test_images(self) -> ImageSet:
        """The test split, decoded, with the digest of each file."""
        return images_of(self.session, self.data.folder, "test", self.spec)

    @cached_property
    def baseline(self) -> Baseline:
        """Linear probe, validation part, symmetries: on the train split alone."""
        from clr.core.baseline import measure_baseline

        return measure_baseline(
            self.session.backbone,
            self.train_images,
            self.preprocessing,
            self.recipe,
            len(self.manifest.classes),
        )


def images_of(
    session: Session,
    folder: Path,
    split: str,
    spec: AdapterSpec,
    *,
    preprocessing: Preprocessing | None = None,
    per_class: int | None = None,
) -> ImageSet:
    """Decode a split of a task in ``data/``; hidden files and system clutter are left out.

    Args:
        session: limits of memory and pixels.
        folder: ``data/<task>``.
        split: ``train`` or ``test``.
        spec: labels, and preprocessing unless given.
        preprocessing: another one.
        per_class: at most so many of each class, spread evenly over the order of their names.

    Raises:
        DataRefused: a file cannot be read or decoded.
    """
    from clr.core.images import ImageSet
    from clr.data.listing import walk

    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(spec.labels):
        place = folder / split / name
        files = sorted(place / path for path, _ in walk(place))
        count = min(len(files), len(files) if per_class is None else per_class)
        paths += [files[at * len(files) // count] for at in range(count)]
        labels += [label] * count
    settings = session.settings
    return ImageSet(
        paths,
        labels,
        preprocessing or spec.preprocessing,
        cache_mb=settings.image_cache_mb,
        max_pixels=settings.max_image_pixels,
        hashed=split == "test",
        on_progress=progress(f"decode    {spec.task} {split}"),
    )


def progress(what: str, every: int = 1000) -> Callable[[int, int], None]:
    """Return a callback (done, total) that logs every so many items."""

    def tell(done: int, total: int) -> None:
        if done % every == 0 and done < total:
            LOG.info("%s: %d of %d", what, done, total)

    return tell
