"""How the prediction server listens: uvicorn, with an end to every wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from fastapi import FastAPI

HEAD_SECONDS = 10.0
"""For a connection to send the head of its next request; keep-alive ends earlier than that."""

KEEP_ALIVE_SECONDS = 5
HEAD_BYTES = 32_768
CONNECTIONS = 1024


class Patient(H11Protocol):
    """A connection whose patience ends.

    Uvicorn waits for ever for the head of a request, and after an early answer for the rest of
    its body; either lets a caller hold connections that send a byte now and then (Slowloris).
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read on; wait no more as soon as a request is there."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, unless it came already."""
        self._wait_no_more()
        super().on_response_complete()
        if self.cycle.response_complete:
            self._wait()

    def shutdown(self) -> None:
        """End after the answer in work, which says so: nobody sends a request behind it."""
        super().shutdown()
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.default_headers = [*self.cycle.default_headers, (b"Connection", b"close")]

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._wait_no_more()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Listening(uvicorn.Server):
    """A server whose signals are its owner's: uvicorn would raise them again at its end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave all signals as they are."""
        yield


def configuration(app: FastAPI, **options: Any) -> uvicorn.Config:
    """Return the configuration to serve `app` with.

    Args:
        app: of `clr.serving.app.create_app`.
        **options: more of uvicorn's: host, port, timeout_graceful_shutdown, …
    """
    # its warnings are lines of our log, in JSON where ours are
    logging.getLogger("uvicorn").handlers = logging.getLogger("clr").handlers
    return uvicorn.Config(
        app,
        http=Patient,
        ws="none",
        server_header=False,
        proxy_headers=False,
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
        limit_concurrency=CONNECTIONS,
        **options,
    )
