"""Draw a synthetic surface-inspection task: scratch, pit, stain or clean on brushed metal.

Every image has a brushed texture, an uneven light, streaks along the brush and
dust, so that no single statistic gives a class away; defects are faint to
strong. All in integers (clr/data/demo_images.py says why).
"""

from __future__ import annotations

from math import isqrt

import numpy as np

from clr.data.demo_images import Dice, Gray

SIDE = 64
CLASSES = ("clean", "pit", "scratch", "stain")

_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.int64)


def surface(kind: str, dice: Dice) -> Gray:
    """Return one image [64, 64] of class `kind` (one of CLASSES)."""
    image: Gray = _metal(dice) + _DEFECTS[kind](dice)
    if dice.below(4) == 0:  # a sheet that was laid the other way
        image = image.T
    return np.ascontiguousarray(np.clip(image, 0, 255))


def _metal(dice: Dice) -> Gray:
    """Brushed texture, uneven light, streaks along the brush, and dust."""
    length = dice.between(8, 24)
    strokes = dice.noise(SIDE, SIDE + length, 90).cumsum(axis=1)
    brushed = (strokes[:, length:] - strokes[:, :-length]) // length
    light = (_X * dice.between(-24, 24) + _Y * dice.between(-24, 24)) // SIDE
    metal: Gray = dice.between(100, 160) + light + brushed + dice.noise(SIDE, SIDE, 5)
    for _ in range(dice.below(3)):
        start, row = dice.below(SIDE // 2), dice.below(SIDE)
        metal[row, start : start + dice.between(12, 32)] += dice.sign() * dice.between(8, 26)
    for _ in range(dice.below(6)):
        metal[dice.below(SIDE), dice.below(SIDE)] -= dice.between(15, 45)
    return metal


def _clean(dice: Dice) -> Gray:
    return np.zeros((SIDE, SIDE), dtype=np.int64)


def _scratch(dice: Dice) -> Gray:
    """A thin line across the brush, of one polarity, sometimes broken."""
    x0, y0 = dice.between(6, 57), dice.between(4, 24)
    dx, dy = dice.between(-30, 30), dice.between(16, 38)
    length = isqrt(dx * dx + dy * dy)
    along = ((_X - x0) * dx + (_Y - y0) * dy) // length
    across = abs((_X - x0) * dy - (_Y - y0) * dx) * 8 // length  # in 1/8 px
    strength = dice.sign() * dice.between(14, 44)
    line = np.where((along >= 0) & (along <= length), np.maximum(10 - across, 0), 0)
    gap = dice.between(0, length)
    line[(along >= gap) & (along < gap + dice.below(8))] = 0
    return line * strength // 8


def _pit(dice: Dice) -> Gray:
    """One to three small dark holes, each with a lit rim on one side."""
    total = _clean(dice)
    for _ in range(dice.between(1, 3)):
        x, y = dice.between(6, SIDE - 7), dice.between(6, SIDE - 7)
        radius = dice.between(12, 26)  # in 1/8 px
        depth = dice.between(20, 62)
        total -= _disc(x, y, radius, 8) * depth // 16
        total += _disc(x + 1, y + 2, radius, 8) * (depth // 3) // 16
    return total


def _stain(dice: Dice) -> Gray:
    """A soft patch of overlapping discs, darker or lighter than the sheet."""
    x, y = dice.between(16, 47), dice.between(16, 47)
    patch = _clean(dice)
    for _ in range(dice.between(3, 6)):
        at = x + dice.between(-10, 10), y + dice.between(-10, 10)
        patch = np.maximum(patch, _disc(*at, dice.between(36, 80), 36))
    return patch * (dice.sign() * dice.between(8, 24)) // 16


def _disc(x: int, y: int, radius: int, edge: int) -> Gray:
    """A disc of height 16 at (x, y); `radius` and its soft `edge` in 1/8 px."""
    squared = ((_X - x) ** 2 + (_Y - y) ** 2) * 64
    # linear in the squared distance, so that no square root is needed
    inner, outer = radius * radius, (radius + edge) * (radius + edge)
    height: Gray = np.clip((outer - squared) * 16 // (outer - inner), 0, 16)
    return height


_DEFECTS = {"clean": _clean, "pit": _pit, "scratch": _scratch, "stain": _stain}
