"""The backbone's convolutions, in whatever order memory holds a batch.

Channels last, the usual order, has the channels of one pixel of one image side by side. `wide` has
those of the same pixel of all images side by side, so that a kernel for each image is one depthwise
convolution of images × channels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from clr.core.places import plain

SMALL = 256
"""Pixels of a map below which those of all images are put together."""
KEPT = 64
"""Images for which repeated weights are kept from one batch to the next."""


def wide(x: Tensor) -> Tensor:
    """Return images [N, C, H, W] as one of N·C channels: [1, N·C, H, W], channels last."""
    images, channels, *side = x.shape
    pixels = x.permute(2, 3, 0, 1).contiguous()
    return pixels.view(1, *side, images * channels).permute(0, 3, 1, 2)


def narrow(x: Tensor, images: int) -> Tensor:
    """Return one image [1, N·C, H, W] of `wide` as N images [N, C, H, W], without a copy."""
    side = x.shape[2:]
    return x.permute(0, 2, 3, 1).reshape(*side, images, -1).permute(2, 3, 0, 1)


def is_wide(x: Tensor) -> bool:
    """Say whether `wide` needs no copy of these images."""
    return x.permute(2, 3, 0, 1).is_contiguous()


class Convolve:
    """One of the backbone's convolutions, in the order of memory that its input has.

    One that mixes the pixels and the channels of an image needs them side by side. So has one of
    large kernels on a small map, since these would have to be repeated for every image. The order
    is changed for it where there is least to move: before a 1×1 convolution that makes many
    channels out of few.
    """

    def __init__(self, module: nn.Conv2d, then: nn.Conv2d | None = None) -> None:
        """Know the convolution, and the one after it where there is one.

        Args:
            module: the convolution; its weights stay as they are from now on.
            then: what its output goes to. Where that is not so, only time is lost.
        """
        self._module, self._then = module, then
        self._repeated = module  # for as many images as it was last made for

    def __call__(self, x: Tensor) -> Tensor:
        """Return the convolution of images [N, C, H, W]."""
        images, pixels = len(x), math.prod(x.shape[2:])
        if images == 1 or pixels == 1:
            return _plain(self._module, x)
        if _is_pointwise(self._module):
            return _pointwise(self._module, x, (2, 3, 0, 1) if self._stays(x) else (0, 2, 3, 1))
        if not is_wide(x):
            return _plain(self._module, x)
        if _is_done_wide(self._module, pixels):
            return narrow(_plain(self._for_each(images), wide(x)), images)
        return _plain(self._module, x.contiguous(memory_format=torch.channels_last))

    def _stays(self, x: Tensor) -> bool:
        """Say whether the order of these images stays wide."""
        grows = self._module.out_channels > self._module.in_channels
        then = self._then if grows else None
        return is_wide(x) and (then is None or _is_done_wide(then, math.prod(x.shape[2:])))

    def _for_each(self, images: int) -> nn.Conv2d:
        """Return a depthwise convolution that does to each of so many images the same.

        Batches of one size follow each other, so that the last one is kept.
        """
        twin, bias = self._repeated, self._module.bias
        if twin.groups != self._module.groups * images:
            twin = copy.copy(self._module)
            twin.groups = self._module.groups * images
            vars(twin)["_parameters"] = {
                "weight": self._module.weight.repeat(images, 1, 1, 1),
                "bias": None if bias is None else bias.repeat(images),
            }
            if images <= KEPT:
                self._repeated = twin
        return twin


def _is_done_wide(convolution: nn.Conv2d, pixels: int) -> bool:
    """Say whether a map of so many pixels is as well off wide: 3×3 from 33 on, 5×5 from 250 on.

    Its weights are read for every image, and large kernels use them less well.
    """
    if _is_pointwise(convolution):
        return True
    return _is_depthwise(convolution) and 5 * pixels >= 2 * math.prod(convolution.kernel_size) ** 2


def _pointwise(convolution: nn.Conv2d, x: Tensor, order: Sequence[int]) -> Tensor:
    """Return what a convolution of single pixels gives, whatever `order` memory holds them in.

    To it a small map's pixels are those of one long image: fewer, larger pieces of work.
    """
    held = x.permute(*order)
    pixels = math.prod(x.shape[2:])
    images = len(x) if pixels >= SMALL else 1
    rows = held.reshape(images, 1, -1, x.shape[1]).permute(0, 3, 1, 2)
    y = plain(convolution, rows).permute(0, 2, 3, 1).reshape(*held.shape[:3], -1)
    back = sorted(range(4), key=lambda at: order[at])
    return y.permute(*back)


def _is_depthwise(convolution: nn.Conv2d) -> bool:
    """Say whether each channel is by itself; other classes have more than a weight to repeat."""
    one_each = convolution.groups == convolution.in_channels == convolution.out_channels
    return one_each and type(convolution) in (nn.Conv2d, Conv2dSame)


def _is_pointwise(convolution: nn.Conv2d) -> bool:
    """Say whether each pixel is by itself."""
    one_each = convolution.kernel_size == convolution.stride == (1, 1)
    return one_each and convolution.groups == 1 and convolution.padding in ((0, 0), "same", "valid")


def _plain(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Return what a convolution gives; TensorFlow's padding without a padded copy of its input.

    That pads by one pixel more at the end than at the start. Padding as much at the start gives a
    few pixels more there, which are cut off.
    """
    if type(convolution) is not Conv2dSame:
        return plain(convolution, x)
    padding, cut = [], []
    for size, kernel, stride, dilation in zip(
        x.shape[2:], convolution.kernel_size, convolution.stride, convolution.dilation, strict=True
    ):
        count = -(-size // stride)
        missing = max(0, (count - 1) * stride + (kernel - 1) * dilation + 1 - size)
        first = -(-(missing - 2 * (missing // 2)) // stride)
        padding.append(missing // 2 + first * stride)
        cut.append(slice(first, first + count))
    y = F.conv2d(
        x,
        convolution.weight,
        convolution.bias,
        convolution.stride,
        padding,
        convolution.dilation,
        convolution.groups,
    )
    return y[:, :, cut[0], cut[1]]
