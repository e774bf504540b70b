"""Follow the release in force: whoever asks gets one that was in force after he asked.

Under load the registry is asked once for all requests that came since it was asked last, at rest
every few seconds. What is new is loaded and verified beside what serves, then takes its place in
one step. Where the registry does not answer, or what it names cannot be trusted, the last release
goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from clr.errors import ClrError, ServiceUnavailable
from clr.serving.snapshot import Snapshot

_LOG = logging.getLogger("clr")
ASK_SECONDS, LOAD_SECONDS, START_SECONDS = 5.0, 15.0, 60.0
"""How long the registry may take to say what is in force, and to hand it out, before the last
release goes on; at the start, for either."""


class Source(Protocol):
    """Where releases come from; its functions are called in one thread at a time."""

    def in_force(self) -> int:
        """Return the number of the release in force; 0: none."""

    def load(self, number: int, before: Snapshot | None) -> Snapshot:
        """Return a release, verified."""

    def last(self) -> Snapshot | None:
        """Return the last one that was verified on this machine, verified again."""


@dataclass(eq=False)
class Follower:
    """Holds the release that serves.

    Attributes:
        source: where releases come from.
        poll_seconds: between two looks at rest.
        fresh_seconds: a release that was in force so long before it was asked for is new enough.
        snapshot: what serves; None: nothing yet.
        problem: why the release in force is not known or not served; empty: it is served.
    """

    source: Source
    poll_seconds: float
    fresh_seconds: float
    snapshot: Snapshot | None = None
    problem: str = ""
    _seen: float = float("-inf")
    _looking: asyncio.Task[None] | None = None
    _nudged: asyncio.Event = field(default_factory=asyncio.Event)
    _polling: asyncio.Task[None] | None = None
    _refused: tuple[int, str] | None = None
    _loading: tuple[int, asyncio.Future[Snapshot]] | None = None

    async def start(self) -> None:
        """Load the release in force, or the last one where the registry does not hand it out.

        Where neither can be, `problem` says why.
        """
        await self._look(patient=True)
        if self.snapshot is None and self.problem:
            with suppress(ClrError):
                self.snapshot = await asyncio.to_thread(self.source.last)
            if self.snapshot is not None:
                _LOG.warning("serving   release %d from this machine's copy: %s",
                             self.snapshot.release.version, self.problem)  # fmt: skip
        self._polling = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """Look no more."""
        for one in (self._polling, self._looking):
            if one is not None:
                one.cancel()
                with suppress(asyncio.CancelledError):
                    await one

    def nudge(self) -> None:
        """Look now."""
        self._nudged.set()

    async def current(self) -> Snapshot | None:
        """Return the release that was in force at a moment since this was called.

        Where that cannot be known it is the last one; None: there is none.
        """
        asked = time.monotonic()
        while self._seen + self.fresh_seconds < asked and not self.problem:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
            await asyncio.shield(self._looking)
        return self.snapshot

    async def _poll(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), self.poll_seconds)
            self._nudged.clear()
            # one look at a time: who waited, too, may have begun the next one meanwhile
            while self._looking is not None and not self._looking.done():
                await asyncio.shield(self._looking)
            self._looking = asyncio.create_task(self._look(patient=True))
            await asyncio.shield(self._looking)

    async def _look(self, *, patient: bool = False) -> None:
        """Ask what is in force and take it; a patient look tries again what was refused."""
        began = time.monotonic()
        seconds = ASK_SECONDS if self.snapshot else START_SECONDS
        try:
            number = await asyncio.wait_for(asyncio.to_thread(self.source.in_force), seconds)
            await self._take(number, patient)
        except TimeoutError:
            self._complain(f"The registry has not answered for {seconds:.0f} s.")
        except ClrError as error:
            self._complain(error.message)
        except Exception as error:
            _LOG.exception("serving   this should not happen; the last release goes on")
            self._complain(f"{type(error).__name__}: {error}")
        else:
            if self.problem:
                _LOG.info("serving   the registry is followed again")
            self._seen, self.problem = began, ""

    async def _take(self, number: int, patient: bool) -> None:
        held = self.snapshot
        if not number:
            if held is not None:
                raise ServiceUnavailable("The registry names no release in force.")
            return
        same = held is not None and held.release.version == number
        if held is not None and same and (not patient or (held.whole and not held.cached)):
            return
        if self._refused and self._refused[0] == number and not patient:
            raise ServiceUnavailable(self._refused[1])
        try:
            fresh = await self._load(number, held)
        except ClrError as error:
            self._refused = number, error.message
            raise
        self._refused = None
        if fresh is None:
            raise ServiceUnavailable(f"Release {number} is still being loaded.")
        self._swap(fresh)

    async def _load(self, number: int, held: Snapshot | None) -> Snapshot | None:
        """Return a release; None: it is not there in time, and a later look may find it."""
        while True:
            if self._loading is None:
                work = asyncio.create_task(asyncio.to_thread(self.source.load, number, held))
                self._loading = number, work
            loaded, begun = self._loading
            await asyncio.wait({begun}, timeout=LOAD_SECONDS if held else START_SECONDS)
            if not begun.done():
                return None
            self._loading = None
            if loaded == number:
                return begun.result()
            begun.exception()  # of a release that is not in force any more nobody asks

    def _swap(self, fresh: Snapshot) -> None:
        held, self.snapshot = self.snapshot, fresh
        before = held.refused if held else {}
        for task, why in fresh.refused.items():
            if before.get(task) != why:
                _LOG.warning("serving   %s is refused: %s", task, why)
        for task in before.keys() & fresh.tasks.keys():
            _LOG.info("serving   %s is served again", task)
        if held is None or held.release.version != fresh.release.version:
            number, count = fresh.release.version, len(fresh.tasks)
            _LOG.info("serving   release %d with %d task(s)", number, count)

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            _LOG.warning("serving   %s", problem)
        self.problem = problem
