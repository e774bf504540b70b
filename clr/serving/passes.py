"""What one batch costs and gives: a pass through the backbone, with adapters or with the router."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clr.core.choosing import Routed
from clr.core.images import prepare
from clr.core.routing import Floats, project
from clr.errors import ServiceUnavailable

if TYPE_CHECKING:
    from torch import Tensor

    from clr.serving.adapters import Attached
    from clr.serving.batching import Job


class Unavailable(ServiceUnavailable):
    """The adapter that an image needs cannot be read now."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the router sees of one image.

    Attributes:
        routed: the task, and how sure that is.
        projected: float32 [d], its features in the router's form.
    """

    routed: Routed
    projected: Floats


def compute(attached: Attached, batch: Sequence[Job]) -> list[list[float] | Seen | Exception]:
    """Return the result of each image of a batch.

    Args:
        attached: the network and its adapters.
        batch: images of one kind, see `clr.serving.batching.Job.kind`.

    Returns:
        probabilities of the classes of an image's adapter, what the router sees, or why the
        image has no result.
    """
    pixels = torch.stack([job.pixels for job in batch])
    inputs = prepare(pixels, batch[0].way, attached.network.backbone.device)
    if batch[0].loaded is None:
        return list(_routed(attached, batch, inputs))
    return _classified(attached, batch, inputs)


def _routed(attached: Attached, batch: Sequence[Job], inputs: Tensor) -> list[Seen]:
    features = attached.network.features(inputs).float().cpu().numpy()
    projected = project(features)
    found: dict[int, Seen] = {}
    routers = {id(job.snapshot.router): job.snapshot.router for job in batch}
    for key, router in routers.items():
        assert router is not None
        rows = [row for row, job in enumerate(batch) if id(job.snapshot.router) == key]
        for row, one in zip(rows, router.choose(projected[rows]), strict=True):
            found[row] = Seen(one, projected[row])
    return [found[row] for row in range(len(batch))]


def _classified(
    attached: Attached, batch: Sequence[Job], inputs: Tensor
) -> list[list[float] | Seen | Exception]:
    refs = [job.loaded.ref for job in batch if job.loaded is not None]
    failed = attached.ensure(refs)
    rows = [row for row, ref in enumerate(refs) if ref.adapter_digest not in failed]
    found: dict[int, list[float]] = {}
    if rows:
        part = inputs if len(rows) == len(batch) else inputs[rows]
        logits = attached.network.logits(part, [refs[row].adapter_digest for row in rows])
        for row, one in zip(rows, logits, strict=True):
            found[row] = torch.softmax(one.float(), 0).tolist()
    return [
        found[row] if row in found else Unavailable(failed[ref.adapter_digest])
        for row, ref in enumerate(refs)
    ]
