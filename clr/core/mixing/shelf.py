"""Thousands of adapters in memory: packed as in their files, those in use folded and ready."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from clr.core.adapter import Adapter, AdapterSpec, check_adapter, shapes
from clr.core.backbone import Backbone
from clr.core.compress import Arrays, Storage, pack, unpack
from clr.core.mixing.fold import FoldedAdapter, fold
from clr.errors import IntegrityBroken, UsageError


@dataclass(frozen=True, eq=False)
class _Packed:
    """An adapter in few bytes: what `Adapter` has, its tensors as the file's arrays."""

    spec: AdapterSpec
    arrays: Arrays
    storage: Storage
    read: tuple[str, bytes] | None


class Shelf:
    """Adapters by name; each can be had as it is, or folded.

    Folded ones are kept as long as they fit into a number of bytes, those asked for last
    before all others; an adapter that does not fit is folded anew when it is asked for.
    Several threads may use it at once.
    """

    def __init__(self, backbone: Backbone, ready_bytes: int) -> None:
        """Begin without adapters.

        Args:
            backbone: to which all belong.
            ready_bytes: memory for folded adapters.
        """
        self.backbone = backbone
        self._limit = ready_bytes
        self._lock = threading.Lock()
        self._packed: dict[str, _Packed] = {}
        self._ready: OrderedDict[str, FoldedAdapter] = OrderedDict()
        self._bytes = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters, sorted."""
        with self._lock:
            return tuple(sorted(self._packed))

    def put(self, name: str, adapter: Adapter) -> None:
        """Keep an adapter under this name, in place of one of that name.

        Raises:
            IntegrityBroken: it does not belong to the backbone (see `check_adapter`).
        """
        check_adapter(adapter, self.backbone)
        packed, ready = _pack(adapter), fold(adapter, self.backbone)
        with self._lock:
            self._packed[name] = packed
            self._keep(name, ready)

    def remove(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            UsageError: there is none of this name.
        """
        with self._lock:
            self._find(name)
            del self._packed[name]
            self._drop(name)

    def adapter(self, name: str) -> Adapter:
        """Return an adapter as it was put, its tensors on the CPU.

        Raises:
            UsageError: there is none of this name.
        """
        with self._lock:
            packed = self._find(name)
        return self._unpacked(packed)

    def folded(self, name: str) -> FoldedAdapter:
        """Return an adapter folded.

        Raises:
            UsageError: there is none of this name.
        """
        with self._lock:
            packed = self._find(name)
            if name in self._ready:
                self._ready.move_to_end(name)
                return self._ready[name]
        ready = fold(self._unpacked(packed), self.backbone)
        with self._lock:
            if self._packed.get(name) is packed:  # nobody put another one meanwhile
                self._keep(name, ready)
        return ready

    def _keep(self, name: str, ready: FoldedAdapter) -> None:
        self._drop(name)
        self._ready[name] = ready
        self._bytes += ready.nbytes
        while self._bytes > self._limit and self._ready:
            self._drop(next(iter(self._ready)))

    def _drop(self, name: str) -> None:
        if name in self._ready:
            self._bytes -= self._ready.pop(name).nbytes

    def _find(self, name: str) -> _Packed:
        found = self._packed.get(name)
        if found is None:
            known = tuple(sorted(self._packed))
            raise UsageError(
                f"No adapter {name!r} is attached.",
                fix=f"Attached: {', '.join(known[:10]) or 'none'}.",
                known=known,
            )
        return found

    def _unpacked(self, packed: _Packed) -> Adapter:
        wanted: Mapping[str, tuple[int, ...]] = shapes(packed.spec, self.backbone)
        tensors = unpack(packed.arrays, packed.storage, wanted)
        return Adapter(packed.spec, tensors, packed.read)


def _pack(adapter: Adapter) -> _Packed:
    storage = adapter.spec.storage
    try:
        arrays = pack(adapter.tensors, storage)
    except IntegrityBroken:  # never compressed: float32 holds any values
        storage = "float32"
        arrays = pack(adapter.tensors, storage)
    copies = {name: array.copy() for name, array in arrays.items()}  # some share the tensors'
    return _Packed(adapter.spec, copies, storage, adapter.read)
