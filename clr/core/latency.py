"""How long one image takes with and without an adapter, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from clr.core.network import ReprogrammedNetwork

ROUNDS = 7
CALLS = 12
"""Calls a round and side."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass of one image.

    Attributes:
        p50: with the adapter.
        p95: with the adapter.
        bare_p50: of the backbone alone.
        bare_p95: of the backbone alone.
    """

    p50: float
    p95: float
    bare_p50: float
    bare_p95: float


def measure_latency(network: ReprogrammedNetwork, name: str) -> Latency:
    """Time the adapter `name` and the bare backbone, see `in_turns`.

    Raises:
        UsageError: no such adapter.
    """
    size = network.adapter(name).spec.preprocessing.size
    batch = torch.zeros(1, 3, size, size).contiguous(memory_format=torch.channels_last)
    batch = batch.to(network.backbone.device)
    return in_turns(
        lambda: network.logits(batch, name), lambda: network.features(batch), ROUNDS, CALLS
    )


def in_turns(
    adapted: Callable[[], object], bare: Callable[[], object], rounds: int, calls: int
) -> Latency:
    """Time two forward passes of one image call by call in turns.

    Each figure is the median over the rounds of that round's percentile, so that a
    moment in which the machine was busy elsewhere does not decide.

    Args:
        adapted: a pass with the adapter.
        bare: a pass of the backbone alone.
        rounds: how many.
        calls: of each, a round.
    """
    both = (adapted, bare)
    for call in both * 3:
        call()
    taken = [np.array([[_milliseconds(call) for call in both] for _ in range(calls)])
             for _ in range(rounds)]  # fmt: skip

    def figure(percentile: float, side: int) -> float:
        return float(median(np.percentile(one[:, side], percentile) for one in taken))

    return Latency(figure(50, 0), figure(95, 0), figure(50, 1), figure(95, 1))


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)
