"""Adapters in memory, under their digests: as many as fit, the least recently used leave."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from clr.errors import ClrError

if TYPE_CHECKING:
    from clr.core.adapter import Adapter, AdapterSpec
    from clr.core.mixed import MixedNetwork
    from clr.registry.release import ChampionRef


class Attached:
    """Which adapters a network has; several releases share those that they have in common.

    One that left is read again, and its digest checked again, when an image needs it.
    """

    def __init__(
        self, network: MixedNetwork, read: Callable[[ChampionRef], Adapter], limit: int
    ) -> None:
        """Begin with none.

        Args:
            network: to which they are attached.
            read: reads and checks one.
            limit: how many are kept.
        """
        self.network = network
        self._read, self._limit = read, limit
        self._order: OrderedDict[str, None] = OrderedDict()
        self._batch: Mapping[str, ChampionRef] = {}
        self._lock = threading.Lock()

    def add(self, ref: ChampionRef, adapter: Adapter) -> None:
        """Attach an adapter that was checked."""
        with self._lock:
            self._add(ref.adapter_digest, adapter)
            self._shrink()

    def prepare(self, ref: ChampionRef) -> AdapterSpec:
        """Read, check and attach an adapter; return its spec.

        Raises:
            ClrError: it cannot be read.
        """
        adapter = self._read(ref)
        self.add(ref, adapter)
        return adapter.spec

    def ensure(self, refs: Iterable[ChampionRef]) -> dict[str, str]:
        """See that the adapters of a batch are attached until the next call.

        Returns:
            why each that cannot be read is not, by digest.
        """
        failed: dict[str, str] = {}
        with self._lock:
            wanted = self._batch = {ref.adapter_digest: ref for ref in refs}
            for digest, ref in wanted.items():
                if digest in self._order:
                    self._order.move_to_end(digest)
                    continue
                try:
                    self._add(digest, self._read(ref))
                except ClrError as error:
                    failed[digest] = error.message
            self._shrink()
        return failed

    def _add(self, digest: str, adapter: Adapter) -> None:
        if digest not in self._order:
            self.network.attach(adapter, digest)
        self._order[digest] = None
        self._order.move_to_end(digest)

    def _shrink(self) -> None:
        over = len(self._order) - self._limit
        idle = (one for one in self._order if one not in self._batch)
        for digest in list(islice(idle, max(over, 0))):
            del self._order[digest]
            self.network.detach(digest)
