"""Units of work that no training has made."""

from __future__ import annotations

import numpy as np

from clr.compare.unit import Asked, State, Step, Unit
from clr.core.files import sha256_bytes

CLASSES = 4
SHA = "sha256:" + "a" * 64


def step(task: str, wrong: dict[str, int], n: int = 400, canary: str = "c") -> Step:
    """A step after which the first `wrong[task]` items of each task are answered wrong."""
    logits = {}
    for one, count in wrong.items():
        answers = truth(n).copy()
        answers[:count] = (answers[:count] + 1) % CLASSES
        logits[one] = np.eye(CLASSES, dtype=np.float32)[answers]
    return Step(
        task=task,
        train=60,
        seconds=2.0,
        cpu_seconds=1.5,
        start_seconds=0.5,
        memory_mb=None,
        cost={"kernels": 1000, "batch_norm": 0, "head": 50, "other": 0, "bytes": 4200},
        latency={"p50": 3.0, "p95": 3.5, "bare_p50": 2.0, "bare_p95": 2.5},
        state=State("backbone", {one: f"{canary}-{one}" for one in wrong}),
        logits=logits,
    )


def truth(n: int = 400) -> np.ndarray:
    return np.arange(n, dtype=np.int64) % CLASSES


def unit(
    method: str,
    *steps: Step,
    seed: int = 0,
    shared: bool = False,
    after: State | None = None,
    per_class: int = 0,
) -> Unit:
    """A unit of these steps; a separate one was left alone by what came after, by default."""
    tasks = tuple(one.task for one in steps)
    digests = dict.fromkeys(("data", "code", "environment", "backbone", "recipe"), SHA)
    return Unit(
        key=sha256_bytes(repr((method, tasks, seed, per_class)).encode()),
        asked=Asked(method, shared, tasks, seed, 0, per_class),
        steps=steps,
        labels={task: truth() for task in tasks},
        majority=dict.fromkeys(tasks, 0),
        after=after or (None if shared else steps[0].state),
        about={"digests": digests, "hardware": "none", "numeric": "none", "threads": 1},
    )
