"""The tasks of a comparison, and which of their images each seed trains on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from clr.core.files import canonical_json, sha256_bytes
from clr.errors import DataRefused, UsageError
from clr.settings import Settings

FEWEST = 2
"""Training images of a class at least: one to train on, one to validate on."""
_LOOKED_AT = 100


@dataclass(frozen=True)
class File:
    """One image.

    Attributes:
        path: POSIX path below the task folder.
        label: index into the task's labels.
        sha256: of its bytes.
    """

    path: str
    label: int
    sha256: str


@dataclass(frozen=True, eq=False)
class Task:
    """A task folder as it is compared on.

    Attributes:
        name: of the task.
        root: absolute path of its folder.
        labels: sorted class names.
        size: side in pixels of the network's input.
        train: all images of its train split.
        test: all images of its test split.
    """

    name: str
    root: str
    labels: tuple[str, ...]
    size: int
    train: tuple[File, ...]
    test: tuple[File, ...]

    @property
    def digest(self) -> str:
        """Digest of names, labels and bytes of all images, and of their size as input."""
        return files_digest((*self.train, *self.test), self.labels, self.size, len(self.train))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """Return the task that `asdict` wrote, after JSON."""
        files = {split: tuple(File(*one) for one in values[split]) for split in ("train", "test")}
        return cls(**{**values, "labels": tuple(values["labels"]), **files})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-serialisable; files as [path, label, sha256]."""
        lists = {name: [[*vars(one).values()] for one in getattr(self, name)]
                 for name in ("train", "test")}  # fmt: skip
        return {**asdict(self), **lists, "labels": list(self.labels)}

    def chosen(self, seed: int, images: int, per_class: int) -> tuple[File, ...]:
        """Return the training images of a seed, in the order of their paths.

        Of each class those whose content comes first in an order that the seed decides, so
        that a smaller subset is part of a larger one, whatever the files are called.

        Args:
            seed: decides which.
            images: so many, classes in the proportion of the whole; 0: all.
            per_class: so many of each class instead; 0: see `images`.
        """
        members = [[one for one in self.train if one.label == k] for k in range(len(self.labels))]
        if per_class:
            counts = [min(per_class, len(one)) for one in members]
        else:
            counts = proportional([len(one) for one in members], images or len(self.train))
        found = [
            one
            for files, count in zip(members, counts, strict=True)
            for one in sorted(files, key=lambda file: _rank(file, seed))[:count]
        ]
        return tuple(sorted(found, key=lambda file: file.path))


def files_digest(files: Iterable[File], *about: Any) -> str:
    """Return the digest of images and what else there is to say about them."""
    return sha256_bytes(canonical_json([[[*vars(one).values()] for one in files], *about]))


def proportional(sizes: Sequence[int], total: int) -> list[int]:
    """Share out `total` in the proportion of `sizes` by largest remainders, `FEWEST` each at least.

    A part never gets more than its size.
    """
    whole = sum(sizes)
    if total >= whole:
        return list(sizes)
    exact = [total * size / whole for size in sizes]
    shares = [max(min(FEWEST, size), int(one)) for one, size in zip(exact, sizes, strict=True)]
    order = sorted(range(len(sizes)), key=lambda at: (int(exact[at]) - exact[at], at))
    for at in order:
        if sum(shares) >= total:
            break
        shares[at] = min(sizes[at], max(shares[at], int(exact[at]) + 1))
    return shares


def _rank(file: File, seed: int) -> tuple[str, str]:
    """Return where an image stands in a seed's order; names tell images of one content apart."""
    return hashlib.sha256(f"{seed}:{file.sha256}".encode()).hexdigest(), file.path


def read_tasks(
    settings: Settings, paths: Sequence[Path], names: Sequence[str], size: int
) -> tuple[Task, ...]:
    """Read the tasks to compare on: folders that are given, or all of the workspace.

    Args:
        settings: of the workspace.
        paths: task folders; none: those in ``data/``.
        names: only these of them, in this order; none: all.
        size: side of the input; 0: from each task's own images, as ``clr onboard`` decides it.

    Raises:
        UsageError: no task, an unknown or doubled name, no folder.
        DataRefused: a task has no usable images of some class.
    """
    data = settings.workspace / "data"
    there = list(paths) or (sorted(data.iterdir()) if data.is_dir() else [])
    folders = [one for one in there if paths or one.is_dir()]
    known = {Path(os.path.realpath(one)).name: one for one in folders}
    if not known:
        raise UsageError(
            "There is no task to compare on: data/ of this workspace is empty.",
            fix="Give task folders: clr compare PATH…, or onboard some first.",
        )
    if len(known) < len(folders):
        raise UsageError("Two of the folders have one name.", fix="Rename one of them.")
    for name in names:
        if name not in known:
            raise UsageError(
                f"--tasks names {name!r}, which is none of them.",
                fix=f"There are {', '.join(known)}.",
            )
    return tuple(_read(known[name], size, settings.max_image_pixels) for name in names or known)


def _read(path: Path, size: int, max_pixels: int) -> Task:
    from clr.data.folder import read_task
    from clr.data.inspect import UnreadableError, max_bytes, read_confined
    from clr.data.listing import walk
    from clr.data.manifest import Row, split_off_test

    folder = read_task(path)
    places = [
        (split, label, f"{split}/{label}/{name}")
        for split in ("train", "test")
        for label in folder.classes
        for name, _ in walk(folder.root / split / label)
    ]

    def row(place: tuple[str, str, str]) -> Row:
        split, label, name = place
        try:
            data = read_confined(folder.root, name, limit=max_bytes(max_pixels))
        except UnreadableError as error:
            raise DataRefused(f"{path / name}: {error}.", fix="Remove or replace it.") from error
        return Row(path=name, split=split, label=label, sha256=sha256_bytes(data))

    with ThreadPoolExecutor(8, "clr-hash") as pool:
        rows = list(pool.map(row, places))
    if not folder.has_test:
        rows = list(split_off_test(rows))
    number = {label: at for at, label in enumerate(folder.classes)}
    train, test = (
        tuple(File(one.path, number[one.label], one.sha256) for one in rows if one.split == split)
        for split in ("train", "test")
    )
    task = Task(folder.name, str(folder.root), folder.classes, size, train, test)
    _require_images(task)
    return task if size else Task(**{**vars(task), "size": _size(task)})


def _require_images(task: Task) -> None:
    for at, label in enumerate(task.labels):
        counts = [sum(one.label == at for one in split) for split in (task.train, task.test)]
        if counts[0] < FEWEST or counts[1] < 1:
            raise DataRefused(
                f"Task {task.name}: class {label} has {counts[0]} training and {counts[1]} test "
                f"images; at least {FEWEST} and 1 are needed.",
                fix="Add images, or remove the class.",
            )
    if len(task.labels) < 2:
        raise DataRefused(f"Task {task.name} has one class.", fix="Two are the fewest.")


def _size(task: Task) -> int:
    from PIL import Image

    from clr.core.recipe import image_size

    sides = []
    for file in task.train[:: max(1, len(task.train) // _LOOKED_AT)]:
        try:
            with Image.open(Path(task.root) / file.path) as image:
                sides.append(max(image.size))
        except OSError as error:
            raise DataRefused(
                f"{Path(task.root) / file.path} is not an image.", fix="Remove or replace it."
            ) from error
    return image_size(median(sides))
