"""What an epoch costs: the published structure, this package's, and the floor under both.

Ways over the same images, one after the other in one process, several times:

- published: as released with the paper (`clr.core.methods.published`): files are decoded in
  every epoch, tensors are contiguous, the backbone is a deep copy, batch norms use statistics
  of the batch;
- clr: the default recipe, whose images are decoded once, batches channels last, frozen batch
  norms folded into kernels, in bfloat16 where the processor is faster in it, and no more validated
  than it has to be: at its end;
- the same with one of these changed;
- floor: forward and the gradient of the input through the bare backbone, batches prepared:
  what any method costs that changes features from the first layer on.

`CLR_BENCH_FOLDERS=a` gives a task folder (default: the demo's materials), `CLR_BENCH_IMAGES` the
number of training images, `CLR_BENCH_EPOCHS` the epochs of a training; `CLR_WRITE_DOCS=1` puts the
table into docs/recipe.md.
"""

from __future__ import annotations

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests.benchmarks.pages import write_docs

if TYPE_CHECKING:
    from torch import Tensor

    from clr.core.backbone import Backbone
    from clr.core.images import ImageSet
    from clr.core.methods.interface import Lesson

Logits = Callable[["Tensor"], "Tensor"]
Way = Callable[["Setting"], "Logits | None"]
IMAGES = int(os.environ.get("CLR_BENCH_IMAGES", "400"))
EPOCHS = int(os.environ.get("CLR_BENCH_EPOCHS", "8"))
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
        test: those of the test split, decoded once.
    """

    backbone: Backbone
    copied: Backbone
    lesson: Lesson
    files: ImageSet
    test: ImageSet


def main() -> None:
    """Print seconds an epoch and test accuracy of each way, and their ratios."""
    named = os.environ.get("CLR_BENCH_FOLDERS", "")
    with tempfile.TemporaryDirectory() as place:
        setting = read(Path(named.split(",")[0]) if named else demo(Path(place)))
        table = measured(setting)
    print(table, flush=True)
    if os.environ.get("CLR_WRITE_DOCS"):
        write_docs("recipe.md", {"epochs": table})


def measured(setting: Setting) -> str:
    """Return the table of all ways, in turns."""
    import torch

    from clr.core.precision import cpu_prefers_bfloat16
    from flows.provenance import hardware

    ways: dict[str, Way] = {
        "published": published,
        "CLR": reprogrammed,
        "CLR, files decoded in every epoch": decoding,
        "CLR, tensors contiguous": contiguous,
        f"CLR, {'float32' if cpu_prefers_bfloat16() else 'bfloat16'}": in_other_precision,
        "CLR, `from_stride: 1`": whole,
        "CLR, `from_stride: 8`": late,
        "floor": floor,
    }
    seen: dict[str, list[float]] = {name: [] for name in ways}
    accuracy: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            trained = way(setting)
            seen[name].append((time.perf_counter() - started) / EPOCHS)
            if trained:
                accuracy[name] = accuracy_of(setting, trained)
    middle = {name: statistics.median(values) for name, values in seen.items()}
    count = len(setting.lesson.baseline.train)
    lines = [
        f"{date.today()}, {hardware('cpu')}, {torch.get_num_threads()} threads, no GPU: "
        f"{count} images of {setting.lesson.task}, {SIDE} pixels, {EPOCHS} epochs.",
        "",
        "| way | seconds an epoch | of published | times the floor | test accuracy |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, value in middle.items():
        right = f"{100 * accuracy[name]:.1f} %" if name in accuracy else ""
        shares = f"{value / middle['published']:.2f} | {value / middle['floor']:.2f}"
        lines.append(f"| {name} | {value:.2f} | {shares} | {right} |")
    return "\n".join(lines)


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
    preprocessing = Preprocessing(SIDE, backbone.mean, backbone.std, backbone.interpolation)

    def images(split: str, most: int, **how: int) -> ImageSet:
        files = [
            (path, number)
            for number, label in enumerate(labels)
            for path in sorted((folder / split / label).iterdir())[:most]
        ]
        return ImageSet([p for p, _ in files], [n for _, n in files], preprocessing, **how)

    each = IMAGES // len(labels)
    held = images("train", each)
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
        images("train", each, cache_mb=0),
        images("test", IMAGES),
    )


def published(setting: Setting) -> Logits:
    """Train as released with the paper."""
    return trained_by(
        "clr-published", setting.copied, replace(setting.lesson, images=setting.files)
    )


def reprogrammed(setting: Setting) -> Logits:
    """Train by the default recipe."""
    return trained_by("clr-reduced", setting.backbone, setting.lesson)


def decoding(setting: Setting) -> Logits:
    """Train so, but decode the files in every epoch."""
    return trained_by(
        "clr-reduced", setting.backbone, replace(setting.lesson, images=setting.files)
    )


def contiguous(setting: Setting) -> Logits:
    """Train so, but with channels apart from each other in memory."""
    return trained_by("clr-reduced", setting.copied, setting.lesson)


def in_other_precision(setting: Setting) -> Logits:
    """Train so, but in bfloat16 where float32 is taken to be faster, or the reverse."""
    from clr.core.precision import cpu_prefers_bfloat16

    with patch("clr.core.precision.cpu_prefers_bfloat16", return_value=not cpu_prefers_bfloat16()):
        return reprogrammed(setting)


def whole(setting: Setting) -> Logits:
    """Train so, but kernels of the first layers, too, which few images leave at identity."""
    return trained_by("clr-reduced+from_stride=1", setting.backbone, setting.lesson)


def late(setting: Setting) -> Logits:
    """Train so, but leave more kernels at identity."""
    return trained_by("clr-reduced+from_stride=8", setting.backbone, setting.lesson)


def trained_by(method: str, backbone: Backbone, lesson: Lesson) -> Logits:
    """Train by a method; return how it would be served."""
    from clr.core.methods import Budget, find_method

    learner = find_method(method).start(backbone)
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


def accuracy_of(setting: Setting, logits: Logits) -> float:
    """Return the share of the test split that `logits` labels right."""
    from clr.core.evaluate import run

    images = setting.test
    found = run(logits, images, setting.lesson.preprocessing, setting.backbone.device)
    return float((found.argmax(1) == images.labels).float().mean())
