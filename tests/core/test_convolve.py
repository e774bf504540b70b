"""Convolutions give the same whatever order memory holds a batch in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.std_conv import ScaledStdConv2d
from torch import Tensor, nn

from clr.core.mixing.convolve import Convolve, is_wide, narrow, wide

KINDS = (nn.Conv2d, Conv2dSame, ScaledStdConv2d)


def images(count: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, channels, height, width, generator=generator)


def taken(x: Tensor) -> Tensor:
    """The same images, those of one pixel side by side in memory."""
    return narrow(wide(x), len(x))


@given(data=st.data())
def test_any_convolution_of_wide_images_gives_what_it_gives_of_others(data: Any) -> None:
    draw = data.draw
    channels = draw(st.sampled_from([1, 3, 8]))
    groups = draw(st.sampled_from([1, channels]))
    kind = draw(st.sampled_from(KINDS))
    kernel, stride = draw(st.sampled_from([1, 2, 3, 5])), draw(st.sampled_from([1, 2, 3]))
    one_weight = kernel * channels == groups
    assume(not (kind is ScaledStdConv2d and one_weight))  # which cannot be standardised
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = kind(
            channels,
            groups * draw(st.sampled_from([1, 2])),
            kernel,
            stride,
            padding=draw(st.sampled_from([0, 1, 2])),
            dilation=draw(st.sampled_from([1, 2])) if stride == 1 else 1,
            groups=groups,
            bias=draw(st.booleans()),
        )
    x = images(
        draw(st.integers(1, 5)), channels, draw(st.integers(9, 14)), draw(st.integers(9, 14))
    )
    with torch.inference_mode():
        wanted = convolution(x)
        for given_ in (x, x.contiguous(memory_format=torch.channels_last), taken(x)):
            found = Convolve(convolution)(given_)
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (4, 3, 5, 7), (2, 6, 1, 9)])
def test_wide_images_are_the_same_images(shape: tuple[int, int, int, int]) -> None:
    x = images(*shape)
    found = taken(x)
    assert torch.equal(found, x)
    assert is_wide(found)
    assert wide(found).data_ptr() == found.data_ptr()
    assert torch.equal(wide(x).view(shape), x)


def test_networks_of_depthwise_and_pointwise_convolutions_stay_wide() -> None:
    x = taken(images(4, 8, 12, 12))
    for convolution in (
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 16, 1),
        Conv2dSame(8, 8, 3, groups=8),
    ):
        assert is_wide(Convolve(convolution)(x)), convolution
    assert not is_wide(Convolve(nn.Conv2d(8, 8, 3))(x))


@pytest.mark.parametrize("bias", [True, False])
def test_batches_of_any_size_one_after_another_give_what_each_gives_alone(bias: bool) -> None:
    convolution = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=bias)
    kept = Convolve(convolution)
    with torch.inference_mode():
        for count in (3, 1, 2, 7, 70, 7, 65, 4):
            x = images(count, 8, 9, 9)
            torch.testing.assert_close(kept(taken(x)), convolution(x), atol=1e-5, rtol=1e-5)


def test_the_order_is_changed_before_channels_become_many() -> None:
    few = taken(images(4, 8, 6, 6))
    more, fewer = nn.Conv2d(8, 32, 1), nn.Conv2d(8, 4, 1)
    small, large = (nn.Conv2d(32, 32, size, groups=32) for size in (3, 5))
    with torch.inference_mode():
        assert is_wide(Convolve(more, small)(few))
        changed = Convolve(more, large)(few)
        assert changed.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(changed, more(few), atol=1e-5, rtol=1e-5)
        assert is_wide(Convolve(fewer, nn.Conv2d(4, 4, 5, groups=4))(few))
