"""The watcher: sees what arrives, tells Prefect's server, and picks up runs that died.

``python -m flows.watch --port N`` works until SIGTERM. Each of its parts has a thread of its
own and is tried again, ever more rarely, while it fails; what was seen is on disk before it is
told. ``/health`` and ``/metrics`` are served at ``CLR_METRICS_HOST``; port 0 serves nothing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError
from clr.settings import Settings
from flows import output
from flows.inbox import Inbox
from flows.session import Session, open_session

if TYPE_CHECKING:
    from starlette.applications import Starlette

LOG = logging.getLogger("clr")
LOOK_SECONDS = 30.0
"""How often all of ``incoming/`` is looked at, whatever events said: network disks send none."""

SHARE = 0.05
"""Of its time that a thread may spend on looking; a large folder is looked at more rarely."""

TELL_SECONDS, RECOVER_SECONDS, LONGEST_PAUSE = 2.0, 5.0, 60.0


@dataclass(eq=False)
class Watcher:
    """The threads of one watcher.

    Attributes:
        session: the workspace.
        failing: name of each part that failed the last time, with the reason.
    """

    session: Session
    failing: dict[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _heard: threading.Event = field(default_factory=threading.Event)
    _whole: threading.Event = field(default_factory=threading.Event)
    _arrived: threading.Event = field(default_factory=threading.Event)
    _names: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """Of the workspace."""
        return self.session.settings

    def start(self) -> None:
        """Start all parts."""
        parts: dict[str, Callable[[], None]] = {
            "events": self._events,
            "incoming": self._incoming,
            "announce": self._regularly("announce", TELL_SECONDS, self._tell, self._arrived),
            "git": self._regularly("git", self.settings.git_poll_seconds, self._git),
        }
        if importlib.util.find_spec("flows.recover"):
            parts["recover"] = self._regularly("recover", RECOVER_SECONDS, self._recover)
        for name, part in parts.items():
            thread = threading.Thread(target=part, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        LOG.info("watcher   looks at %s", self.settings.inbox)

    def stop(self, seconds: float = 5.0) -> None:
        """Ask all parts to end, and wait so long; what they have not done is seen again.

        `at_work` says whether some have not.
        """
        self._stop.set()
        self._heard.set()
        self._arrived.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def at_work(self) -> bool:
        """Whether a part has not ended."""
        return any(thread.is_alive() for thread in self._threads)

    def health(self) -> dict[str, Any]:
        """Return {status, failing}: ``ok``, or ``failing`` with the reason of each part."""
        failing = dict(self.failing)
        return {"status": "failing" if failing else "ok", "failing": failing}

    def _events(self) -> None:
        """Hear of changes from the system, as long as it tells of them."""
        from watchfiles import watch

        while not self._stop.is_set():
            pause = 1.0
            try:
                inbox = self.settings.inbox
                inbox.mkdir(parents=True, exist_ok=True)
                changes = watch(
                    inbox,
                    watch_filter=None,
                    debounce=500,
                    step=100,
                    stop_event=self._stop,
                    rust_timeout=1000,
                    raise_interrupt=False,
                    yield_on_timeout=True,
                    ignore_permission_denied=True,
                )
                for number, change in enumerate(changes):
                    if not number:  # what came before the system told of changes is looked for
                        self._whole.set()
                    elif not change:
                        continue
                    names = {path[len(str(inbox)) + 1 :].split("/")[0] for _, path in change}
                    self._hear(names)
                    if "" in names:  # the folder itself went: what is there now is another
                        break
            except (OSError, RuntimeError) as error:
                pause = LONGEST_PAUSE
                LOG.warning(
                    "watcher   the system tells of no changes (%s): all is looked at every %.0f s",
                    *(error, LOOK_SECONDS),
                )
            self._stop.wait(pause)

    def _hear(self, names: set[str]) -> None:
        with self._lock:
            self._names |= names - {""}
        self._heard.set()

    def _incoming(self) -> None:
        """Look at what was heard of and at what waits, and now and then at everything."""
        inbox = Inbox(self.settings)
        all_due, failures = 0.0, 0
        while not self._stop.is_set():
            self._heard.clear()
            with self._lock:
                names, self._names = self._names, set()
            started = time.monotonic()
            whole = started >= all_due
            if self._whole.is_set():
                self._whole.clear()
                whole = True
            try:
                wait = inbox.look(None if whole else names)
                failures = 0
                self.failing.pop("incoming", None)
                if inbox.problems:
                    self.failing["incoming"] = next(iter(inbox.problems.values()))
            except Exception as error:
                failures += 1
                wait = self._failed("incoming", error, failures)
                whole, all_due = False, 0.0
            self._arrived.set()
            took = time.monotonic() - started
            if whole:
                all_due = time.monotonic() + max(LOOK_SECONDS, took / SHARE)
            # changes come in crowds: looking at each would do nothing else
            self._stop.wait(max(0.1, min(took / SHARE, LOOK_SECONDS)) if not failures else wait)
            left = all_due - time.monotonic()
            if not self._stop.is_set() and not failures:
                self._heard.wait(max(0.0, left if wait is None else min(wait, left)))

    def _regularly(
        self,
        name: str,
        seconds: float,
        work: Callable[[], None],
        early: threading.Event | None = None,
    ) -> Callable[[], None]:
        """Return what does `work` every so many seconds, sooner when `early` is set."""
        wake = early or self._stop

        def run() -> None:
            failures = 0
            while not self._stop.is_set():
                if early:
                    early.clear()
                wait = seconds
                try:
                    work()
                    failures = 0
                    self.failing.pop(name, None)
                except Exception as error:
                    failures += 1
                    wait = max(seconds, self._failed(name, error, failures))
                (self._stop if failures else wake).wait(wait)

        return run

    def _failed(self, name: str, error: Exception, failures: int) -> float:
        """Tell of a failure, once while it stays the same; return the pause before the next."""
        text = str(error)
        if self.failing.get(name) != text and not self._stop.is_set():
            if isinstance(error, ClrError):
                LOG.warning("watcher   %s: %s", name, error)
            else:
                LOG.error("watcher   %s: this should not happen; it is tried again", name,
                          exc_info=error)  # fmt: skip
        self.failing[name] = text
        return float(min(2.0 ** (failures - 1), LONGEST_PAUSE))

    def _tell(self) -> None:
        from flows.announce import tell_all

        tell_all(self.settings)

    def _git(self) -> None:
        from flows.git_arrivals import poll

        if poll(self.settings):
            self._arrived.set()

    def _recover(self) -> None:
        importlib.import_module("flows.recover").recover(self.session)


def create_app(watcher: Watcher) -> Starlette:
    """Return the watcher's HTTP side; the watcher is started and stopped with it."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Mount, Route

    async def health(_: Any) -> JSONResponse:
        return JSONResponse(watcher.health())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        from anyio import to_thread

        watcher.start()
        try:
            yield
        finally:
            await to_thread.run_sync(watcher.stop)

    routes: list[Route | Mount] = [Route("/health", health, methods=["GET"])]
    if importlib.util.find_spec("flows.metrics"):
        metrics = importlib.import_module("flows.metrics")
        routes.append(Mount("/", metrics.create_app(watcher.settings)))
    return Starlette(routes=routes, lifespan=lifespan)


def main(arguments: list[str] | None = None) -> None:
    """Run the watcher until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m flows.watch", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="on CLR_METRICS_HOST; 0: none")
    port = parser.parse_args(arguments).port
    output.log_to_stderr()
    try:
        watcher = Watcher(open_session())
    except ClrError as error:
        output.fail(error, as_json=False)
        sys.exit(error.exit_code)
    if not port:
        asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: asked.set())
        watcher.start()
        asked.wait()
        watcher.stop()
    else:
        _serve(watcher, port)
    if watcher.at_work:
        logging.shutdown()
        os._exit(0)  # Python waits without end for the pools of DVC and Git libraries


def _serve(watcher: Watcher, port: int) -> None:
    import uvicorn

    uvicorn.run(
        create_app(watcher),
        host=watcher.settings.metrics_host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
