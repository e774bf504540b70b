"""What serves while the registry names a release in force and does not hand it out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from clr.serving import following
from clr.serving.following import Follower
from clr.serving.loading import Registered, open_backbone
from clr.serving.snapshot import Snapshot
from tests.serving.plants import Served


class Stuck(Registered):
    """Files of the registry come when `go` says so."""

    def __init__(self, served: Served) -> None:
        settings = served.settings()
        super().__init__(settings, open_backbone(settings))
        self.go = threading.Event()
        self.go.set()
        self.asked: list[int] = []

    def load(self, number: int, before: Snapshot | None) -> Snapshot:
        self.asked.append(number)
        assert self.go.wait(60)
        return super().load(number, before)


@pytest.fixture
def stuck(own: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    monkeypatch.setattr(following, "LOAD_SECONDS", 0.2)
    monkeypatch.setattr(following, "START_SECONDS", 0.2)
    made = Stuck(own)
    yield made
    made.go.set()  # a thread that waits would hold up the end of the tests


async def until_released(follower: Follower, number: int) -> None:
    async with asyncio.timeout(60):
        while follower.snapshot is None or follower.snapshot.release.version != number:
            await asyncio.sleep(0.02)


def test_the_last_release_goes_on_and_the_new_one_comes_when_it_is_there(
    own: Served, stuck: Stuck
) -> None:
    async def run() -> None:
        own.activate(own.first)
        follower = Follower(stuck, 0.05, 0.0)
        await follower.start()
        stuck.go.clear()
        own.activate(own.second)
        for _ in range(3):
            found = await asyncio.wait_for(follower.current(), 5)
            assert found is not None
            assert found.release.version == own.first.version
        assert follower.problem == f"Release {own.second.version} is still being loaded."
        assert stuck.asked == [own.first.version, own.second.version]  # once, not at every look
        stuck.go.set()
        await until_released(follower, own.second.version)
        assert await follower.current() is follower.snapshot
        assert follower.problem == ""
        await follower.close()

    asyncio.run(run())


def test_what_is_taken_back_meanwhile_never_serves(own: Served, stuck: Stuck) -> None:
    async def run() -> None:
        own.activate(own.first)
        follower = Follower(stuck, 0.05, 0.0)
        await follower.start()
        stuck.go.clear()
        own.activate(own.second)
        await follower.current()
        own.activate(own.first)
        async with asyncio.timeout(60):
            while follower.problem:
                await asyncio.sleep(0.02)
        stuck.go.set()
        await asyncio.sleep(0.3)
        assert follower.snapshot is not None
        assert follower.snapshot.release.version == own.first.version
        await follower.close()

    asyncio.run(run())


def test_a_start_takes_the_last_release_from_this_machine(own: Served, stuck: Stuck) -> None:
    own.activate(own.first)
    stuck.load(own.first.version, None)  # by a server before
    own.activate(own.second)
    stuck.go.clear()

    async def run() -> None:
        follower = Follower(stuck, 0.05, 0.0)
        await asyncio.wait_for(follower.start(), 30)
        assert follower.snapshot is not None
        assert follower.snapshot.release.version == own.first.version
        stuck.go.set()
        await until_released(follower, own.second.version)
        await follower.close()

    asyncio.run(run())


def test_what_was_asked_for_before_another_came_in_force_never_serves(
    own: Served, stuck: Stuck
) -> None:
    async def run() -> None:
        stuck.go.clear()
        own.activate(own.second)
        follower = Follower(stuck, 0.05, 0.0)
        await asyncio.wait_for(follower.start(), 30)
        assert follower.snapshot is None
        own.activate(own.first)
        stuck.go.set()
        async with asyncio.timeout(60):
            while follower.snapshot is None:
                await asyncio.sleep(0)
        assert follower.snapshot.release.version == own.first.version
        await follower.close()

    asyncio.run(run())
