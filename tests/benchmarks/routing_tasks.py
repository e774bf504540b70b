"""Features of real tasks as the router sees them, and of a hundred tasks made out of these."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clr.core.described import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from clr.core.backbone import Backbone

CLASS, TRAIN, TEST = 400, 40, 15
"""Most training images a class of a real task; images a class of a made one in both splits."""

SYNTHETIC = 100
PICTURES = 64
Look = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True, eq=False)
class Split:
    """Features of images: float32 [N, channels], and labels: int64 [N]."""

    features: Floats
    labels: NDArray[np.int64]

    def part(self, classes: list[int], most: int) -> Split:
        """Return the first `most` images of each of `classes`, which are numbered anew."""
        rows = [np.flatnonzero(self.labels == one)[:most] for one in classes]
        labels = np.repeat(np.arange(len(classes)), [len(one) for one in rows])
        return Split(self.features[np.concatenate(rows)], labels)


Pair = tuple[Split, Split]
"""Train and test."""


def inverted(pixels: Tensor) -> Tensor:
    """As a negative."""
    return 255 - pixels


def tinted(pixels: Tensor) -> Tensor:
    """Channels exchanged and weakened: another light."""
    import torch

    gains = torch.tensor([1.0, 0.6, 0.8])[None, :, None, None]
    return (pixels[:, [2, 0, 1]].float() * gains).to(torch.uint8)


def relief(pixels: Tensor) -> Tensor:
    """Grey differences of near pixels: light from the side."""
    import torch

    grey = pixels.float().mean(1, keepdim=True)
    apart = 128 + grey - torch.roll(grey, (2, 2), (2, 3))
    return apart.clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)


def woven(pixels: Tensor) -> Tensor:
    """Blurred, with the texture of a cloth over it."""
    import torch
    import torch.nn.functional as F

    rows = torch.arange(pixels.shape[-1])
    cloth = 24 * ((rows[:, None] // 2 + rows[None] // 2) % 2 * 2 - 1)
    blurred = F.avg_pool2d(pixels.float(), 5, 1, 2, count_include_pad=False)
    return (0.7 * blurred + 38 + cloth).clamp(0, 255).to(torch.uint8)


LOOKS: dict[str, Look | None] = {
    "plain": None, "inverted": inverted, "tinted": tinted, "relief": relief, "woven": woven,
}  # fmt: skip


def folders(place: Path) -> list[Path]:
    """Return the demo's task folders, made below `place`, and those that the environment names."""
    from clr.data.demo import make_demo

    named = os.environ.get("CLR_BENCH_TASK_FOLDERS", "")
    return [*make_demo(place), *(Path(one) for one in named.split(":") if one)]


def listed(place: Path, most: int) -> tuple[list[Path], list[int]]:
    """Return at most so many files of each class below a split, and their labels."""
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(sorted(one for one in place.iterdir() if one.is_dir())):
        found = sorted(one for one in name.iterdir() if one.is_file())[:most]
        paths += found
        labels += [label] * len(found)
    return paths, labels


class Features:
    """Computes features, or finds them where `CLR_BENCH_FEATURES` keeps them."""

    def __init__(self, backbone: Backbone) -> None:
        """Keep what was computed in the folder that the environment names, or for this run."""
        self._backbone = backbone
        self._kept = tempfile.TemporaryDirectory()
        self._place = Path(os.environ.get("CLR_BENCH_FEATURES") or self._kept.name)
        self._place.mkdir(parents=True, exist_ok=True)

    def real(self, folder: Path) -> Pair:
        """Return the features of a task as it is."""
        return self._split(folder, "plain", "train", CLASS), self._split(
            folder, "plain", "test", CLASS
        )

    def right(self, folder: Path) -> NDArray[np.bool_]:
        """Return bool [n]: which test images of a task an adapter trained on it answers right."""
        from tests.benchmarks.routing_adapters import answered_right

        kept = self._place / f"{folder.name}.right.npy"
        if not kept.is_file():
            np.save(kept, answered_right(self._backbone, folder, CLASS))
        found: NDArray[np.bool_] = np.load(kept)
        return found

    def synthetic(self, sources: list[Path]) -> Iterator[tuple[str, Pair]]:
        """Yield a hundred tasks: two or three classes of a real one, under one look."""
        left = SYNTHETIC
        for look in LOOKS:
            for folder in sources if look != "woven" else sorted(sources, key=lambda one: one.name):
                for name, pair in self._pieces(folder, look, left):
                    yield name, pair
                    left -= 1
                if not left:
                    return

    def _pieces(self, folder: Path, look: str, most: int) -> Iterator[tuple[str, Pair]]:
        classes = sum(one.is_dir() for one in (folder / "train").iterdir())
        pieces = [list(range(at, min(at + 2, classes))) for at in range(0, classes, 2)]
        if len(pieces) > 1 and len(pieces[-1]) == 1:
            last = pieces.pop()
            pieces[-1] += last
        few = (TRAIN, TEST) if look != "plain" else (CLASS, CLASS)
        splits = [
            self._split(folder, look, *one) for one in zip(("train", "test"), few, strict=True)
        ]
        for piece in pieces[:most]:
            train, test = (
                split.part(piece, count) for split, count in zip(splits, (TRAIN, TEST), strict=True)
            )
            yield f"{folder.name}-{piece[0]}-{look}", (train, test)

    def _split(self, folder: Path, look: str, split: str, most: int) -> Split:
        kept = self._place / f"{folder.name}.{look}-{split}.npz"
        if not kept.is_file():
            features, labels = self._compute(folder / split, most, LOOKS[look])
            np.savez(kept, x=features, y=labels)
        with np.load(kept) as found:
            return Split(found["x"], found["y"])

    def _compute(self, place: Path, most: int, look: Look | None) -> tuple[Floats, Any]:
        from clr.core.evaluate import run
        from clr.core.images import ImageSet
        from clr.core.routing import preprocessing

        way = preprocessing(self._backbone)
        paths, labels = listed(place, most)
        module, device = self._backbone.module, self._backbone.device
        features = run(module, ImageSet(paths, labels, way), way, device, turn=look)
        return features.numpy(), np.array(labels)

    def pictures(self) -> dict[str, Floats]:
        """Return projected features of pictures that are of no task, `PICTURES` of each kind."""
        import torch

        from clr.core.images import prepare
        from clr.core.routing import preprocessing, project

        way = preprocessing(self._backbone)
        found = {}
        for name, draw in DRAWN.items():
            dice = np.random.default_rng(0)
            drawn = np.stack([draw(dice, way.size) for _ in range(PICTURES)])
            pixels = torch.tensor(drawn.clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2)
            with torch.inference_mode():
                found[name] = project(self._backbone.module(prepare(pixels, way)).numpy())
        return found


def _noise(dice: np.random.Generator, side: int) -> NDArray[Any]:
    return dice.integers(0, 256, (side, side, 3))


def _stripes(dice: np.random.Generator, side: int) -> NDArray[Any]:
    one, other = dice.integers(0, 256, (2, 3))
    angle, density = dice.uniform(0, np.pi), dice.uniform(0.05, 1)
    down, across = np.mgrid[:side, :side]
    wave = np.sin(density * (across * np.cos(angle) + down * np.sin(angle)))
    return np.where((wave > 0)[..., None], one, other)


def _plain(dice: np.random.Generator, side: int) -> NDArray[Any]:
    return np.asarray(dice.integers(0, 256, 3) + dice.integers(0, 4, (side, side, 3)))


def _discs(dice: np.random.Generator, side: int) -> NDArray[Any]:
    picture = np.broadcast_to(dice.integers(0, 256, 3), (side, side, 3)).copy()
    down, across = np.mgrid[:side, :side]
    for _ in range(dice.integers(3, 12)):
        centre, radius = dice.integers(0, side, 2), dice.integers(side // 32, side // 4)
        inside = (down - centre[0]) ** 2 + (across - centre[1]) ** 2 < radius**2
        picture[inside] = dice.integers(0, 256, 3)
    return picture


DRAWN = {"noise": _noise, "stripes": _stripes, "one colour": _plain, "discs": _discs}
