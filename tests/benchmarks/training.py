"""What an epoch costs: the published structure, this package's, and the floor under both.

Three ways over the same images, one after the other in one process, several times:

- published: as released with the paper (`clr.core.methods.published`): files are decoded in
  every epoch, tensors are contiguous, the backbone is a deep copy, batch norms use statistics
  of the batch;
- clr: the default recipe, whose images are decoded once, batches channels last, frozen batch
  norms folded into kernels;
- floor: forward and the gradient of the input through the bare backbone, batches prepared:
  what any method costs that changes features from the first layer on.

`CLR_BENCH_FOLDERS=a` gives a task folder (default: the demo's materials), `CLR_BENCH_IMAGES` the
number of training images, `CLR_BENCH_EPOCHS` the epochs of a training.
"""

from __future__ import annotations

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from clr.core.backbone import Backbone
    from clr.core.images import ImageSet
    from clr.core.methods.interface import Lesson

Logits = Callable[["Tensor"], "Tensor"]
IMAGES = int(os.environ.get("CLR_BENCH_IMAGES", "400"))
EPOCHS = int(os.environ.get("CLR_BENCH_EPOCHS", "2"))
ROUNDS = 3
SIDE = 96


@dataclass(frozen=True, eq=False)
class Setting:
    """What all ways are given.

    Attributes:
        backbone: in this package's layout.
        copied: a deep copy of it, its tensors contiguous.
        lesson: images decoded once.
        files: the same images, decoded whenever they are asked for.
    """

    backbone: Backbone
    copied: Backbone
    lesson: Lesson
    files: ImageSet


def main() -> None:
    """Print seconds an epoch and validation accuracy of each way, and their ratios."""
    import torch

    named = os.environ.get("CLR_BENCH_FOLDERS", "")
    with tempfile.TemporaryDirectory() as place:
        setting = read(Path(named.split(",")[0]) if named else demo(Path(place)))
        count, threads = len(setting.lesson.baseline.train), torch.get_num_threads()
        print(f"  {setting.lesson.task}: {count} training images, {threads} threads")
        ways = {"published": published, "clr": reprogrammed, "floor": floor}
        seen: dict[str, list[float]] = {name: [] for name in ways}
        accuracy: dict[str, float] = {}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                started = time.perf_counter()
                trained = way(setting)
                seen[name].append((time.perf_counter() - started) / EPOCHS)
                if trained:
                    accuracy[name] = validation_accuracy(setting, trained)
    middle = {name: statistics.median(values) for name, values in seen.items()}
    print("  way        s/epoch  ÷ published  ÷ floor  validation accuracy")
    for name, value in middle.items():
        shown = f"{100 * accuracy[name]:.1f} % after {EPOCHS} epochs" if name in accuracy else ""
        print(
            f"  {name:<10} {value:>7.2f} {value / middle['published']:>12.2f} "
            f"{value / middle['floor']:>8.2f}  {shown}",
            flush=True,
        )


def demo(place: Path) -> Path:
    """Write the demo's tasks and return the folder of one."""
    from clr.data.demo import make_demo

    make_demo(place)
    return place / "materials"


def read(folder: Path) -> Setting:
    """Load the backbone and a stratified part of the folder's training images."""
    import torch

    from clr.core.backbone import load_backbone
    from clr.core.baseline import measure_baseline
    from clr.core.images import ImageSet, Preprocessing
    from clr.core.methods.interface import Lesson
    from clr.core.recipe import Recipe

    backbone = load_backbone("tf_efficientnet_lite0")
    labels = tuple(sorted(one.name for one in (folder / "train").iterdir()))
    files = [
        (path, number)
        for number, label in enumerate(labels)
        for path in sorted((folder / "train" / label).iterdir())[: IMAGES // len(labels)]
    ]
    preprocessing = Preprocessing(SIDE, backbone.mean, backbone.std, backbone.interpolation)
    paths, numbers = [path for path, _ in files], [number for _, number in files]
    held = ImageSet(paths, numbers, preprocessing)
    recipe = Recipe(epochs=EPOCHS)
    baseline = measure_baseline(backbone, held, preprocessing, recipe, len(labels))
    module = copy.deepcopy(backbone.module).to(memory_format=torch.contiguous_format)
    module.register_forward_pre_hook(lambda _, given: (given[0].contiguous(),))
    modules = dict(module.named_modules())
    convolutions: dict[str, Any] = {path: modules[path] for path in backbone.convolutions}
    return Setting(
        backbone,
        replace(backbone, module=module, convolutions=convolutions),
        Lesson(folder.name, labels, held, preprocessing, baseline),
        ImageSet(paths, numbers, preprocessing, cache_mb=0),
    )


def published(setting: Setting) -> Logits:
    """Train as released with the paper."""
    return trained_by(
        "clr-published", setting.copied, replace(setting.lesson, images=setting.files)
    )


def reprogrammed(setting: Setting) -> Logits:
    """Train by the default recipe."""
    return trained_by("clr-reduced", setting.backbone, setting.lesson)


def trained_by(method: str, backbone: Backbone, lesson: Lesson) -> Logits:
    """Train by a method; return how it would be served."""
    from clr.core.methods import METHODS, Budget

    learner = METHODS[method].start(backbone)
    learner.learn(lesson, Budget(EPOCHS), 0)
    return lambda batch: learner.logits(batch, lesson.task)


def floor(setting: Setting) -> None:
    """Pass batches through the bare backbone and back to its input."""
    import torch

    from clr.core.images import prepare
    from clr.core.recipe import Recipe

    lesson = setting.lesson
    for _ in range(EPOCHS):
        for part in torch.split(lesson.baseline.train, Recipe().batch_size):
            batch = prepare(lesson.images.batch(part), lesson.preprocessing).requires_grad_()
            setting.backbone.module(batch).sum().backward()


def validation_accuracy(setting: Setting, logits: Logits) -> float:
    """Return the share of the validation part that `logits` labels right."""
    from clr.core.evaluate import run

    lesson, held = setting.lesson, setting.lesson.baseline.validation
    found = run(logits, lesson.images, lesson.preprocessing, setting.backbone.device, held)
    return float((found.argmax(1) == lesson.images.labels[held]).float().mean())
