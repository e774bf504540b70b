"""Try a router on recorded items of its tasks: which find their task, what another one draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clr.core.routing import Floats, Router

ROWS = 1024
"""Items that are routed at once; with 10,000 tasks of two classes their densities take 80 MB."""


def found(router: Router, features: Mapping[str, Floats]) -> dict[str, NDArray[np.bool_]]:
    """Say which items a router sends to the task that they are of.

    Args:
        router: it knows every one of the tasks.
        features: float32 [n, d] of each task, see `project`.

    Returns:
        bool [n] of each task.
    """
    own = {name: at for at, name in enumerate(router.tasks)}
    return {
        name: part == own[name] for name, (part,) in _routed(features, lambda x: (router.route(x),))
    }


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a router does to items of a task where another task is in it, too.

    Attributes:
        found: bool [n], sent to their own task.
        taken: bool [n], sent to the other.
        doubted: bool [n], sent to their own, but the other makes that doubtful.
    """

    found: NDArray[np.bool_]
    taken: NDArray[np.bool_]
    doubted: NDArray[np.bool_]


def drawn(router: Router, features: Mapping[str, Floats], other: str) -> dict[str, Drawn]:
    """Say what `other` does to the items of each task: nothing where the router is without it.

    Args:
        router: it knows every one of the tasks.
        features: float32 [n, d] of each task, see `clr.core.routing.project`.
        other: name of another task.
    """
    if other not in router.tasks:
        return {name: _untouched(reached) for name, reached in found(router, features).items()}
    own = {name: at for at, name in enumerate(router.tasks)}
    bound = router.doubt_limit(other)
    answers = {}
    for name, (sent, leads) in _routed(features, lambda x: router.lead(x, other)):
        reached = sent == own[name]
        answers[name] = Drawn(reached, sent == own[other], reached & (leads <= bound))
    return answers


def _untouched(reached: NDArray[np.bool_]) -> Drawn:
    """Return what is so where there is no other task.

    Args:
        reached: bool [n], which items are sent to their own task.
    """
    nothing = np.zeros(len(reached), dtype=np.bool_)
    return Drawn(reached, nothing, nothing)


def _routed(
    features: Mapping[str, Floats], answer: Callable[[Floats], tuple[NDArray[Any], ...]]
) -> Iterator[tuple[str, tuple[NDArray[Any], ...]]]:
    """Yield each task's name and what `answer` says of its items, in blocks."""
    for names in _blocks({name: len(one) for name, one in features.items()}):
        answers = answer(np.concatenate([features[name] for name in names]))
        ends = np.cumsum([len(features[name]) for name in names])[:-1]
        parts = zip(*(np.split(one, ends) for one in answers), strict=True)
        yield from zip(names, parts, strict=True)


def _blocks(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield names that make about `ROWS` items together: one matrix product for all of them."""
    block: list[str] = []
    rows = 0
    for name, size in sizes.items():
        if block and rows + size > ROWS:
            yield block
            block, rows = [], 0
        block.append(name)
        rows += size
    if block:
        yield block
