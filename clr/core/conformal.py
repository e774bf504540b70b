"""Limits that a new score exceeds no more often than promised, whatever its distribution.

Split conformal prediction (Vovk, Gammerman & Shafer 2005, section 4.1; Lei et al. 2018,
section 2): if n calibration scores and a new one are exchangeable, the new one exceeds the
k-th smallest of them with probability at most 1 - k / (n + 1).
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9
"""(n + 1)(1 - share) is this much too large at most, as a product of floats."""


def rank(count: int, share: float) -> int:
    """Return k, the smallest that keeps the promise `share`, or else the largest there is.

    k = min(n, ceil((n + 1)(1 - share)))

    Args:
        count: n, calibration scores, one or more.
        share: of new scores that may exceed the limit, between 0 and 1.
    """
    return max(1, min(count, ceil((count + 1) * (1 - share) - ROUNDING)))


def promise(count: int, share: float) -> float:
    """Return what holds for a limit from `count` scores: at most max(share, 1 / (n + 1)).

    Args:
        count: n, calibration scores, one or more.
        share: that was asked for.
    """
    return 1 - rank(count, share) / (count + 1)


def limit(scores: NDArray[np.float32], share: float) -> float:
    """Return the limit that a new score exceeds with probability at most `promise`.

    Args:
        scores: float [n], in any order.
        share: of new scores that may exceed it.
    """
    at = rank(len(scores), share) - 1
    return float(np.partition(scores, at)[at])
