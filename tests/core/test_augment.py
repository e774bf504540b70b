"""Augmentation: symmetries of the square and shifts, nothing else, and seeded."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from clr.core.augment import TURNS, augment

PIXELS = torch.randint(0, 256, (64, 3, 24, 24), generator=torch.Generator().manual_seed(0)).to(
    torch.uint8
)
CHOICES = [c for n in range(len(TURNS) + 1) for c in combinations(TURNS, n)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images_of(batch: Tensor) -> set[bytes]:
    return {image.contiguous().numpy().tobytes() for image in batch}


@pytest.mark.parametrize("turns", CHOICES, ids=str)
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
def test_the_same_seed_gives_the_same_images_and_the_batch_is_left_alone(
    turns: tuple[str, ...], shift: float
) -> None:
    before = PIXELS.clone()
    first = augment(PIXELS, turns, shift, seeded(1))
    assert torch.equal(first, augment(PIXELS, turns, shift, seeded(1)))
    assert torch.equal(PIXELS, before)
    assert first.data_ptr() != PIXELS.data_ptr()
    assert (first.dtype, first.shape) == (torch.uint8, PIXELS.shape)
    if turns or shift:
        assert not torch.equal(first, augment(PIXELS, turns, shift, seeded(2)))


def test_nothing_drawn_comes_from_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    augment(PIXELS, tuple(TURNS), 0.1, seeded())
    assert torch.equal(torch.rand(3), expected)


def test_without_turns_and_shift_images_are_as_they_were() -> None:
    assert torch.equal(augment(PIXELS, (), 0.0, seeded()), PIXELS)


@pytest.mark.parametrize("name", TURNS)
def test_each_turn_done_twice_is_none(name: str) -> None:
    assert torch.equal(TURNS[name](TURNS[name](PIXELS)), PIXELS)
    assert not torch.equal(TURNS[name](PIXELS), PIXELS)


@pytest.mark.parametrize("turns", CHOICES, ids=str)
def test_only_the_given_turns_are_used_and_all_their_combinations(turns: tuple[str, ...]) -> None:
    """Of one image: all three generate the eight symmetries of the square."""
    group = [PIXELS[:1]]
    for _ in range(3):
        group += [TURNS[name](image) for name in turns for image in group]
    drawn = augment(PIXELS[:1].expand(400, -1, -1, -1), turns, 0.0, seeded())
    found = images_of(drawn)
    assert found <= images_of(torch.cat(group))
    assert len(found) == 2 ** len(turns)


def test_shifts_move_at_most_the_share_and_fill_by_reflection() -> None:
    place = torch.arange(24).view(1, 1, 1, 24).expand(1, 3, 24, 24).to(torch.uint8)
    drawn = augment(place.expand(300, -1, -1, -1), (), 0.1, seeded())
    moved = drawn[:, 0, 0, 12].long() - 12
    assert moved.min() == -2
    assert moved.max() == 2
    right = drawn[moved == 2][0, 0, 0].tolist()
    assert right == [*range(2, 24), 22, 21]


def test_the_smallest_images_can_be_shifted_by_half() -> None:
    small = PIXELS[:, :, :16, :16]
    assert augment(small, (), 0.5, seeded()).shape == small.shape


def test_an_empty_batch_is_empty() -> None:
    assert augment(PIXELS[:0], tuple(TURNS), 0.0, seeded()).shape == (0, 3, 24, 24)
