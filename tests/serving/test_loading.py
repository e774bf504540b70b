"""What a server loads, keeps and lets go when releases follow each other."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from clr.core.files import sha256_file
from clr.serving.engine import Engine
from clr.serving.loading import Registered, open_backbone
from clr.serving.snapshot import Snapshot
from clr.serving.values import Answer, Item
from tests.serving.plants import TASKS, Served
from tests.serving.test_engine import picture, using


def test_of_a_new_release_only_what_changed_is_read(served: Served) -> None:
    settings = served.settings()
    source = Registered(settings, open_backbone(settings))
    read: list[str] = []
    source.keep = lambda ref, adapter: read.append(ref.task)
    before = source.load(served.first.version, None)
    assert sorted(read) == sorted(TASKS[:2])
    after = source.load(served.second.version, before)
    assert read[2:] == [TASKS[2]]
    assert after.tasks[TASKS[0]].spec is before.tasks[TASKS[0]].spec
    read.clear()
    assert source.load(served.first.version, after).router is not None
    assert read == []


def snapshots() -> int:
    """How many releases are in memory."""
    gc.collect()
    return sum(type(one) is Snapshot for one in gc.get_objects())


def test_releases_that_are_left_leave_nothing(own: Served) -> None:
    async def use(engine: Engine) -> Any:
        seen = set()
        for release in (own.first, own.second) * 4:
            own.activate(release)
            (answer,) = await engine.predict([Item("a", picture(own), "red")])
            assert isinstance(answer, Answer)
            seen.add(answer.release)
        return seen, snapshots() - before

    before = snapshots()  # of servers that other tests share
    seen, alive = using(own, use)
    assert seen == {own.first.version, own.second.version}
    assert alive <= 2


def test_more_tasks_than_adapters_in_memory_are_served_all_the_same(served: Served) -> None:
    items = [Item(task, picture(served, task), task) for task in TASKS] * 3

    async def use(engine: Engine) -> Any:
        return await engine.predict(items)

    few, many = using(served, use, serve_adapters=1), using(served, use)
    assert [one.label for one in few] == [one.label for one in many]
    assert [one.task for one in few] == [item.task for item in items]


def test_an_adapter_that_cannot_be_read_takes_its_own_task_away_and_no_other(
    own: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without permission or on a bad disk, whoever the tests run as."""
    settings = own.settings()
    source = Registered(settings, open_backbone(settings))
    bad = own.first.tasks["red"]

    def read(path: Path) -> str:
        digest = sha256_file(path)
        if digest == bad.adapter_digest:
            raise PermissionError(13, "Permission denied", str(path))
        return digest

    monkeypatch.setattr("clr.registry.fetch.sha256_file", read)
    loaded = source.load(own.first.version, None)
    assert list(loaded.refused) == ["red"]
    assert "cannot be read" in loaded.refused["red"]
    assert sorted(loaded.tasks) == sorted(set(own.first.tasks) - {"red"})


def test_where_every_task_is_refused_the_server_is_not_ready(own: Served) -> None:
    own.activate(own.first)
    for path in own.state.rglob("*.safetensors"):
        path.write_bytes(b"damaged")

    async def use(engine: Engine) -> Any:
        return engine.health()

    health = using(own, use)
    assert (set(health.refused), health.tasks) == (set(own.first.tasks), ())
    assert (health.ready, health.state) == (False, "serving")


def test_without_its_evidence_the_router_is_gone_and_named_tasks_are_served(own: Served) -> None:
    digest = own.second.tasks["blue"].evidence_digest.removeprefix("sha256:")
    copy = own.state / "cache" / "evidence" / f"{digest}.safetensors"
    copy.write_bytes(b"damaged")
    run = own.second.tasks["blue"].run_id
    (own.state / "artifacts" / "clr-blue" / run / "artifacts" / "evidence"
     / "evidence.safetensors").write_bytes(b"damaged")  # fmt: skip

    async def use(engine: Engine) -> Any:
        items = [Item("named", picture(own, "blue"), "blue"), Item("free", picture(own))]
        return await engine.predict(items), engine.health()

    (named, free), health = using(own, use)
    assert isinstance(named, Answer)
    assert free.code == "routing-unavailable"
    assert "blue" in health.routing
    assert health.ready


def test_another_backbone_serves_nothing(own: Served) -> None:
    """The release in force is of the backbone that it was made with, and of no other."""

    async def use(engine: Engine) -> Any:
        return engine.health()

    other = {"backbone_architecture": "", "backbone_sha256": ""}
    health = using(own, use, backbone="tf_efficientnet_lite0", **other)
    assert not health.ready
    assert "needs" in health.registry
