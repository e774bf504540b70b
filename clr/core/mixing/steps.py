"""Depthwise kernels, channel mixing and batch norms that differ from image to image.

A kernel for each image is one depthwise convolution over images × channels. It takes no longer
than one task's where memory holds the images of one pixel side by side (`wide`); all else that a
network of depthwise and 1×1 convolutions does can be done in that order, too, so that it is taken
up once a batch (docs/serving-speed.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clr.core.mixing.convolve import narrow, wide
from clr.core.mixing.fold import Affine, Step


@dataclass(frozen=True, eq=False)
class Steps:
    """What the tasks of a batch do to the output [N, C, H, W] of one convolution.

    Attributes:
        steps: one a task, with the same parts each.
        images: how many the task has.
    """

    steps: Sequence[Step]
    images: Sequence[int]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the convolution's output reprogrammed."""
        if len(self.steps) == 1:
            return alone(x, self.steps[0])
        pairs = zip(self.steps, self.images, strict=True)
        each = [step for step, images in pairs for _ in range(images)]
        return _mix(together(x, each), each)


def alone(x: Tensor, step: Step) -> Tensor:
    """Apply one task's step to [N, C, H, W]."""
    x = F.conv2d(x, step.kernel, step.shift, padding=1, groups=x.shape[1])
    if step.down is not None and step.up is not None:
        x = x + F.conv2d(F.conv2d(x, step.down), step.up)
    return x


def together(x: Tensor, steps: Sequence[Step]) -> Tensor:
    """Apply the kernel of `steps[n]` to image n of [N, C, H, W]."""
    kernels = torch.cat([step.kernel for step in steps])
    shifts = [step.shift for step in steps if step.shift is not None]
    shift = torch.cat(shifts) if shifts else None
    return narrow(F.conv2d(wide(x), kernels, shift, padding=1, groups=len(kernels)), len(steps))


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
