"""The inside of the prediction server: images in, answers of the release in force out."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clr.errors import UsageError
from clr.serving import journal
from clr.serving.journal import Entry, Journal, Row
from clr.serving.labelling import label_answer
from clr.serving.room import Room
from clr.serving.snapshot import Snapshot, served_task, served_tasks
from clr.serving.values import (
    Answer,
    Failed,
    Feedback,
    Health,
    Item,
    NotReady,
    ServedTask,
)

if TYPE_CHECKING:
    from clr.serving.answering import Desk, Found
    from clr.serving.following import Follower
    from clr.serving.watching import Watcher
    from clr.settings import Settings

_SHARE = 0.9
"""Of ``CLR_SERVE_SECONDS``: then each late image is told, before the whole request is late."""


class Engine:
    """Serves the release in force of one registry.

    `start` it before the first call and `close` it after the last, in the loop that calls it.

    Attributes:
        settings: of the workspace.
    """

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing is loaded yet."""
        self.settings = settings
        self._room = Room(settings.serve_queue_items, settings.serve_queue_mb * 1_000_000)
        self._stopping = False
        self._desk: Desk | None = None
        self._watcher: Watcher | None = None
        self._follower: Follower | None = None
        self._journal: Journal | None = None

    async def start(self) -> None:
        """Load backbone and release; without a registry, the last release from copies.

        Raises:
            ClrError: a setting is wrong, the backbone cannot be loaded, or no journal written.
        """
        settings = self.settings
        self._journal = Journal(
            journal.journal_path(settings.state),
            keep_days=settings.keep_answers_days,
            keep_rows=settings.keep_answers,
        )
        desk, follower, watcher = await asyncio.to_thread(_opened, settings)
        desk.batcher.start()
        self._desk, self._follower, self._watcher = desk, follower, watcher
        await follower.start()
        await desk.challengers.start()

    async def close(self) -> None:
        """Take no more, end what is in work (``CLR_SERVE_DRAIN_SECONDS``), let go of everything."""
        self._stopping = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._room.idle.wait(), self.settings.serve_drain_seconds)
        if self._follower is not None:
            await self._follower.close()
        if self._watcher is not None:
            await self._watcher.close()
        if self._desk is not None:
            await self._desk.challengers.close()
            await self._desk.batcher.close()
            self._desk.decoders.shutdown(wait=False, cancel_futures=True)
        if self._journal is not None:
            await asyncio.to_thread(self._journal.close)

    def nudge(self) -> None:
        """Look now whether another release is in force."""
        if self._follower is not None:
            self._follower.nudge()

    async def predict(self, items: Sequence[Item], *, client: str = "") -> list[Answer | Failed]:
        """Answer each item, all by one release; one that cannot be does not stop the others.

        Args:
            items: images.
            client: who asks, for the journal.

        Raises:
            UsageError: none, or more than the server ever takes at once.
            Overloaded: too much is in work already.
            NotReady: no release is loaded, or the server is stopping.
        """
        if not items:
            raise UsageError("There is no image to label.", fix="Send one or more.")
        desk, follower = self._open()
        with self._room.holding(items):
            began, end = time.time(), time.monotonic() + _SHARE * self.settings.serve_seconds
            snapshot = await _current(follower, _left(end))
            answering = [asyncio.create_task(desk.answer(snapshot, item)) for item in items]
            try:
                _, late = await asyncio.wait(answering, timeout=_left(end))
            finally:
                for one in answering:
                    one.cancel()
            found = [None if task in late else task.result() for task in answering]
            await self._note(snapshot, items, found, client, began)
        return [
            _late(item) if one is None else one.result
            for item, one in zip(items, found, strict=True)
        ]

    def _open(self) -> tuple[Desk, Follower]:
        if self._stopping:
            raise NotReady("The server is stopping.", fix="Send it to another one.")
        if self._desk is None or self._follower is None:
            raise NotReady("The server is starting.", fix="Look at /health, then try again.")
        return self._desk, self._follower

    async def _note(
        self,
        snapshot: Snapshot,
        items: Sequence[Item],
        found: Sequence[Found | None],
        client: str,
        began: float,
    ) -> None:
        """Show the watch what was answered; have it in the journal before it is given."""
        rows: list[Row] = []
        for item, one in zip(items, found, strict=True):
            if one is None or isinstance(one.result, Failed):
                continue
            if self._watcher is not None:
                self._watcher.note(snapshot, item, one)
            rows.append(_entry(one.result, item, client, began))
            if one.tried is not None:
                rows.append(one.tried)
        if rows and self._journal is not None:
            await asyncio.wrap_future(self._journal.write(rows))

    async def feedback(self, request_id: str, label: str, *, client: str = "") -> Feedback:
        """Write down what an image really was.

        Args:
            request_id: of its answer.
            label: a class of the task that answered, or of another one if that was wrong.
            client: who says so.

        Raises:
            UnknownRequest: there is no answer with this id.
            UsageError: no task that is served has such a label.
            NotReady: the server is starting or stopping, or the label cannot be written down.
        """
        desk, follower = self._open()
        assert self._journal is not None
        served = follower.snapshot.tasks.values() if follower.snapshot else ()
        answering = [*served, *(one.loaded for one in desk.challengers.running.values())]
        return await label_answer(
            self._journal, self.settings.state, answering, request_id, label, client
        )

    def drift(self) -> dict[str, dict[str, Any]]:
        """Return what is known about drift, by task: see `clr.serving.drift.Drift.told`."""
        return self._watcher.drift.told() if self._watcher else {}

    def health(self) -> Health:
        """Return what can be answered now."""
        follower, snapshot = self._follower, None
        if follower is not None:
            snapshot = follower.snapshot
        known = Health(
            ready=bool(snapshot and snapshot.tasks) and not self._stopping,
            state="stopping" if self._stopping else "serving" if snapshot else "starting",
            registry=follower.problem if follower else "",
            journal=self._journal.problem if self._journal else "",
            waiting=self._room.items,
        )
        if snapshot is None:
            return known
        return replace(
            known,
            release=snapshot.release.version,
            release_digest=snapshot.release.digest,
            backbone=snapshot.release.backbone,
            tasks=tuple(snapshot.tasks),
            refused=snapshot.refused,
            routing=snapshot.routing,
            cached=snapshot.cached,
            trials=self._desk.challengers.told() if self._desk else {},
        )

    def batches(self) -> Mapping[int, int]:
        """Return how many batches of each size were computed."""
        return dict(self._desk.batcher.sizes) if self._desk else {}

    def tasks(self) -> list[ServedTask]:
        """Return the tasks of the release in force, those that are refused too, by name.

        Raises:
            NotReady: no release is loaded.
        """
        desk, follower = self._open()
        return served_tasks(_there(follower.snapshot), desk.backbone.name)

    async def task(self, name: str) -> ServedTask | None:
        """Return a task of the release that is in force now; None: it has none such.

        Raises:
            NotReady: no release is loaded.
        """
        desk, follower = self._open()
        snapshot = await _current(follower, self.settings.serve_seconds)
        known = name in snapshot.release.tasks
        return served_task(snapshot, name, desk.backbone.name) if known else None


def _opened(settings: Settings) -> tuple[Desk, Follower, Watcher]:
    from clr.serving.opening import open_parts  # in a thread: PyTorch takes seconds

    return open_parts(settings)


def _left(end: float) -> float:
    """Return the seconds until a moment of the monotonic clock; 0: it is over."""
    return max(0.0, end - time.monotonic())


async def _current(follower: Follower, seconds: float) -> Snapshot:
    """Return the release in force; the last one where finding out takes too long."""
    try:
        return _there(await asyncio.wait_for(follower.current(), seconds / 2))
    except TimeoutError:
        return _there(follower.snapshot)


def _there(snapshot: Snapshot | None) -> Snapshot:
    if snapshot is None:
        raise NotReady("No release is served yet.", fix="Look at /health, then try again.")
    return snapshot


def _late(item: Item) -> Failed:
    return Failed(item.file, uuid.uuid4().hex, "It took too long.", "time-out")


def _entry(answer: Answer, item: Item, client: str, began: float) -> Entry:
    return Entry(
        request_id=answer.request_id,
        time=began,
        client=client,
        release=answer.release,
        release_digest=answer.release_digest,
        task=answer.task,
        how=answer.how,
        adapter=answer.adapter,
        version=answer.version,
        label=answer.label,
        probability=answer.probability,
        unit=item.unit or "",
        arm=answer.arm,
        doubtful=answer.doubtful,
        unknown=answer.unknown,
        seconds=time.time() - began,
    )
