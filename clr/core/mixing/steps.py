"""Depthwise kernels, channel mixing and batch norms that differ from image to image.

Images of one task lie side by side. Where a task has many pixels in a piece of the batch, it
gets a convolution of its own; many tasks with few pixels each are done together, as nine shifted
multiply-adds over all their images, each with the kernel of its task. Both work in the
channels-last layout that the backbone computes in. One grouped convolution over images ×
channels, the third way, has to change the layout twice and was never the quickest
(docs/serving-speed.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from clr.core.mixing.fold import Affine, Step

LARGE = 1500
"""Pixels a task from which a convolution of its own is quicker: a call costs about 45 µs, and nine
multiply-adds 30 ns or more a pixel, whatever the channels."""
FEW = 2
"""Tasks up to which convolutions of their own are quicker than nine multiply-adds."""
AT_ONCE = 600_000
"""Values of a piece, 2.4 MB: what is done to it one after the other finds it in the cache."""
_CENTRE = 4


@dataclass(frozen=True, eq=False)
class Steps:
    """What the tasks of a batch do to the output [N, C, H, W] of one convolution.

    Attributes:
        steps: one a task, with the same parts each.
        images: how many the task has; more first.
        rest: what is done to each image afterwards, if anything.
    """

    steps: Sequence[Step]
    images: Sequence[int]
    rest: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Reprogram the convolution's output in place, a piece that fits the cache at a time."""
        pairs = zip(self.steps, self.images, strict=True)
        each = [step for step, images in pairs for _ in range(images)]
        pieces = -(-x.numel() // AT_ONCE)
        size = -(-len(each) // pieces)
        for at in range(0, len(each), size):
            for part, reprogrammed in _reprogram(x[at : at + size], each[at : at + size]):
                part.copy_(self.rest(reprogrammed))
        return x


def _reprogram(x: Tensor, steps: Sequence[Step]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield parts of [N, C, H, W], with `steps[n]` applied to image n in the quicker way."""
    runs = [(step, len(list(same))) for step, same in groupby(steps)]
    pixels = x.shape[2] * x.shape[3] * len(steps)
    if len(runs) > FEW and pixels < LARGE * len(runs):
        yield x, _mix(_shifted(x, steps), steps)
        return
    parts = x.split([images for _, images in runs])
    for part, (step, _) in zip(parts, runs, strict=True):
        yield part, _alone(part, step)


def _alone(x: Tensor, step: Step) -> Tensor:
    """Apply one task's step to [N, C, H, W]."""
    x = F.conv2d(x, step.kernel, step.shift, padding=1, groups=x.shape[1])
    if step.down is not None and step.up is not None:
        x = x + F.conv2d(F.conv2d(x, step.down), step.up)
    return x


def _shifted(x: Tensor, steps: Sequence[Step]) -> Tensor:
    """Apply the kernel of `steps[n]` to image n of [N, C, H, W]: Σ shifted image × tap."""
    pixels = x.permute(0, 2, 3, 1)
    taps = torch.stack([step.taps for step in steps], 1)[:, :, None, None, :]
    shifts = [step.shift for step in steps if step.shift is not None]
    if shifts:
        out = torch.addcmul(torch.stack(shifts)[:, None, None, :], pixels, taps[_CENTRE])
    else:
        out = pixels * taps[_CENTRE]
    for tap in range(9):
        if tap != _CENTRE:
            (to_row, from_row), (to_column, from_column) = _reach(tap // 3 - 1), _reach(tap % 3 - 1)
            out[:, to_row, to_column].addcmul_(pixels[:, from_row, from_column], taps[tap])
    return out.permute(0, 3, 1, 2)


def _reach(by: int) -> tuple[slice, slice]:
    """Return where values go and where they come from, moved by −1, 0 or 1 within the image."""
    if by > 0:
        return slice(None, -1), slice(1, None)
    return (slice(1, None), slice(None, -1)) if by else (slice(None), slice(None))


def _mix(x: Tensor, steps: Sequence[Step]) -> Tensor:
    """Add to image n of [N, C, H, W] the low-rank mixing of its channels by `steps[n]`."""
    downs = [step.down.flatten(1).t() for step in steps if step.down is not None]
    ups = [step.up.flatten(1).t() for step in steps if step.up is not None]
    if not downs:
        return x
    pixels = x.permute(0, 2, 3, 1)
    flat = pixels.flatten(1, 2)
    mixed = torch.baddbmm(flat, torch.bmm(flat, torch.stack(downs)), torch.stack(ups))
    return mixed.view(pixels.shape).permute(0, 3, 1, 2)


def normalise(x: Tensor, norms: Sequence[Affine], images: Sequence[int]) -> Tensor:
    """Scale and shift each task's images of [N, C, H, W] by a batch norm of its own."""
    if len(norms) == 1:
        return torch.addcmul(norms[0].shift[:, None, None], x, norms[0].scale[:, None, None])
    each = [norm for norm, count in zip(norms, images, strict=True) for _ in range(count)]
    scale, shift = (
        torch.stack([getattr(norm, name) for norm in each]) for name in ("scale", "shift")
    )
    return torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None])
