"""Batches whose images belong to different tasks, in one pass of one frozen backbone.

Everything that a task adds acts on its own images alone: depthwise kernels, channel mixing,
batch norms and head. Frozen batch norms are folded (`clr.core.folding`), so that logits differ
in the last bits from those of `clr.core.network.ReprogrammedNetwork`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from clr.core.adapter import Adapter
from clr.core.backbone import Backbone
from clr.core.mixing.batch import Alike, Part, act, allow, common, in_order
from clr.core.mixing.lanes import Lanes
from clr.core.mixing.shelf import Shelf
from clr.core.places import acting
from clr.errors import UsageError

READY_BYTES = 512 * 2**20
"""Memory for adapters that are folded and ready, by default; all others are kept packed."""


class MixedNetwork:
    """One frozen backbone and any number of named adapters, for inference only.

    Several threads may ask, attach and detach at once: a batch is computed with the
    adapters that were attached when it began.
    """

    def __init__(self, backbone: Backbone, *, ready_bytes: int = READY_BYTES) -> None:
        """Share `backbone`; nothing of it is copied.

        Args:
            backbone: to which all adapters belong.
            ready_bytes: memory for adapters that are folded and ready; the others, those asked
                for least recently, are kept packed and take milliseconds when they are wanted.
        """
        self.backbone = backbone
        self._shelf = Shelf(backbone, ready_bytes)
        self._lanes = Lanes(backbone.device)
        allow(backbone)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the attached adapters, sorted."""
        return self._shelf.names

    def attach(self, adapter: Adapter, name: str = "") -> None:
        """Attach an adapter under `name` (default: its task), in place of one of that name.

        Raises:
            IntegrityBroken: it does not belong to this backbone (see `check_adapter`).
        """
        self._shelf.put(name or adapter.spec.task, adapter)

    def detach(self, name: str) -> None:
        """Forget the adapter of this name.

        Raises:
            UsageError: there is none.
        """
        self._shelf.remove(name)

    def adapter(self, name: str) -> Adapter:
        """Return the attached adapter of this name, its tensors on the CPU.

        Raises:
            UsageError: there is none; never the bare backbone instead.
        """
        return self._shelf.adapter(name)

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
        parts = self._parts(names)
        if not parts:
            return []
        batch = batch.to(self.backbone.device)
        found: dict[int, Tensor] = {}
        for some in self._lanes.each(partial(self._pass, batch), parts):
            found |= some
        return [found[row] for row in range(len(batch))]

    @torch.inference_mode()
    def _pass(self, batch: Tensor, parts: Sequence[Part]) -> dict[int, Tensor]:
        """Return the logits of each image of these parts, by its row in the batch."""
        rows = [row for part in parts for row in part.rows]
        if rows != list(range(len(batch))):
            batch = batch[torch.tensor(rows, device=batch.device)]
        batch = batch.contiguous(memory_format=torch.channels_last)
        with acting(act(self.backbone, self._alike, parts)):
            features: Tensor = self.backbone.module(batch)
        images = [len(part.rows) for part in parts]
        return {
            row: logits
            for part, mine in zip(parts, features.split(images), strict=True)
            for row, logits in zip(part.rows, F.linear(mine, *part.adapter.head), strict=True)
        }

    @torch.inference_mode()
    def features(self, batch: Tensor) -> Tensor:
        """Return the bare backbone's features [N, channels] of float images [N, 3, H, W]."""
        output: Tensor = self.backbone.module(batch.to(self.backbone.device))
        return output

    @cached_property
    def _alike(self) -> Alike:
        return common(self.backbone)

    def _parts(self, names: Sequence[str]) -> list[Part]:
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            rows.setdefault(name, []).append(row)
        return in_order([Part(self._shelf.folded(name), mine) for name, mine in rows.items()])
