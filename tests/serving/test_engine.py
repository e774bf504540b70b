"""The engine answers from the release in force."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clr.serving.engine import Engine
from clr.serving.values import Answer, Failed, Item


def test_answers_named_routed_and_refused(template: Any) -> None:
    plant = template.plant
    images = sorted((template.tasks / "red-caps" / "test").rglob("*.png"))[:2]
    items = [
        Item("a", images[0].read_bytes(), "red-caps"),
        Item("b", images[1].read_bytes()),
        Item("c", b"not an image"),
        Item("d", images[1].read_bytes(), "hats"),
    ]

    async def ask() -> Any:
        engine = Engine(plant.session().settings)
        await engine.start()
        try:
            return await engine.predict(items), engine.health(), engine.tasks()
        finally:
            await engine.close()

    answers, health, tasks = asyncio.run(ask())
    named, routed, unreadable, unknown = answers
    assert isinstance(named, Answer)
    assert isinstance(routed, Answer)
    assert (named.task, named.how, routed.task, routed.how) == (
        "red-caps", "named", "red-caps", "routed",
    )  # fmt: skip
    assert sum(named.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert isinstance(unreadable, Failed)
    assert (unreadable.code, unknown.code) == ("unreadable", "unknown-task")
    assert health.ready
    assert health.tasks == ("blue-caps", "green-caps", "red-caps")
    assert [one.name for one in tasks] == ["blue-caps", "green-caps", "red-caps"]
