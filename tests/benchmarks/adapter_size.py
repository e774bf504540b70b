"""Accuracy against bytes: adapters of real tasks in every storage, dense and pruned in training.

`CLR_BENCH_TASK_FOLDERS=a:b` names task folders of pictures, as `clr onboard` takes them; else the
demo's tasks are made. At most 600 training images of a task, 96 pixels, 8 epochs, one training a
task and sparsity. The recipe chooses by the validation part; the test split is evidence.
`CLR_WRITE_DOCS=1` puts table and picture into docs/adapter-size.md.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.provenance import hardware
from tests.benchmarks.pages import DOCS, write_docs

if TYPE_CHECKING:
    from clr.core.adapter import Adapter
    from clr.core.baseline import Baseline
    from clr.core.images import ImageSet, Preprocessing

SPARSITIES = (0.0, 0.5)
IMAGES, SIDE, EPOCHS = 600, 96, 8
TICKS = (10, 30, 100, 300)
PICTURE = "![Test accuracy against kilobytes, a panel a task](images/adapter-size.png)"
COLOURS = {0.0: "#1b5e9c", 0.5: "#b34700"}


@dataclass(frozen=True)
class Row:
    """One adapter: file size, accuracies in percent, and answers unlike those of float32.

    `changed` and `lost` (in points) compare with the dense float32 adapter of the same task on
    its test images.
    """

    task: str
    sparsity: float
    storage: str
    bytes: int
    validation: float
    test: float
    changed: int
    lost: float
    images: int


def main() -> None:
    """Train each task dense and pruned, and judge it in every storage."""
    rows: list[Row] = []
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        for task in _folders(Path(folder)):
            for row in measure(task):
                rows.append(row)
                print("  " + "  ".join(str(value) for value in asdict(row).values()), flush=True)
    table = as_table(rows)
    print(f"\n{table}\n  {time.process_time() - started:.0f} s of processor time", flush=True)
    if os.environ.get("CLR_WRITE_DOCS"):
        (DOCS / "images" / "adapter-size.png").write_bytes(picture(rows))
        write_docs("adapter-size.md", {"sizes": f"{_machine()}\n\n{table}\n\n{PICTURE}"})


def _folders(scratch: Path) -> list[Path]:
    named = os.environ.get("CLR_BENCH_TASK_FOLDERS", "")
    if named:
        return [Path(one) for one in named.split(os.pathsep)]
    from clr.data.demo import make_demo

    return list(make_demo(scratch))


def measure(folder: Path) -> Iterator[Row]:
    """Yield one row a sparsity and storage of the task in `folder`."""
    from clr.core.adapter import Adapter, adapter_bytes
    from clr.core.backbone import load_backbone
    from clr.core.baseline import measure_baseline
    from clr.core.compress import STORAGES
    from clr.core.images import Preprocessing
    from clr.core.recipe import Recipe
    from clr.core.train import fit, spec_of

    backbone = load_backbone("tf_efficientnet_lite0")
    preprocessing = Preprocessing(SIDE, backbone.mean, backbone.std, backbone.interpolation)
    labels = tuple(sorted(one.name for one in (folder / "train").iterdir()))
    train, test = _images(folder, "train", preprocessing), _images(folder, "test", preprocessing)
    recipe = Recipe(epochs=EPOCHS, image_size=SIDE, storage="float32")
    baseline = measure_baseline(backbone, train, preprocessing, recipe, len(labels))
    reference: Any = None
    for sparsity in SPARSITIES:
        one = replace(recipe, sparsity=sparsity)
        spec = spec_of(folder.name, labels, backbone, preprocessing, one)
        trained = fit(backbone, train, baseline, spec, one).adapter
        for storage in STORAGES:
            stored = replace(one, storage=storage).as_dict()
            made = replace(spec, storage=storage, recipe=stored)  # type: ignore[arg-type]
            adapter = Adapter(made, trained.tensors).compressed()
            validation, right, answers = _judge(adapter, baseline, train, test)
            reference = (right, answers) if reference is None else reference
            yield Row(
                folder.name, sparsity, storage, len(adapter_bytes(adapter)),
                round(validation, 1), round(100 * float(right.mean()), 1),
                int((answers != reference[1]).sum()),
                round(100 * float(reference[0].mean() - right.mean()), 2), len(test),
            )  # fmt: skip


def _images(folder: Path, split: str, preprocessing: Preprocessing) -> ImageSet:
    """Return a split, of train at most `IMAGES` that a fixed seed draws."""
    import numpy as np

    from clr.core.images import ImageSet

    classes = sorted(one for one in (folder / split).iterdir() if one.is_dir())
    files = [(path, at) for at, place in enumerate(classes) for path in sorted(place.iterdir())]
    if split == "train" and len(files) > IMAGES:
        drawn = np.random.default_rng(0).permutation(len(files))[:IMAGES]
        files = [files[at] for at in sorted(drawn)]
    return ImageSet([path for path, _ in files], [at for _, at in files], preprocessing)


def _judge(
    adapter: Adapter, baseline: Baseline, train: ImageSet, test: ImageSet
) -> tuple[float, Any, Any]:
    """Return accuracy in percent on the validation part; right answers, answers on test."""
    from clr.core.backbone import load_backbone
    from clr.core.evaluate import predicted, run
    from clr.core.network import ReprogrammedNetwork

    backbone = load_backbone(adapter.spec.backbone)
    network = ReprogrammedNetwork(backbone)
    network.attach(adapter, "judged")

    def answers(images: ImageSet, which: Any = None) -> Any:
        preprocessing = adapter.spec.preprocessing
        logits = run(
            lambda batch: network.logits(batch, "judged"),
            images, preprocessing, backbone.device, which,
        )  # fmt: skip
        return predicted(logits)

    held = answers(train, baseline.validation)
    right = held == train.labels[baseline.validation].numpy()
    told = answers(test)
    return 100 * float(right.mean()), (told == test.labels.numpy()).astype(float), told


def as_table(rows: list[Row]) -> str:
    """Return a Markdown table: a row a sparsity and storage, three columns a task."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    lines = [
        "| sparsity, storage | " + " | ".join(f"{task}: kB | test | changed" for task in tasks)
        + " | lost on average |",
        "|---|" + "---:|" * (3 * len(tasks) + 1),
    ]  # fmt: skip
    for sparsity, storage in dict.fromkeys((row.sparsity, row.storage) for row in rows):
        these = [row for row in rows if (row.sparsity, row.storage) == (sparsity, storage)]
        cells = [
            f"{row.bytes / 1000:.1f} | {row.test:.1f} % | {row.changed} of {row.images}"
            for row in these
        ]
        lost = sum(row.lost for row in these) / len(these)
        lines.append(f"| {sparsity:g}, {storage} | {' | '.join(cells)} | {lost:+.2f} |")
    return "\n".join(lines)


def picture(rows: list[Row]) -> bytes:
    """Return a PNG: one panel a task, test accuracy against kilobytes."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row.task for row in rows))
    figure = Figure(figsize=(3.1 * len(tasks), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for sparsity in SPARSITIES:
            these = [row for row in rows if (row.task, row.sparsity) == (task, sparsity)]
            axes.plot(
                [row.bytes / 1000 for row in these], [row.test for row in these],
                "o-" if sparsity == 0 else "^--", color=COLOURS[sparsity],
                label=f"{sparsity:.0%} of kernels pruned",
            )  # fmt: skip
            for row in these:
                axes.annotate(row.storage, (row.bytes / 1000, row.test), fontsize=6,
                              textcoords="offset points", xytext=(3, 4))  # fmt: skip
        tests = [row.test for row in rows if row.task == task]
        middle = (max(tests) + min(tests)) / 2
        reach = max(3.0, max(tests) - middle + 0.5)  # no differences of a tenth as cliffs
        axes.set(title=task, xscale="log", xlabel="adapter file in kB", xlim=(10, 700))
        axes.set_ylim(middle - reach, middle + reach)
        axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("test accuracy in %")
    figure.axes[0].legend(fontsize=7, loc="upper left")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=144)
    return file.getvalue()


def _machine() -> str:
    today = datetime.now(UTC).date().isoformat()
    return f"{today}, {hardware('cpu')}, {os.cpu_count()} cores, of which one is used, no GPU."
