"""Augmentation of decoded uint8 batches: mirror, turn and shift, seeded."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "mirror": lambda x: x.flip(-1),
    "upside-down": lambda x: x.flip(-2),
    "quarter": lambda x: x.transpose(-1, -2),
}
"""The symmetries of the square, from three generators; each maps [N, 3, S, S] to the same."""


def augment(
    batch: Tensor, turns: tuple[str, ...], shift: float, generator: torch.Generator
) -> Tensor:
    """Return each image turned by a random combination of `turns` and shifted.

    Args:
        batch: uint8 [N, 3, S, S].
        turns: names from `TURNS` that keep the label.
        shift: largest shift as a share of the side; borders are filled by reflection.
        generator: what chooses.

    Returns:
        uint8 [N, 3, S, S], a new tensor.
    """
    result = batch.clone()
    for name in turns:
        chosen = torch.rand(len(batch), generator=generator) < 0.5
        result[chosen] = TURNS[name](result[chosen])
    pixels = round(shift * batch.shape[-1])
    return _shifted(result, pixels, generator) if pixels else result


def _shifted(batch: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    side = batch.shape[-1]
    padded = F.pad(batch.float(), (pixels,) * 4, mode="reflect").to(torch.uint8)
    tops, lefts = torch.randint(0, 2 * pixels + 1, (2, len(batch)), generator=generator).tolist()
    pieces = [
        image[:, top : top + side, left : left + side]
        for image, top, left in zip(padded, tops, lefts, strict=True)
    ]
    return torch.stack(pieces)
