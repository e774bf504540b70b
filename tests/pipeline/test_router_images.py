"""Which training images describe a task to the router, where there are more than it takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from clr.core.images import Preprocessing
from flows.job import images_of


def test_images_of_the_whole_training_are_taken_not_the_first_by_name(tmp_path: Path) -> None:
    """Names often tell the time: limits by the first images would not hold for the last."""
    for at in range(10):
        path = tmp_path / f"train/good/{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(path)
    session: Any = SimpleNamespace(
        settings=SimpleNamespace(image_cache_mb=10, max_image_pixels=10_000)
    )
    way = Preprocessing(32, (0.5,) * 3, (0.5,) * 3)
    spec: Any = SimpleNamespace(labels=("good",), task="parts", preprocessing=way)

    def taken(most: int | None) -> list[str]:
        found = images_of(session, tmp_path, "train", spec, per_class=most)
        return [path.stem for path in found.paths]

    assert taken(4) == ["0", "2", "5", "7"]
    assert taken(10) == taken(11) == taken(None) == [str(at) for at in range(10)]
