"""Batches whose images belong to different tasks, in one frozen backbone."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from clr.core.adapter import Adapter
from clr.core.backbone import Backbone
from clr.core.network import ReprogrammedNetwork
from clr.errors import UsageError


class MixedNetwork:
    """One frozen backbone and any number of named adapters, for inference only.

    Several threads may ask, attach and detach at once: a batch is computed with the
    adapters that were attached when it began.
    """

    def __init__(self, backbone: Backbone) -> None:
        """Share `backbone`; nothing of it is copied."""
        self.backbone = backbone
        self._changing = threading.Lock()
        self._attached: Mapping[str, ReprogrammedNetwork] = MappingProxyType({})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the attached adapters, sorted."""
        return tuple(sorted(self._attached))

    def attach(self, adapter: Adapter, name: str = "") -> None:
        """Attach an adapter under `name` (default: its task), in place of one of that name.

        Raises:
            IntegrityBroken: it does not belong to this backbone (see `check_adapter`).
        """
        key = name or adapter.spec.task
        made = ReprogrammedNetwork(self.backbone)
        made.attach(adapter, key)
        with self._changing:
            self._attached = MappingProxyType({**self._attached, key: made})

    def detach(self, name: str) -> None:
        """Forget the adapter of this name.

        Raises:
            UsageError: there is none.
        """
        with self._changing:
            _find(self._attached, name)
            kept = {key: one for key, one in self._attached.items() if key != name}
            self._attached = MappingProxyType(kept)

    def adapter(self, name: str) -> Adapter:
        """Return the attached adapter of this name.

        Raises:
            UsageError: there is none; never the bare backbone instead.
        """
        return _find(self._attached, name).adapter(name)

    @torch.inference_mode()
    def logits(self, batch: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Return the logits [classes of its adapter] of each image.

        Args:
            batch: float images [N, 3, H, W], normalised.
            names: of the adapter of each image.

        Raises:
            UsageError: no such adapter, or not one name an image.
        """
        if len(names) != len(batch):
            raise UsageError(f"{len(batch)} images have {len(names)} names of adapters.")
        attached = self._attached
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            rows.setdefault(name, []).append(row)
        programs = {name: _find(attached, name) for name in rows}
        found: dict[int, Tensor] = {}
        for name, mine in rows.items():
            found |= zip(mine, programs[name].logits(batch[mine], name), strict=True)
        return [found[row] for row in range(len(names))]

    @torch.inference_mode()
    def features(self, batch: Tensor) -> Tensor:
        """Return the bare backbone's features [N, channels] of float images [N, 3, H, W]."""
        output: Tensor = self.backbone.module(batch.to(self.backbone.device))
        return output


def _find(attached: Mapping[str, ReprogrammedNetwork], name: str) -> ReprogrammedNetwork:
    found = attached.get(name)
    if found is None:
        known = tuple(sorted(attached))
        raise UsageError(
            f"No adapter {name!r} is attached.",
            fix=f"Attached: {', '.join(known[:10]) or 'none'}.",
            known=known,
        )
    return found
