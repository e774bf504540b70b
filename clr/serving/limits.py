"""How much the prediction server takes: bytes, seconds, requests; never more than it can hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from clr.serving.errors import Problem, later

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

BODIES_AT_ONCE = 8
"""So many bodies of the largest size are held at once; smaller ones, as many more."""

_MB = 1_000_000
_DISCARD_SECONDS = 1.0


class CallerGone(Exception):
    """Whoever sent a request has closed the connection before its end."""


@dataclass
class Held:
    """Bytes of bodies that are in memory now, over all requests.

    Attributes:
        limit: at most.
        now: held.
    """

    limit: int
    now: int = 0

    @contextmanager
    def room(self) -> Iterator[Callable[[int], None]]:
        """Yield what takes room for so many bytes more; all of it is free again at the end.

        Raises:
            Problem: there is no room for them (from what is yielded).
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self.now + size > self.limit:
                raise later("overloaded", "Too many large requests are being read.", 1)
            self.now += size
            taken += size

        try:
            yield take
        finally:
            self.now -= taken


@dataclass
class Bucket:
    """Allows `rate` requests a second, and as many at once after a second of rest.

    A token bucket: it holds at most `rate` tokens (one, if that is less), gains `rate` a
    second, and each request takes one.

    Attributes:
        rate: tokens a second.
    """

    rate: float
    _tokens: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._tokens, self._at = max(1.0, self.rate), float("-inf")

    def take(self, now: float) -> float:
        """Take a token; return 0, or the seconds after which there will be one.

        Args:
            now: of a clock that never goes back, in seconds.
        """
        size = max(1.0, self.rate)
        self._tokens = min(size, self._tokens + max(0.0, now - self._at) * self.rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.rate


@dataclass
class Rates:
    """One bucket for each key.

    Attributes:
        rate: requests a second of one key; 0: any number.
    """

    rate: float
    _buckets: dict[str, Bucket] = field(default_factory=dict)

    def spend(self, client: str) -> None:
        """Count a request of `client`, of whom there are as many as keys.

        Raises:
            Problem: it is one too many.
        """
        if not self.rate:
            return
        bucket = self._buckets.setdefault(client, Bucket(self.rate))
        seconds = bucket.take(time.monotonic())
        if seconds:
            raise later(
                "rate-limited", f"This key may send {self.rate:g} requests a second.", seconds
            )


async def read_body(
    receive: Receive,
    headers: dict[str, str],
    *,
    limit: int,
    seconds: float,
    take: Callable[[int], None],
) -> bytes:
    """Return a request's body.

    Args:
        receive: of ASGI.
        headers: of the request, with names in lower case.
        limit: bytes, at most.
        seconds: that all of it may take to arrive.
        take: takes room for so many bytes more (`Held.room`).

    Raises:
        Problem: longer than `limit`, slower than `seconds`, or no room is left.
        CallerGone: nobody is there to be told anything.
    """
    body = bytearray()
    try:
        if int(headers.get("content-length") or 0) > limit:
            raise _too_large(limit)
        async with asyncio.timeout(seconds):
            async for chunk in _chunks(receive):
                if len(body) + len(chunk) > limit:
                    raise _too_large(limit)
                take(len(chunk))
                body += chunk
    except TimeoutError as error:
        raise Problem(
            "too-slow", f"The body did not arrive within {seconds:g} s.", headers=_CLOSE
        ) from error
    except Problem as problem:
        if "expect" not in headers:
            await _discard(receive, limit)
        problem.headers |= _CLOSE
        raise
    return bytes(body)


_CLOSE = {"Connection": "close"}


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _discard(receive: Receive, limit: int) -> None:
    """Read on for a moment: a caller who is still sending when we close never sees why."""
    left = limit
    try:
        async with asyncio.timeout(_DISCARD_SECONDS):
            async for chunk in _chunks(receive):
                left -= len(chunk)
                if left < 0:
                    return
    except (TimeoutError, CallerGone):
        return


def _too_large(limit: int) -> Problem:
    return Problem(
        "too-large",
        f"A request may have {limit / _MB:g} MB.",
        fix="Send fewer or smaller images in one request.",
    )


def body_bytes(megabytes: int) -> int:
    """Return the setting of the largest body in bytes."""
    return megabytes * _MB
