"""Small real task folders to validate and version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., Image.Image]
NewTask = Callable[..., Path]


def _draw(seed: int, side: int = 40, mode: str = "RGB") -> Image.Image:
    """An image that looks like no other seed's: soft random patches with some grain."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    soft = np.asarray(patches.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = rng.integers(-6, 7, soft.shape)
    return Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8)).convert(mode)


@pytest.fixture(scope="session")
def draw() -> Draw:
    """Function (seed, side=40, mode="RGB") -> image."""
    return _draw


@pytest.fixture
def new_task(tmp_path: Path) -> NewTask:
    """Function (name, classes, train, test) -> folder of a good task of distinct images."""

    def build(
        name: str = "cells",
        classes: tuple[str, ...] = ("bad", "good"),
        train: int = 12,
        test: int = 10,
    ) -> Path:
        root = tmp_path / name
        seed = 0
        for split, count in (("train", train), ("test", test)):
            for label in classes if count else ():
                folder = root / split / label
                folder.mkdir(parents=True)
                for number in range(count):
                    seed += 1
                    _draw(seed).save(folder / f"{number:03d}.png")
        return root

    return build
