"""From one image file to its answer: find the task, decode, compute, say what was found."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clr.core.images import Preprocessing, TooManyPixels, decode
from clr.core.routing import preprocessing
from clr.errors import DataRefused
from clr.serving.batching import Batcher
from clr.serving.challengers import Challengers
from clr.serving.journal import Tried
from clr.serving.passes import Seen, Unavailable
from clr.serving.snapshot import Loaded, Snapshot
from clr.serving.trials import CHALLENGER, CHAMPION, meets_challenger, unit_of
from clr.serving.values import Answer, Arm, Code, Failed, How, Item

if TYPE_CHECKING:
    from torch import Tensor

    from clr.core.backbone import Backbone

_LOG = logging.getLogger("clr")

Decoded = dict[tuple[int, str], "asyncio.Task[Tensor]"]
"""One image in each size and interpolation that it was wanted in."""


class _NotAnswered(Exception):
    """Why an item has no answer."""

    def __init__(self, code: Code, error: str) -> None:
        super().__init__(error)
        self.code: Code = code
        self.error = error


@dataclass(frozen=True)
class Found:
    """The end of one item.

    Attributes:
        result: what the caller gets.
        seen: what the router saw of it; None: it was not asked.
        tried: what a trial of its task gave; None: there is none.
    """

    result: Answer | Failed
    seen: Seen | None = None
    tried: Tried | None = None


@dataclass(frozen=True)
class _Given:
    """The answer of one arm.

    Attributes:
        loaded: the adapter that gave it.
        probabilities: of its classes.
        arm: which one it is.
        tried: what a trial gave; None: there is none.
    """

    loaded: Loaded
    probabilities: list[float]
    arm: Arm = "champion"
    tried: Tried | None = None

    @property
    def label(self) -> str:
        """The most probable class, the first of equals."""
        return self.loaded.spec.labels[self.probabilities.index(max(self.probabilities))]


@dataclass(frozen=True, eq=False)
class Desk:
    """What answering needs.

    Attributes:
        backbone: that serves.
        batcher: computes.
        decoders: threads that decode.
        max_pixels: larger images are refused.
        challengers: what is on trial.
    """

    backbone: Backbone
    batcher: Batcher
    decoders: Executor
    max_pixels: int
    challengers: Challengers

    async def answer(self, snapshot: Snapshot, item: Item) -> Found:
        """Answer one item by a release; whatever is wrong with it is in the result."""
        request_id, seen = uuid.uuid4().hex, None
        try:
            how, task = _how(snapshot, item), item.task
            decoded: Decoded = {}
            if how == "routed":
                seen = await self._route(snapshot, item, decoded)
                task = seen.routed.task
            elif how == "only":
                task = next(iter(snapshot.release.tasks))
            loaded = _loaded(snapshot, task or "", item.version)
            given = await self._arms(snapshot, item, loaded, decoded, request_id)
            return Found(_answer(snapshot, item, given, how, seen, request_id), seen, given.tried)
        except _NotAnswered as error:
            return Found(Failed(item.file, request_id, error.error, error.code), seen)
        except Exception as error:
            _LOG.exception("serving   %s could not be answered", request_id)
            said = f"The server failed on this image ({type(error).__name__})."
            return Found(Failed(item.file, request_id, said, "internal"), seen)

    async def look(self, snapshot: Snapshot, item: Item) -> Seen:
        """Return what the router sees of an image; the release has a router."""
        return await self._route(snapshot, item, {})

    async def _route(self, snapshot: Snapshot, item: Item, decoded: Decoded) -> Seen:
        if snapshot.router is None:
            raise _NotAnswered(
                "routing-unavailable", f"The task has to be named: {snapshot.routing}"
            )
        way = preprocessing(self.backbone)
        pixels = await self._pixels(item, way, decoded)
        seen = await self.batcher.run(snapshot, way, pixels, None)
        assert isinstance(seen, Seen)
        return seen

    async def _arms(
        self,
        snapshot: Snapshot,
        item: Item,
        loaded: Loaded,
        decoded: Decoded,
        request_id: str,
    ) -> _Given:
        """Ask the champion, or whom a trial of the task says; a challenger's failure is nobody's.

        In shadow mode both are asked at once, so that they share a batch.
        """
        running = self.challengers.of(snapshot, loaded.ref.task)
        # who chose a version is nobody whom chance could give another one
        if running is None or (item.version is not None and running.trial.share):
            return _Given(loaded, await self._classify(snapshot, item, loaded, decoded))
        trial, other = running.trial, running.loaded
        unit = unit_of(trial, item.unit, request_id)
        tried = Tried(request_id, time.time(), trial.id, unit, trial.share, CHAMPION, "", "")
        if meets_challenger(trial, unit):
            try:
                given = _Given(other, await self._classify(snapshot, item, other, decoded))
                told = replace(tried, arm=CHALLENGER, challenger=given.label)
                return replace(given, arm="challenger", tried=told)
            except Exception as error:
                _log_missed(error, request_id)
            return _Given(loaded, await self._classify(snapshot, item, loaded, decoded))
        if trial.share:
            given = _Given(loaded, await self._classify(snapshot, item, loaded, decoded))
            return replace(given, tried=replace(tried, champion=given.label))
        first, second = await asyncio.gather(
            *(self._classify(snapshot, item, one, decoded) for one in (loaded, other)),
            return_exceptions=True,
        )
        if isinstance(first, BaseException):
            raise first
        given = _Given(loaded, first)
        if isinstance(second, BaseException):
            _log_missed(second, request_id)
            return given
        shadow = _Given(other, second).label
        return replace(given, tried=replace(tried, champion=given.label, challenger=shadow))

    async def _classify(
        self, snapshot: Snapshot, item: Item, loaded: Loaded, decoded: Decoded
    ) -> list[float]:
        way = loaded.spec.preprocessing
        pixels = await self._pixels(item, way, decoded)
        try:
            probabilities = await self.batcher.run(snapshot, way, pixels, loaded)
        except Unavailable as error:
            raise _NotAnswered("unavailable-task", error.message) from error
        assert isinstance(probabilities, list)
        return probabilities

    async def _pixels(self, item: Item, way: Preprocessing, decoded: Decoded) -> Tensor:
        key = way.size, way.interpolation
        if key not in decoded:
            decoded[key] = asyncio.create_task(self._decode(item.data, way))
        return await decoded[key]

    async def _decode(self, data: bytes, way: Preprocessing) -> Tensor:
        def work() -> Tensor:
            return decode(
                data, way.size, interpolation=way.interpolation, max_pixels=self.max_pixels
            )

        try:
            return await asyncio.get_running_loop().run_in_executor(self.decoders, work)
        except TooManyPixels as error:
            raise _NotAnswered("too-large", error.message) from error
        except DataRefused as error:
            raise _NotAnswered("unreadable", error.message) from error


def _log_missed(error: BaseException, request_id: str) -> None:
    """Log why a challenger has no answer; of an image that nobody can read the champion says so."""
    if not isinstance(error, _NotAnswered) or error.code == "unavailable-task":
        _LOG.error("serving   the challenger could not answer %s", request_id, exc_info=error)


def _how(snapshot: Snapshot, item: Item) -> How:
    if item.task is not None:
        return "named"
    return "only" if len(snapshot.release.tasks) == 1 else "routed"


def _loaded(snapshot: Snapshot, task: str, version: int | None) -> Loaded:
    ref = snapshot.release.tasks.get(task)
    if ref is None:
        raise _NotAnswered(
            "unknown-task", f"Release {snapshot.release.version} has no task {task[:80]!r}."
        )
    if version not in (None, ref.version):
        raise _NotAnswered(
            "unknown-task",
            f"Version {version} of {task} is not served; version {ref.version} is.",
        )
    if task in snapshot.refused:
        raise _NotAnswered(
            "unavailable-task", f"Task {task} is not served now: {snapshot.refused[task]}"
        )
    return snapshot.tasks[task]


def _answer(
    snapshot: Snapshot,
    item: Item,
    given: _Given,
    how: How,
    seen: Seen | None,
    request_id: str,
) -> Answer:
    loaded, probabilities = given.loaded, given.probabilities
    return Answer(
        file=item.file,
        request_id=request_id,
        release=snapshot.release.version,
        release_digest=snapshot.release.digest,
        task=loaded.ref.task,
        how=how,
        label=given.label,
        probability=max(probabilities),
        probabilities=dict(zip(loaded.spec.labels, probabilities, strict=True)),
        adapter=loaded.ref.adapter_digest,
        version=loaded.ref.version,
        arm=given.arm,
        doubtful=seen.routed.doubt if seen else "",
        unknown=bool(seen and seen.routed.unknown),
    )
