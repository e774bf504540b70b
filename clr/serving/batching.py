"""Micro-batches: images that come at the same time go through the backbone together.

An image waits until as many have come as go into one batch, or until it has waited long
enough, whichever is first; while a batch is computed the next one gathers. Images of one batch
have one preprocessing; their tasks may differ.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from clr.core.images import Preprocessing
    from clr.serving.snapshot import Loaded, Snapshot

Kind = tuple["Preprocessing", bool]
"""What images of one batch have in common: preprocessing, and whether the router asks."""


def whole(count: int) -> int:
    """Return the largest power of two up to `count`: how many of so many go into one batch.

    PyTorch's kernels are compiled and kept for each shape that they meet: with batches of any
    size a server keeps thirty-two times as many, and its memory grows for hours.
    """
    return 1 << (count.bit_length() - 1)


@dataclass(frozen=True, eq=False)
class Job:
    """One pass of one image.

    Attributes:
        snapshot: the release that its request began with.
        way: its preprocessing.
        pixels: uint8 [3, S, S].
        loaded: the task whose adapter it goes through; None: the bare backbone and the router.
        done: gets the result.
        since: when it came, in seconds of the loop's clock.
    """

    snapshot: Snapshot
    way: Preprocessing
    pixels: Tensor
    loaded: Loaded | None
    done: asyncio.Future[Any]
    since: float

    @property
    def kind(self) -> Kind:
        """What it has in common with those that it may share a batch with."""
        return self.way, self.loaded is None


@dataclass(eq=False)
class Batcher:
    """Gathers jobs and computes them in one thread, one batch after another.

    Attributes:
        compute: returns a result, or an exception, for each job of a batch.
        size: images in a batch, at most.
        seconds: how long an image waits for others, at most.
        sizes: how many batches of each size there were.
    """

    compute: Callable[[Sequence[Job]], Sequence[Any]]
    size: int
    seconds: float
    sizes: Counter[int] = field(default_factory=Counter)
    _jobs: dict[Kind, list[Job]] = field(default_factory=dict)
    _came: asyncio.Event = field(default_factory=asyncio.Event)
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "clr-compute")
    )
    _working: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to compute, in the running loop."""
        self._working = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop; what waits is given up."""
        if self._working is not None:
            self._working.cancel()
            with suppress(asyncio.CancelledError):
                await self._working
        self._thread.shutdown(wait=False)

    async def run(
        self, snapshot: Snapshot, way: Preprocessing, pixels: Tensor, loaded: Loaded | None
    ) -> Any:
        """Return the result of one pass of one image.

        Raises:
            Exception: what `compute` gave instead.
        """
        loop = asyncio.get_running_loop()
        job = Job(snapshot, way, pixels, loaded, loop.create_future(), loop.time())
        self._jobs.setdefault(job.kind, []).append(job)
        self._came.set()
        return await job.done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._came.wait()
            batch = self._next(loop.time())
            if batch is None:
                self._came.clear()
                continue
            if isinstance(batch, float):
                self._came.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._came.wait(), batch)
                self._came.set()
                continue
            self.sizes[len(batch)] += 1
            results = await loop.run_in_executor(self._thread, self._computed, batch)
            for job, result in zip(batch, results, strict=True):
                if job.done.done():
                    continue  # nobody waits any more
                if isinstance(result, BaseException):
                    job.done.set_exception(result)
                else:
                    job.done.set_result(result)

    def _next(self, now: float) -> list[Job] | float | None:
        """Return the next batch, or in how many seconds there is one; None: nothing waits."""
        for kind, jobs in list(self._jobs.items()):
            jobs[:] = [one for one in jobs if not one.done.done()]
            if not jobs:
                del self._jobs[kind]
        if not self._jobs:
            return None
        due = {kind: self._due(jobs) for kind, jobs in self._jobs.items()}
        first = min(due, key=due.__getitem__)
        if due[first] > now:
            return due[first] - now
        count = whole(min(len(self._jobs[first]), self.size))
        batch = self._jobs[first][:count]
        del self._jobs[first][:count]
        return batch

    def _due(self, jobs: Sequence[Job]) -> float:
        """Return when a group is to be computed: at once where it fills a batch."""
        return jobs[0].since + (self.seconds if len(jobs) < self.size else 0.0)

    def _computed(self, batch: Sequence[Job]) -> Sequence[Any]:
        try:
            return self.compute(batch)
        except Exception as error:
            return [error] * len(batch)
