"""Which test images of a task its own adapter answers right, trained as by the preset ``fast``."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clr.core.backbone import Backbone
from clr.core.baseline import measure_baseline
from clr.core.evaluate import predicted, run
from clr.core.images import ImageSet, Preprocessing
from clr.core.network import Program
from clr.core.recipe import Recipe, image_size
from clr.core.train import fit, spec_of
from tests.benchmarks.routing_tasks import listed


def answered_right(backbone: Backbone, folder: Path, most: int) -> NDArray[np.bool_]:
    """Train an adapter on a task folder; return bool [N] for its test images.

    Args:
        backbone: frozen.
        folder: with ``train/<class>/`` and ``test/<class>/``.
        most: images a class in both splits.
    """
    train, test = (listed(folder / split, most) for split in ("train", "test"))
    way = Preprocessing(_side(train[0]), backbone.mean, backbone.std, backbone.interpolation)
    recipe = Recipe.of({"preset": "fast", "image_size": way.size})
    labels = tuple(sorted(one.name for one in (folder / "train").iterdir() if one.is_dir()))
    images = ImageSet(*train, way)
    baseline = measure_baseline(backbone, images, way, recipe, len(labels))
    spec = spec_of(folder.name, labels, backbone, way, recipe)
    trained = fit(backbone, images, baseline, spec, recipe)
    logits = Program(backbone, trained.adapter.tensors, fold=True).logits
    answers = predicted(run(logits, ImageSet(*test, way), way, backbone.device))
    right: NDArray[np.bool_] = answers == np.array(test[1])
    return right


def _side(paths: list[Path]) -> int:
    longer = []
    for path in paths:
        with Image.open(path) as image:
            longer.append(max(image.size))
    return image_size(median(longer))
