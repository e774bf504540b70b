"""Small backbones with seeded random weights, and small image tasks."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clr.core.adapter import Adapter, AdapterSpec, new_adapter
from clr.core.backbone import Backbone, load_backbone, state_digest
from clr.core.images import ImageSet, Preprocessing

SIDE = 32


def lively(name: str) -> Backbone:
    """Load a backbone with random weights in which every part matters.

    As they are born, many networks scale their residual branches by zero, and statistics of
    batch norms are those of no data: a wrong kernel there would go unseen.
    """
    backbone = load_backbone(name, pretrained=False)
    generator = torch.Generator().manual_seed(3)
    for path, tensor in backbone.module.state_dict().items():
        vector = tensor.ndim <= 1 or path.endswith("gain")  # of standardised weights: [C, 1, 1, 1]
        if vector and tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            around_zero = path.endswith(("bias", "running_mean"))
            tensor.copy_(0.2 * noise - 0.1 if around_zero else 0.5 + noise)
    return replace(backbone, digest=state_digest(backbone.module))


@pytest.fixture(scope="session")
def load() -> Callable[[str], Backbone]:
    """Load a lively backbone, once in a session."""
    loaded: dict[str, Backbone] = {}

    def get(name: str) -> Backbone:
        if name not in loaded:
            loaded[name] = lively(name)
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def fresh() -> Callable[[], Backbone]:
    """Load another backbone of its own, equal to the fixture `backbone`."""
    return lambda: lively("test_resnet")


@pytest.fixture(scope="session")
def backbone(load: Callable[[str], Backbone]) -> Backbone:
    """A ResNet of 0.5 million parameters."""
    return load("test_resnet")


@pytest.fixture(scope="session")
def preprocessing(backbone: Backbone) -> Preprocessing:
    return Preprocessing(SIDE, backbone.mean, backbone.std, backbone.interpolation)


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., AdapterSpec]:
    def make(backbone: Backbone, /, **fields: object) -> AdapterSpec:
        facts: dict[str, object] = {
            "task": "parts",
            "labels": ("bolt", "nut", "washer"),
            "backbone": backbone.name,
            "backbone_digest": backbone.digest,
            "preprocessing": Preprocessing(SIDE, backbone.mean, backbone.std),
        }
        return AdapterSpec(**(facts | fields))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def shaken(make_spec: Callable[..., AdapterSpec]) -> Callable[..., Adapter]:
    """Make an adapter that is far from its birth: every tensor moved by seeded noise."""

    def make(backbone: Backbone, seed: int = 0, **fields: object) -> Adapter:
        adapter = new_adapter(make_spec(backbone, **fields), backbone)
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for name, tensor in adapter.tensors.items():
            noise = torch.randn(tensor.shape, generator=generator)
            moved = tensor + 0.1 * noise
            tensors[name] = moved.abs() + 0.5 if name.endswith("running_var") else moved
        return Adapter(adapter.spec, tensors)

    return make


@pytest.fixture(scope="session")
def batch() -> torch.Tensor:
    """Two float images [2, 3, 64, 64]."""
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    def encode(pixels: np.ndarray, **options: object) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", **options)
        return file.getvalue()

    return encode


Stripes = Callable[[Path, int, int], tuple[list[Path], list[int]]]


@pytest.fixture(scope="session")
def stripes() -> Stripes:
    """Write images of stripes, lying, standing or slanted, so noisy that a probe errs."""

    def write(folder: Path, seed: int, each: int) -> tuple[list[Path], list[int]]:
        random = np.random.default_rng(seed)
        rows, columns = np.mgrid[:SIDE, :SIDE]
        paths, labels = [], []
        for label, along in enumerate((rows, columns, rows + columns)):
            for number in range(each):
                wave = np.sin(along * random.uniform(0.5, 1.1) + random.uniform(0, 6))
                noise = random.normal(0, 60, (SIDE, SIDE)) + random.uniform(-20, 20)
                pixels = (128 + 70 * wave + noise).clip(0, 255).astype(np.uint8)
                paths.append(folder / f"{label}-{number:02d}.png")
                Image.fromarray(pixels).save(paths[-1])
                labels.append(label)
        return paths, labels

    return write


@pytest.fixture(scope="session")
def task_files(
    tmp_path_factory: pytest.TempPathFactory, stripes: Stripes
) -> tuple[list[Path], list[int]]:
    """Forty images a class."""
    return stripes(tmp_path_factory.mktemp("stripes"), 0, 40)


@pytest.fixture(scope="session")
def images(task_files: tuple[list[Path], list[int]], preprocessing: Preprocessing) -> ImageSet:
    return ImageSet(*task_files, preprocessing)
