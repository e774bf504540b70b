"""What every call of the prediction server needs: who asks, what may come in, what goes out."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request

from clr.errors import UsageError
from clr.serving import journal
from clr.serving.errors import Problem, later, shown
from clr.serving.inputs import media_type, wrong_type
from clr.serving.keyring import LOCAL, is_loopback, open_keys
from clr.serving.keys import Key
from clr.serving.limits import BODIES_AT_ONCE, Held, Rates, body_bytes, read_body
from clr.serving.observing import Observed
from clr.serving.values import Answer, Failed, Feedback, Item, UnknownRequest

if TYPE_CHECKING:
    from clr.serving.engine import Engine
    from clr.settings import Settings

T = TypeVar("T")
_GRACE = 5.0
"""Seconds after the engine's own time is over, for what it does to end in order."""

_LARGE = 250_000
"""Bytes of a body."""

_OWN_PAGES = ("same-origin", "none")


class Service:
    """The engine behind its limits.

    Attributes:
        engine: answers.
        settings: the limits.
        observed: what is counted for ``/metrics``.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        """Read the keys.

        Raises:
            ClrError: see `open_keys`.
        """
        self.engine, self.settings = engine, settings
        self.observed = Observed(engine)
        self._keys = open_keys(settings, settings.serve_host)
        self._rates = Rates(settings.serve_rate)
        self._limit = body_bytes(settings.serve_body_mb)
        self._parsing = CapacityLimiter(1)
        self._held = Held(BODIES_AT_ONCE * self._limit)

    def admit(self, request: Request, scope: str) -> Key:
        """Return the key of whoever asks, if it may do what `scope` covers.

        Raises:
            Problem: no key, a wrong one, the wrong scope, or too many requests.
        """
        key = self.known(request)
        if not key.may(scope):
            raise Problem(
                "scope-missing",
                f"The key {key.name} has no scope {scope}; it has {', '.join(key.scopes)}.",
                fix=f"Use a key with it: clr keys add NAME --scope {scope}",
            )
        self._rates.spend(key.id)
        return key

    def known(self, request: Request) -> Key:
        """Return the key of whoever asks.

        Raises:
            Problem: no key, or a wrong one.
        """
        if self._keys is None:
            _refuse_pages(request)
            return LOCAL
        written = _key_of(request)
        if not written:
            raise Problem("key-missing", "There is no API key.")
        return self._keys.find(written)

    @asynccontextmanager
    async def body(self, request: Request, *types: str) -> AsyncIterator[bytes]:
        """Yield a request's body, of one of `types`; its room is free again at the end.

        Raises:
            Problem: another type, compressed, too large or too slow.
        """
        headers = dict(request.headers)
        kind = media_type(headers.get("content-type", ""))
        if kind not in types:
            raise wrong_type(kind, *types)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem(
                "unsupported-media-type",
                "The body is compressed.",
                fix="Send it as it is: images are compressed already.",
                headers={"Accept-Encoding": "identity"},
            )
        seconds = self.settings.serve_seconds
        with self._held.room() as take:
            yield await read_body(
                request.receive, headers, limit=self._limit, seconds=seconds, take=take
            )

    async def read(self, parse: Callable[..., T], body: bytes, *more: object) -> T:
        """Return what `parse` makes of a body, in a thread.

        JSON takes up to thirty times the room of its text, so large bodies are parsed one after
        another; no faster together, since Python parses with one core.

        Raises:
            Problem: see `parse`.
        """
        alone = self._parsing if len(body) > _LARGE else None
        return await to_thread.run_sync(parse, body, *more, limiter=alone)

    async def predict(self, items: Sequence[Item], key: Key) -> list[Answer | Failed]:
        """Have images labelled.

        Raises:
            Problem: the key is for other tasks, or the answer takes too long.
            Overloaded: too much waits already.
            NotReady: nothing is loaded, or the server is stopping.
        """
        for item in items:
            refuse_task(key, item.task)
        try:
            answers = await self.within(self.engine.predict(items, client=key.name))
        except UsageError as error:
            raise Problem("too-large", error.message, fix=error.fix) from error
        self.observed.answered(answers)
        return answers

    async def feedback(self, request_id: str, label: str, key: Key) -> Feedback:
        """Have a label written down.

        Raises:
            Problem: the answer was of a task that the key is not for, or the label is no class.
            UnknownRequest: there is no such answer.
            NotReady: the server is starting or stopping, or the label cannot be written down.
        """
        if key.tasks:
            given = await asyncio.to_thread(journal.answer, self.settings.state, request_id)
            refuse_task(key, given.task if given else key.tasks[0])
        try:
            return await self.within(self.engine.feedback(request_id, label, client=key.name))
        except UnknownRequest:
            raise
        except UsageError as error:
            raise Problem("invalid", error.message, fix=error.fix) from error

    async def within(self, work: Awaitable[T]) -> T:
        """Return what `work` comes to, in time.

        Raises:
            Problem: it takes too long.
        """
        seconds = self.settings.serve_seconds + _GRACE
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError as error:
            raise later("out-of-time", f"There was no answer within {seconds:g} s.", 1) from error


def refuse_task(key: Key, task: str | None) -> None:
    """Raise Problem where a key is not for a task.

    Args:
        key: of whoever asks.
        task: None: the router is to find it, among all, which a key for some tasks cannot ask.
    """
    if not key.tasks or (task is not None and key.covers(task)):
        return
    allowed = ", ".join(key.tasks)
    raise Problem(
        "task-not-allowed",
        f"The key {key.name} is for {allowed}"
        + ("; the request names no task." if task is None else f", not for {shown(task)}."),
        fix="Name one of these tasks, or use another key.",
    )


async def service(request: Request) -> Service:
    """Return the service of the app that a request came to."""
    found: Service = request.app.state.service  # in a thread if this were not async
    return found


Served = Annotated[Service, Depends(service)]


def needs(scope: str) -> Callable[[Request, Service], Awaitable[Key]]:
    """Return a dependency of FastAPI: the key of whoever asks, which has to have a scope."""

    async def admitted(request: Request, served: Served) -> Key:
        return served.admit(request, scope)

    return admitted


Predicting = Annotated[Key, Depends(needs("predict"))]


def _key_of(request: Request) -> str:
    """Return the key in a request; a browser, which knows passwords alone, sends it as one.

    It sends it with whatever any page asks for, so that counts for reading only.
    """
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic" and request.method == "GET":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def _refuse_pages(request: Request) -> None:
    """Refuse what a web page of elsewhere asks of a server without keys on this machine."""
    host = request.headers.get("host", "")
    before, _, port = host.rpartition(":")
    name = host if not before or port.endswith("]") else before  # [::1] has colons and no port
    site = request.headers.get("sec-fetch-site", "none")
    if site not in _OWN_PAGES or not is_loopback(name.lower().strip("[]")):
        raise Problem("foreign-page", "A web page of another site asks for this.")
