"""The server says which choices of a task are doubtful and which images are unknown."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clr.serving.engine import Engine
from clr.serving.values import Answer, Item
from tests import synthetic
from tests.serving.plants import Served

SEEDS = {"left": 1, "right": 1, "other": 2}
"""Left and right have the same images."""


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A release with two tasks of the same images and one of others, enough to calibrate by."""
    from tests import templates

    templates.migrate_once()
    folder = tmp_path_factory.mktemp("alike") / "plant"
    session = synthetic.workspace(folder)
    for task, seed in SEEDS.items():
        synthetic.images(folder / "data" / task, seed, count=45)
    synthetic.pin(session)
    release = synthetic.release(session, synthetic.register(session, list(SEEDS)))
    known = session.settings
    environment = {
        "CLR_BACKBONE": known.backbone,
        "CLR_BACKBONE_ARCHITECTURE": known.backbone_architecture,
        "CLR_BACKBONE_SHA256": known.backbone_sha256,
        "CLR_DEVICE": "cpu",
        "CLR_THREADS": "1",
    }
    return Served(folder, environment, release, release)


def answers(served: Served, items: list[Item]) -> list[Answer]:
    async def run() -> list[Any]:
        engine = Engine(served.settings())
        await engine.start()
        try:
            return await engine.predict(items)
        finally:
            await engine.close()

    found = asyncio.run(run())
    assert all(isinstance(one, Answer) for one in found), found
    return found


def test_an_image_that_two_tasks_have_is_doubtful_unless_its_task_is_named(alike: Served) -> None:
    picture = alike.images("left")[0].read_bytes()
    routed, named = answers(alike, [Item("routed", picture), Item("named", picture, "right")])
    assert "left" in routed.doubtful
    assert "right" in routed.doubtful
    assert (named.task, named.doubtful, named.unknown) == ("right", "", False)


def test_an_image_of_a_task_that_looks_like_no_other_is_neither(alike: Served) -> None:
    pictures = [one.read_bytes() for one in alike.images("other")[:20]]
    found = answers(alike, [Item(str(at), one) for at, one in enumerate(pictures)])
    assert {(one.task, one.doubtful) for one in found} == {("other", "")}
    assert sum(one.unknown for one in found) <= 3


def test_noise_is_unknown(alike: Served) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(noise).save(written, "PNG")
    (answer,) = answers(alike, [Item("noise", written.getvalue())])
    assert answer.unknown
