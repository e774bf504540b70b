"""Show the drift watch what is answered: features where the router saw them, else of a few images.

An image whose task is named never meets the router; one in a few is looked at afterwards, so that
nobody waits for it, and one at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from clr.serving.drift import Drift
from clr.serving.values import Answer, Item

if TYPE_CHECKING:
    from clr.core.evidence import Evidence
    from clr.registry.release import ChampionRef
    from clr.serving.answering import Desk, Found
    from clr.serving.snapshot import Snapshot
    from clr.settings import Settings

_LOG = logging.getLogger("clr")


class Watcher:
    """Watches what an engine answers.

    Attributes:
        drift: what it found.
    """

    def __init__(
        self,
        settings: Settings,
        desk: Desk,
        current: Callable[[], Snapshot | None],
        evidence: Callable[[ChampionRef], Evidence],
    ) -> None:
        """Begin.

        Args:
            settings: of the workspace.
            desk: where an image is looked at.
            current: returns what serves.
            evidence: returns that of a champion.
        """

        def known(task: str, adapter: str) -> Evidence | None:
            snapshot = current()
            loaded = snapshot.tasks.get(task) if snapshot else None
            if loaded is None or loaded.ref.adapter_digest != adapter:
                return None
            return evidence(loaded.ref)

        def serves(task: str, adapter: str) -> bool:
            snapshot = current()
            champion = snapshot.release.tasks.get(task) if snapshot else None
            return snapshot is None or (champion is not None and champion.adapter_digest == adapter)

        self.drift = Drift(settings.state, known, serves, seed=settings.seed)
        self._desk = desk
        self._looking: asyncio.Task[None] | None = None

    def note(self, snapshot: Snapshot, item: Item, found: Found) -> None:
        """Take an item that was answered."""
        answer = found.result
        if not isinstance(answer, Answer):
            return
        self.drift.observe(answer, found.seen.projected if found.seen else None)
        busy = self._looking is not None and not self._looking.done()
        if found.seen or busy or snapshot.router is None or not self.drift.wants(answer):
            return
        self._looking = asyncio.create_task(self._look(snapshot, item, answer))

    async def close(self) -> None:
        """Look no more; what was found is kept."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        await asyncio.to_thread(self.drift.close)

    async def _look(self, snapshot: Snapshot, item: Item, answer: Answer) -> None:
        try:
            seen = await self._desk.look(snapshot, item)
        except Exception:
            _LOG.exception("drift     an image could not be looked at")
        else:
            self.drift.saw(answer, seen.projected)
