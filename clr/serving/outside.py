"""The outermost layer of the prediction server: headers, times, and no error that gets out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.datastructures import MutableHeaders

from clr.serving.errors import as_problem, later, respond
from clr.serving.limits import CallerGone

if TYPE_CHECKING:
    from clr.serving.observing import Observed

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer that does not say otherwise; ``nosniff`` and CSP keep answers from being run."""

_METHODS = ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
_GONE = 499
"""As nginx counts callers who did not wait; nobody gets it as an answer."""

_CUT_OFF = later("not-ready", "The server is stopping.", 5)
"""Only a server that stops cancels what is in work, when the time for it is over."""


class Outside:
    """Middleware of ASGI."""

    def __init__(self, app: App, observed: Observed) -> None:
        """Wrap `app`."""
        self._app, self._observed = app, observed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), _GONE
        state = scope.setdefault("state", {})

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, told)
        except CallerGone:
            pass
        except (Exception, asyncio.CancelledError) as error:
            if status != _GONE:
                raise  # the answer has begun: all that is left is to cut the connection
            problem = _CUT_OFF if isinstance(error, asyncio.CancelledError) else as_problem(error)
            self._observed.refused(problem.code)
            await respond(problem)(scope, receive, told)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = time.perf_counter() - began
            self._observed.requested(state.get("endpoint", "other"), method, status, seconds)
