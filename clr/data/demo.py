"""The demo's tasks, made again byte for byte from what installed packages carry.

Four small tasks: handwritten `digits` (scikit-learn), `materials` and `photos`
(crops of scikit-image's photographs, train and test from disjoint regions) and
a synthetic `surface` inspection. The committed ``data.dvc`` pins every byte.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from clr.data.demo_images import Dice, Gray, crops, enlarge, png, relit, shrink, turned
from clr.data.demo_surface import CLASSES as SURFACES
from clr.data.demo_surface import surface
from clr.errors import ServiceUnavailable, UsageError

Images = Iterator[tuple[str, Gray]]
"""Pairs of a path below the task folder, such as ``train/pit/003.png``, and its pixels."""

_TEMPORARY = ".demo-"


@dataclass(frozen=True)
class DemoTask:
    """One task of the demo: how to draw it, and what its ``task.yaml`` says."""

    name: str
    title: str
    owner: str
    business: dict[str, object]
    draw: Callable[[], Images]

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield every file of the task: its path below the task folder, and its bytes."""
        described = {"title": self.title, "owner": self.owner, "business": self.business}
        yield "task.yaml", yaml.safe_dump(described, sort_keys=False, allow_unicode=True).encode()
        for path, pixels in self.draw():
            yield path, png(pixels)


def make_demo(
    data_dir: Path,
    on_progress: Callable[[str, int, int], None] | None = None,
    names: Collection[str] | None = None,
) -> tuple[Path, ...]:
    """Write the demo's tasks below `data_dir`; files that are already right stay untouched.

    Args:
        data_dir: the workspace's ``data`` folder, or another.
        on_progress: called as (task, files done, files of the task) after every file.
        names: which tasks; by default all.

    Returns:
        The task folders, in the order digits, materials, surface, photos.

    Raises:
        UsageError: a task folder holds files that are not the demo's, or the
            packages of the group ``demo`` are missing.
        ServiceUnavailable: a file cannot be written.
    """
    report = on_progress or (lambda task, done, total: None)
    tasks = [task for task in TASKS if names is None or task.name in names]
    for task in tasks:
        files = dict(task.files())
        folder = data_dir / task.name
        _refuse_foreign(folder, files)
        for done, (path, content) in enumerate(files.items(), start=1):
            _write(folder / path, content)
            report(task.name, done, len(files))
    return tuple(data_dir / task.name for task in tasks)


def _refuse_foreign(folder: Path, files: dict[str, bytes]) -> None:
    foreign = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        if path.name.startswith(_TEMPORARY):
            path.unlink()
        elif path.name.startswith("."):
            continue  # hidden files are never part of a task
        elif path.relative_to(folder).as_posix() not in files:
            foreign.append(path.relative_to(folder).as_posix())
    if foreign:
        raise UsageError(
            f"{folder} holds {len(foreign)} files that are not the demo's: "
            f"{', '.join(foreign[:5])}.",
            fix="Move them away, or run the demo in another workspace (`clr init DIR`).",
            files=foreign,
        )


def _write(path: Path, content: bytes) -> None:
    """Write `content` if `path` does not hold it.

    No fsync: 1,900 of them take a minute on a slow disk, and a file lost in a power
    cut is noticed and written again by the next run.
    """
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    try:
        if path.is_file() and not path.is_symlink() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ServiceUnavailable(
            f"Cannot write {path}: {error.strerror}.",
            fix="Free some space or make the workspace writable, then run the same again.",
        ) from error


def _digits() -> Images:
    """8 x 8 scans of 43 writers, enlarged to 32 x 32; test writers come last in the file."""
    bunch = _package("sklearn.datasets").load_digits()
    scans = np.asarray(bunch.images).astype(np.int64) * 255 // 16
    for label in range(10):
        of_class = [enlarge(scan, 4) for scan in scans[np.asarray(bunch.target) == label]]
        yield from _named("train", str(label), of_class[:40])
        yield from _named("test", str(label), of_class[-30:])


def _materials() -> Images:
    """Crops of three photographs: train from the upper part, test from the lower."""
    photographs = _package("skimage.data")
    for name in ("brick", "grass", "gravel"):
        photograph = np.asarray(getattr(photographs, name)()).astype(np.int64)
        for split, count, region in (
            ("train", 100, photograph[:300]),
            ("test", 80, photograph[308:]),
        ):
            dice = Dice.named(f"materials/{split}/{name}")
            pieces = crops(region, count, 24, 12, dice)
            lit = (relit(turned(piece, dice), dice, (64, 224), 40) for piece in pieces)
            noisy = [piece + dice.noise(24, 24, 10) for piece in lit]
            yield from _named(split, name, [enlarge(piece, 2) for piece in noisy])


def _surface() -> Images:
    """Drawn, see clr/data/demo_surface.py."""
    for kind in SURFACES:
        for split, count in (("train", 90), ("test", 75)):
            seeds = (f"surface/{split}/{kind}/{index}" for index in range(count))
            yield from _named(split, kind, [surface(kind, Dice.named(seed)) for seed in seeds])


def _photos() -> Images:
    """Crops of five photographs: train from the left part, test from the right."""
    data = _package("skimage.data")
    photographs = {
        "astronaut": data.astronaut(),
        "cat": data.cat(),
        "coffee": data.coffee(),
        "motorcycle": data.stereo_motorcycle()[0],
        "tissue": data.immunohistochemistry(),
    }
    for name, pixels in photographs.items():
        photograph = np.asarray(pixels).astype(np.int64)
        border = photograph.shape[1] * 6 // 10
        for split, count, region in (
            ("train", 50, photograph[:, :border]),
            ("test", 40, photograph[:, border:]),
        ):
            dice = Dice.named(f"photos/{split}/{name}")
            pieces = crops(region, count, 96, 12, dice)
            yield from _named(split, name, [shrink(turned(piece, dice), 2) for piece in pieces])


def _named(split: str, label: str, images: list[Gray]) -> Images:
    for index, pixels in enumerate(images):
        yield f"{split}/{label}/{index:03d}.png", pixels


def _package(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(
            f"The demo needs the package that holds {module}.",
            fix="Install scikit-learn and scikit-image (dependency group `demo`).",
        ) from error


TASKS = (
    DemoTask(
        "digits",
        "Handwritten digits on forms",
        "document-intake",
        {
            "currency": "EUR",
            "items_per_year": 400_000,
            "error_cost": 0.35,
            "label_cost_per_image": 0.08,
            "compute_cost_per_hour": 0.6,
            "engineer_hours": 12,
            "hourly_rate": 85,
            "maintenance_hours_per_month": 1,
            "horizon_years": 3,
            "discount_rate": 0.08,
        },
        _digits,
    ),
    DemoTask(
        "materials",
        "Building materials on a conveyor, under changing light",
        "recycling-plant",
        {
            "currency": "EUR",
            "items_per_year": 250_000,
            "error_cost": 0.6,
            "label_cost_per_image": 0.1,
            "compute_cost_per_hour": 0.6,
            "engineer_hours": 16,
            "hourly_rate": 85,
            "maintenance_hours_per_month": 2,
            "horizon_years": 3,
            "discount_rate": 0.08,
        },
        _materials,
    ),
    DemoTask(
        "surface",
        "Defects on brushed metal sheets",
        "quality-control",
        {
            "currency": "EUR",
            "items_per_year": 120_000,
            "error_cost": 2.5,
            "label_cost_per_image": 0.25,
            "compute_cost_per_hour": 0.6,
            "engineer_hours": 24,
            "hourly_rate": 85,
            "maintenance_hours_per_month": 2,
            "horizon_years": 3,
            "discount_rate": 0.08,
        },
        _surface,
    ),
    DemoTask(
        "photos",
        "Which photograph a detail was cut from",
        "picture-archive",
        {
            "currency": "EUR",
            "items_per_year": 60_000,
            "error_cost": 0.4,
            "label_cost_per_image": 0.1,
            "compute_cost_per_hour": 0.6,
            "engineer_hours": 8,
            "hourly_rate": 85,
            "maintenance_hours_per_month": 1,
            "horizon_years": 3,
            "discount_rate": 0.08,
        },
        _photos,
    ),
)
"""The tasks, in the order in which the demo onboards them."""
