"""How much may be in work at once; who comes when it is full is told when to come again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from clr.errors import UsageError
from clr.serving.values import Item, Overloaded

_SMOOTHING = 0.2
"""Weight of the newest request in the measured rate (exponential moving average)."""

_SOONEST, _LATEST = 1.0, 60.0


@dataclass(eq=False)
class Room:
    """Images in work: how many, and how much memory their files take.

    Attributes:
        max_items: at once.
        max_bytes: at once.
        items: now.
        bytes: now.
        idle: set while there are none.
    """

    max_items: int
    max_bytes: int
    items: int = 0
    bytes: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    _rate: float = 0.0

    def __post_init__(self) -> None:
        self.idle.set()

    @contextmanager
    def holding(self, items: Sequence[Item]) -> Iterator[None]:
        """Hold room for a request inside the block.

        Raises:
            UsageError: it would not fit into an idle server.
            Overloaded: it does not fit now.
        """
        count, size = len(items), sum(len(one.data) for one in items)
        if count > self.max_items or size > self.max_bytes:
            raise UsageError(
                f"{count} images of {size / 1e6:.0f} MB are more than this server takes at once.",
                fix=f"Send at most {self.max_items} images and {self.max_bytes / 1e6:.0f} MB.",
            )
        if self.items + count > self.max_items or self.bytes + size > self.max_bytes:
            raise Overloaded(f"{self.items} images are in work already.", self._retry_after())
        self.items, self.bytes = self.items + count, self.bytes + size
        self.idle.clear()
        began = time.monotonic()
        try:
            yield
        finally:
            self.items, self.bytes = self.items - count, self.bytes - size
            # while others are in work, too, they end at about the same pace
            rate = (self.items + count) / max(time.monotonic() - began, 1e-3)
            self._rate += (rate - self._rate) * (_SMOOTHING if self._rate else 1.0)
            if not self.items:
                self.idle.set()

    def _retry_after(self) -> float:
        """Return in how many seconds half of what is in work should be done."""
        seconds = 0.5 * self.items / self._rate if self._rate else _SOONEST
        return min(max(seconds, _SOONEST), _LATEST)
