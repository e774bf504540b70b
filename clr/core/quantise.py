"""Rows of values in few bits: a scale s a row, and whole numbers q, read as q·s.

Symmetric quantisation per channel (Krishnamoorthi 2018, sections 2.2 and 3.1.1). ``int8`` and
``int4`` have the largest value of a row at q = L = 127 or 7; ``ternary`` has q of −1, 0 and 1 and
the s that leaves the least squares (Li et al. 2016, section 2.2).

Scales have few significant bits, so that q·s is exact in float32, and so is what it is
added to where `FINEST` bounds them from below. Quantising what was read gives the same q and s.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Codes = Literal["int8", "int4", "ternary"]
Scales = Literal["float32", "float16", "byte"]
CODES: tuple[str, ...] = get_args(Codes)
LEVELS: dict[Codes, int] = {"int8": 127, "int4": 7, "ternary": 1}
FINEST = 2.0**-12
"""Smallest scale of deviations from identity: with a finer one, 1 + q·s is not exact."""
_BITS: dict[Scales, int] = {"float32": 11, "float16": 11, "byte": 4}
"""Significant bits of a scale. In a byte, three of a fraction are below five of an exponent."""
_POWERS = (3 ** np.arange(9)).astype(np.uint16)
"""Of the nine taps of a ternary kernel: 3⁹ − 1 fits 16 bits."""


def quantise(values: Array, codes: Codes, scales: Scales, finest: float) -> tuple[Array, Array]:
    """Return codes int8 [n, R] and scales float32 [R] of R rows of n values.

    Args:
        values: float32 [n, R]; rows along the last axis, which is quicker for short ones.
        codes: what q may be.
        scales: how they are stored, which says how fine they can be.
        finest: the smallest that they may be.
    """
    sizes = np.abs(values)
    # float64: the quotient of what was read is its scale again, bit by bit
    ideal = (
        _least_squares(sizes) if codes == "ternary" else sizes.max(0) / np.float64(LEVELS[codes])
    )
    found = _rounded(np.maximum(ideal, finest), scales)
    limit = LEVELS[codes]
    q = np.rint(values / np.where(found > 0, found, np.float32(1)))
    with np.errstate(invalid="ignore"):  # what was damaged in memory may be no number
        return np.clip(q, -limit, limit).astype(np.int8), found


def _least_squares(sizes: Array) -> Array:
    """Return the best ternary scale of each row: the mean of its k largest, for the best k."""
    sums = np.cumsum(-np.sort(-sizes, axis=0), axis=0, dtype=np.float64)
    counts = np.arange(1, len(sizes) + 1)[:, None]
    best = (sums**2 / counts).argmax(0)
    means: Array = (sums / counts)[best, np.arange(sizes.shape[1])]
    return means


def _rounded(ideal: Array, scales: Scales) -> Array:
    """Return float32 scales of few bits: rounded up, or of a byte to the nearest.

    Half a step of four bits is less than what the largest code of ``int4`` bridges.
    """
    fraction, exponent = np.frexp(ideal)
    bits = _BITS[scales]
    whole = np.ldexp(fraction, bits)
    whole = np.rint(whole) if scales == "byte" else np.ceil(whole)
    rounded: Array = np.ldexp(whole, exponent - bits).astype(np.float32)
    return rounded


def store_scales(scales: Array, kind: Scales) -> Array:
    """Return scales [R] as they are stored."""
    if kind != "byte":
        return scales.astype(kind)
    fraction, exponent = np.frexp(scales)
    stored: Array = ((exponent + 11) * 8 + fraction * 16 - 8).astype(np.uint8)
    return stored


def read_scales(stored: Array, kind: Scales) -> Array:
    """Return float32 scales [R] from how they are stored."""
    if kind != "byte":
        return stored.astype(np.float32)
    scales: Array = np.ldexp((8 + (stored & 7)).astype(np.float32), (stored >> 3).astype(int) - 15)
    return scales


def stored_form(kind: Codes, rows: int, values: int) -> tuple[str, tuple[int, ...]]:
    """Return type and shape in which codes [rows, values] are stored."""
    if kind == "int8":
        return "int8", (rows, values)
    return ("uint8", (-(-rows * values // 2),)) if kind == "int4" else ("uint16", (rows,))


def store_codes(codes: Array, kind: Codes) -> Array:
    """Return int8 codes [R, n] as they are stored.

    ``int4``: q + 8, two a byte, the low half first, row after row. ``ternary``: a row of nine
    as Σ (q + 1)·3ⁱ.
    """
    if kind == "int8":
        return np.ascontiguousarray(codes)
    if kind == "ternary":
        numbers: Array = (codes + 1).astype(np.uint16) @ _POWERS
        return numbers.astype(np.uint16)
    flat = (codes.reshape(-1) + 8).astype(np.uint8)
    flat = np.append(flat, np.zeros(len(flat) % 2, dtype=np.uint8))
    halves: Array = flat[::2] | flat[1::2] << 4
    return halves


def read_codes(stored: Array, kind: Codes, rows: int, values: int) -> Array:
    """Return codes [rows, values] from how they are stored."""
    if kind == "int8":
        return stored
    if kind == "ternary":
        return (stored[:, None] // _POWERS % 3).astype(np.int8) - np.int8(1)
    flat = np.stack([stored & 15, stored >> 4], axis=1).reshape(-1)[: rows * values]
    return flat.astype(np.int8).reshape(rows, values) - np.int8(8)
