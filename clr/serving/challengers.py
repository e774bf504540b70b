"""Which challengers answer now: what the registry says is on trial, unless it does harm.

The registry is looked at every few seconds, not for each request. A trial runs while its
challenger has the alias, its champion serves, its adapter is whole, and this server has not
stopped it. What runs is judged beside that, so that a registry that answers late delays no stop;
what was judged while a look went on counts, not what the look had found before.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clr.errors import ClrError
from clr.registry.challenger import trials
from clr.registry.trial import Trial, percent
from clr.registry.versions import champion_of
from clr.serving.following import ASK_SECONDS
from clr.serving.snapshot import Loaded
from clr.serving.trials import Stopped, harmful, read_stop, write_stop

if TYPE_CHECKING:
    from clr.core.adapter import AdapterSpec
    from clr.registry.release import ChampionRef
    from clr.registry.store import Registry
    from clr.serving.snapshot import Snapshot

LOG = logging.getLogger("clr")
_REST = 10.0
"""Of the time that a look takes, until the next."""

Read = Callable[["ChampionRef"], "AdapterSpec"]


@dataclass(frozen=True)
class Running:
    """A trial that runs here.

    Attributes:
        trial: what the registry says.
        loaded: its challenger, verified.
    """

    trial: Trial
    loaded: Loaded


@dataclass(eq=False)
class Challengers:
    """Holds what is on trial.

    Attributes:
        state: ``CLR_HOME``.
        open_registry: returns the registry.
        read: verifies an adapter, attaches it, and returns its spec.
        seconds: between two looks.
        running: by task; replaced as a whole.
        problems: why a trial of a task does not run here.
    """

    state: Path
    open_registry: Callable[[], Registry]
    read: Read
    seconds: float
    running: Mapping[str, Running] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    _work: list[asyncio.Task[None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def start(self) -> None:
        """Look at once, then every few seconds; a registry that does not answer holds up nobody."""
        looked = asyncio.Event()
        for act, done in ((self.look, looked), (self.judge, asyncio.Event())):
            self._work.append(asyncio.create_task(self._every(act, done)))
        with suppress(TimeoutError):
            await asyncio.wait_for(looked.wait(), ASK_SECONDS)

    async def close(self) -> None:
        """Look no more."""
        for one in self._work:
            one.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def of(self, snapshot: Snapshot, task: str) -> Running | None:
        """Return the trial of a task under a release; None: the champion answers alone."""
        found = self.running.get(task)
        champion = snapshot.tasks.get(task)
        if found is None or champion is None:
            return None
        tried_against = champion.ref.adapter_digest == found.trial.champion
        return found if tried_against else None

    def told(self) -> dict[str, str]:
        """Return how each trial runs, or why it does not."""
        running = {
            task: f"version {one.loaded.ref.version}, {_mode(one.trial)}"
            for task, one in self.running.items()
        }
        return {**running, **self.problems}

    async def _every(self, act: Callable[[], None], done: asyncio.Event) -> None:
        while True:
            began = time.monotonic()
            await asyncio.to_thread(act)
            done.set()
            # with thousands of tasks a look is not cheap for the registry
            await asyncio.sleep(max(self.seconds, _REST * (time.monotonic() - began)))

    def look(self) -> None:
        """Take what the registry says now; without it, what runs goes on."""
        before = self.running
        try:
            told = trials(self.open_registry())
            wanted = {task: (champion_of(one), trial) for task, (one, trial) in told.items()}
        except ClrError:  # the follower of releases says so
            return
        except Exception:
            LOG.exception("trial     this should not happen; no trial runs")
            wanted = {}
        found = {task: self._outcome(task, ref, trial) for task, (ref, trial) in wanted.items()}
        with self._lock:
            self._take({task: self._judged(task, one, before) for task, one in found.items()})

    def _judged(
        self, task: str, found: Running | str, before: Mapping[str, Running]
    ) -> Running | str:
        """Return what a look found, unless `judge` has ended it since the look began."""
        held = before.get(task)
        if isinstance(found, str) or held is None or held.trial.id != found.trial.id:
            return found
        return found if task in self.running else self.problems[task]

    def _take(self, found: Mapping[str, Running | str]) -> None:
        running = {task: one for task, one in found.items() if isinstance(one, Running)}
        problems = {task: one for task, one in found.items() if isinstance(one, str)}
        for task in problems.keys() - self.problems.keys():
            LOG.warning("trial     of %s does not run: %s", task, problems[task])
        for task in running.keys() - self.running.keys():
            LOG.info("trial     of %s: %s", task, _mode(running[task].trial))
        self.running, self.problems = running, problems

    def judge(self) -> None:
        """Stop what does harm, of what runs; nothing begins here, whatever a look does."""
        for task, one in self.running.items():
            why = self._outcome(task, one.loaded.ref, one.trial)
            if isinstance(why, str):
                self._end(task, one, why)

    def _end(self, task: str, judged: Running, why: str) -> None:
        with self._lock:
            held = self.running.get(task)
            if held is None or held.trial.id != judged.trial.id:
                return  # a look has ended it
            LOG.warning("trial     of %s does not run: %s", task, why)
            self.running = {name: one for name, one in self.running.items() if name != task}
            self.problems = {**self.problems, task: why}

    def _outcome(self, task: str, ref: ChampionRef, trial: Trial) -> Running | str:
        """Return a trial that may run, or why it does not."""
        try:
            found = self._one(task, ref, trial)
        except ClrError as error:
            return error.message
        except Exception as error:  # else no trial would be looked at any more
            LOG.exception("trial     this should not happen; that of %s does not run", task)
            return f"{type(error).__name__}: {error}"
        if isinstance(found, Stopped):
            return f"Stopped by this server. {found.sentence}"
        return found

    def _one(self, task: str, ref: ChampionRef, trial: Trial) -> Running | Stopped:
        if stopped := read_stop(self.state, trial):
            return stopped
        if stopped := harmful(self.state, trial):
            write_stop(self.state, stopped)
            return stopped
        held = self.running.get(task)
        if held is not None and held.loaded.ref == ref:
            return Running(trial, held.loaded)
        return Running(trial, Loaded(ref, self.read(ref)))


def _mode(trial: Trial) -> str:
    return f"share {percent(trial.share)}" if trial.share else "in shadow"
