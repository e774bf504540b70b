"""What the router in use costs with many tasks of made-up statistics: processor time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from clr.core.described import CALIBRATION, Floats, TaskStatistics
from clr.core.routing import DIMENSIONS, Router
from clr.core.tried import drawn, found

SIZES, CLASSES, TESTS, ROUNDS = (100, 1000), 2, 10, 50


def timed() -> str:
    """Return the table of seconds, for each of `SIZES`."""
    columns = [measure(size) for size in SIZES]
    lines = [
        "| processor time | " + " | ".join(f"{size:,} tasks" for size in SIZES) + " |",
        "|---|" + "---:|" * len(SIZES),
    ]
    lines += [f"| {name} | {' | '.join(one[name] for one in columns)} |" for name in columns[0]]
    return "\n".join(lines)


def measure(size: int) -> dict[str, str]:
    """Return each time with its unit."""
    dice = np.random.default_rng(0)
    wide = dice.normal(0, 0.02, (DIMENSIONS, DIMENSIONS)).astype(np.float32)
    tasks: dict[str, TaskStatistics] = {}
    tests: dict[str, Floats] = {}
    for at in range(size):
        means = dice.normal(0, 0.06, (CLASSES, DIMENSIONS)).astype(np.float32)
        images = means[dice.integers(0, CLASSES, CALIBRATION)] + _near(dice, CALIBRATION)
        counts = np.full(CLASSES, 100, dtype=np.int64)
        tasks[f"{at:04d}"] = TaskStatistics(counts, means, wide @ wide.T, images.astype(np.float16))
        tests[f"{at:04d}"] = means[dice.integers(0, CLASSES, TESTS)] + _near(dice, TESTS)
    router = Router(tasks)
    every = np.concatenate(list(tests.values()))
    return {
        f"gate: {TESTS} test images of each task, before the newcomer": _milliseconds(
            lambda: found(router, tests)
        ),
        "the same after it, with what it takes and makes doubtful": _milliseconds(
            lambda: drawn(router, tests, "0007")
        ),
        f"limits of a release, {CALIBRATION} held-out images a task": _milliseconds(
            router.calibrate
        ),
        "choice for one image": _milliseconds(lambda: router.choose(every[:1]), ROUNDS),
        "choice for 32 images": _milliseconds(lambda: router.choose(every[:32]), ROUNDS),
    }


def _near(dice: np.random.Generator, count: int) -> Floats:
    return dice.normal(0, 0.02, (count, DIMENSIONS)).astype(np.float32)


def _milliseconds(work: Callable[[], Any], rounds: int = 1) -> str:
    started = time.process_time()
    for _ in range(rounds):
        work()
    return f"{1000 * (time.process_time() - started) / rounds:,.1f} ms"
