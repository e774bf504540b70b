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


def convolve(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Return what the backbone's convolution gives, in the order of memory that its input has.

    One that mixes the pixels and the channels of an image needs them side by side. So has one of
    large kernels on a small map, since these would have to be repeated for every image.
    """
    images, pixels = len(x), math.prod(x.shape[2:])
    if images == 1 or pixels == 1:
        return _plain(convolution, x)
    if _is_pointwise(convolution):
        order = (2, 3, 0, 1) if is_wide(x) else (0, 2, 3, 1)
        return _pointwise(convolution, x, order)
    if not is_wide(x):
        return _plain(convolution, x)
    if _is_depthwise(convolution) and pixels >= 2 * math.prod(convolution.kernel_size):
        return narrow(_plain(_repeated(convolution, images), wide(x)), images)
    return _plain(convolution, x.contiguous(memory_format=torch.channels_last))


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


def _repeated(convolution: nn.Conv2d, images: int) -> nn.Conv2d:
    """Return a depthwise convolution that does to each of so many images the same."""
    twin = copy.copy(convolution)
    twin.groups = convolution.groups * images
    bias = convolution.bias
    vars(twin)["_parameters"] = {
        "weight": convolution.weight.repeat(images, 1, 1, 1),
        "bias": None if bias is None else bias.repeat(images),
    }
    return twin


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
