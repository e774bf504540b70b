"""The release service: hears of reviews, and carries them out one after another.

``python -m flows.service --port N`` listens on the loopback address by default. MLflow's webhook
only puts a version into a queue; one worker takes it from there and looks at registry and ledger
itself. What no webhook told is found by looking every ``CLR_RECONCILE_SECONDS``, or when the
deployments ``promote`` and ``reconcile`` ask for it (flows/asking.py).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clr.errors import ClrError
from clr.registry import webhook
from clr.registry.webhook import Hint, Seen, WebhookRefused
from flows import output, prefect_server
from flows.session import Session, open_session
from flows.supervise import Child, stop

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

LOG = logging.getLogger("clr")
LONGEST_PAUSE = 600.0
"""Seconds between two rounds of the reconciler while everything fails."""


@dataclass(eq=False)
class Inbox:
    """Versions to look at: each once, in the order in which they came; for many threads."""

    _hints: OrderedDict[Hint, None] = field(default_factory=OrderedDict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    closed: bool = False
    busy: bool = False
    _asked: bool = False

    def look(self) -> None:
        """Let the next `take` return None at once."""
        with self._changed:
            self._asked = True
            self._changed.notify()

    def put(self, hint: Hint) -> None:
        """Add a version unless it is waiting already."""
        with self._changed:
            self._hints.setdefault(hint)
            self._changed.notify()

    def take(self, seconds: float) -> Hint | None:
        """Return the next version; None if none came in time, or the inbox was closed.

        Until the next call it counts as busy.
        """
        with self._changed:
            self.busy = False
            self._changed.wait_for(lambda: self._hints or self._asked or self.closed, seconds)
            self.busy = not self.closed
            if self.closed or not self._hints:
                self._asked = False
                return None
            return self._hints.popitem(last=False)[0]

    def close(self) -> None:
        """End all waiting: what is in it is found by the reconciler of the next start."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._hints) + self._asked


@dataclass(eq=False)
class Worker:
    """Carries out decisions in one thread, one after another.

    Attributes:
        session: the workspace.
        inbox: what it is told.
        ready: set once everything heavy is loaded.
    """

    session: Session
    inbox: Inbox
    ready: threading.Event = field(default_factory=threading.Event)
    _prefect: Child | None = None

    def run(self) -> None:
        """Work until the inbox is closed; nothing that fails ends it.

        What failed is tried again after a second, two, four, …, by looking for all that is
        left to do.
        """
        failures, due = 0, 0.0
        while True:
            hint = self.inbox.take(max(0.0, due - time.monotonic()))
            if self.inbox.closed:
                break
            if not self._done(hint):
                due = time.monotonic() + min(2.0**failures, LONGEST_PAUSE)
                failures += 1
            elif hint is None:
                due, failures = time.monotonic() + self.session.settings.reconcile_seconds, 0
        if self._prefect is not None:
            stop([self._prefect], 5.0)

    def _done(self, hint: Hint | None) -> bool:
        """Follow a hint, or look around without one; False where trying again may help."""
        from flows.reconcile import can_pass

        try:
            self._load()
            self._follow(hint) if hint else self._look_around()
        except ClrError as error:
            LOG.warning("service   %s", error)
            return not can_pass(error)
        except Exception:
            LOG.exception("service   this should not happen; it is tried again")
            return False
        return True

    def _load(self) -> None:
        """Load what the first promotion would otherwise wait for."""
        if self.ready.is_set():
            if self._prefect is not None and not self._prefect.running:
                prefect_server.wait(self._prefect)
            return
        self._prefect = self._prefect or prefect_server.start(self.session.settings)
        import flows.judge
        import flows.releasing  # noqa: F401

        self.session.backbone.check()
        self.session.registry.client.search_experiments(max_results=1)
        self.ready.set()
        LOG.info("service   ready")

    def _follow(self, hint: Hint) -> None:
        from flows.releasing import promote

        promote(hint.task, hint.version, str(self.session.settings.workspace))

    def _look_around(self) -> None:
        from flows.reconcile import look
        from flows.releasing import reconcile
        from flows.trial import settle

        if look(self.session):
            reconcile(str(self.session.settings.workspace))
        settle(self.session)


def create_app(inbox: Inbox, secret: str, worker: Worker | None = None) -> Starlette:
    """Return the service's HTTP side.

    Args:
        inbox: where versions to look at go.
        secret: of the webhook; who asks for a look signs with it, too.
        worker: started and stopped with it.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    seen = Seen()

    async def heard(request: Request, read: Callable[[bytes], Hint | None]) -> Hint | None:
        body = await _body(request)
        delivery = webhook.check(secret, request.headers, body, time.time())
        found = read(body)
        seen.note(delivery, time.monotonic())
        return found

    async def receive(request: Request) -> JSONResponse:
        found = await heard(request, webhook.hint)
        if found is not None:
            inbox.put(found)
        return JSONResponse({"queued": found is not None}, 202)

    async def look(request: Request) -> JSONResponse:
        asked = await heard(request, webhook.request)
        inbox.put(asked) if asked else inbox.look()
        return JSONResponse({"queued": True}, 202)

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, WebhookRefused)
        about = request.url.path.lstrip("/")
        LOG.warning("%-9s refused with %d: %s", about, error.status, error.message)
        return JSONResponse({"message": error.message}, error.status)

    async def health(_: Request) -> JSONResponse:
        ready = worker is not None and worker.ready.is_set()
        told = {"status": "ok", "ready": ready, "waiting": len(inbox), "busy": inbox.busy}
        return JSONResponse(told)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        thread = threading.Thread(target=worker.run, name="worker") if worker else None
        if thread:
            thread.start()
        try:
            yield
        finally:
            inbox.close()
            if thread:
                await _joined(thread)

    routes = [
        Route("/webhook", receive, methods=["POST"]),
        Route("/look", look, methods=["POST"]),
        Route("/health", health, methods=["GET"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={WebhookRefused: refuse})


async def _joined(thread: threading.Thread) -> None:
    from anyio import to_thread

    LOG.info("service   stopping after what is in work")
    await to_thread.run_sync(thread.join)


async def _body(request: Request) -> bytes:
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > webhook.BODY_LIMIT:
            raise WebhookRefused(413, f"A delivery has at most {webhook.BODY_LIMIT} bytes.")
    return data


def main(arguments: list[str] | None = None) -> None:
    """Run the service until SIGTERM or SIGINT; what is in work is finished first."""
    parser = argparse.ArgumentParser(prog="python -m flows.service", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args(arguments)
    output.log_to_stderr()
    try:
        session = open_session()
        secret = _secret(session)
    except ClrError as error:
        output.fail(error, as_json=False)
        sys.exit(error.exit_code)
    import uvicorn

    from flows.release_role import signed_in

    inbox = Inbox()
    app = create_app(inbox, secret, Worker(session, inbox))
    with signed_in(session.settings):
        uvicorn.run(
            app,
            host=given.host,
            port=given.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=5,
        )


def _secret(session: Session) -> str:
    from clr.errors import UsageError
    from clr.registry.server.secrets import WEBHOOK_SECRET, find_secret

    secret = find_secret(session.settings.state, WEBHOOK_SECRET)
    if not secret:
        raise UsageError(
            "The release service has no webhook secret.",
            fix="Start it with `clr up registry`, which makes one, or set CLR_WEBHOOK_SECRET.",
        )
    return secret


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    main()
