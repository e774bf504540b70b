"""The accuracy matrix over the life of a backbone, at a cost that stays bounded.

``rows[i][j]`` is the accuracy on task j after promotion i, and null before task
j was there. Rows are kept while there are at most `MAX_TASKS` tasks, the last
`MAX_TASKS` of them. What the metrics need is kept for ever, three figures a
task: its accuracy when it was learned, the best before this offer, and now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clr.errors import IntegrityBroken

MAX_TASKS = 50
IN_FORCE = "release in force"
THIS_OFFER = "this offer"

Row = list[float | None]


@dataclass(frozen=True)
class AccuracyMatrix:
    """Accuracies of all tasks, in the order they were learned.

    Attributes:
        tasks: names; the newcomer is last.
        learned: accuracy when each was learned (its own version in use).
        best: best accuracy before this offer; the newcomer's is its own.
        now: accuracy with the offer; None where it was not measured.
        rows: the kept rows, one accuracy (or None) a task.
        after: what each row follows: the task that was promoted.
        newcomer: whether the last task is new with this offer.
    """

    tasks: tuple[str, ...]
    learned: tuple[float, ...]
    best: tuple[float, ...]
    now: tuple[float | None, ...]
    rows: tuple[tuple[float | None, ...], ...]
    after: tuple[str, ...]
    newcomer: bool

    def metrics(self) -> dict[str, float]:
        """Return average accuracy, backward transfer and forgetting, over what was measured.

        The same figures as `clr.gate.statistics` gives for the full matrix. Transfer
        and forgetting are over earlier tasks, and absent where there is none.
        """
        earlier = len(self.tasks) - int(self.newcomer)
        now = np.array([np.nan if value is None else value for value in self.now])
        known = np.isfinite(now)
        found: dict[str, float] = {}
        if known.any():
            found["average_accuracy"] = float(now[known].mean())
        known = known[:earlier]
        if known.any():
            before = now[:earlier][known]
            found["backward_transfer"] = float(
                (before - np.array(self.learned[:earlier])[known]).mean()
            )
            found["forgetting"] = float((np.array(self.best[:earlier])[known] - before).mean())
        return {name: round(value, 6) for name, value in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the form in ``gate.json``, which is also the next offer's history."""
        return {
            "tasks": list(self.tasks),
            "learned": _rounded(self.learned),
            "best": _rounded(self.best),
            "now": _rounded(self.now),
            "rows": [_rounded(row) for row in self.rows],
            "after": list(self.after),
        }


def grow(
    history: Mapping[str, Any] | None,
    earlier: Mapping[str, tuple[float | None, float | None]],
    newcomer: tuple[str, float] | None,
) -> AccuracyMatrix:
    """Return the matrix after this offer.

    Args:
        history: `AccuracyMatrix.to_dict` of the release in force, or None.
        earlier: per earlier task, accuracy on record and accuracy with the offer.
        newcomer: name and accuracy of the task that is offered.

    Raises:
        IntegrityBroken: `history` has another form.
    """
    past = _read(history)
    column = {name: position for position, name in enumerate(past["tasks"])}
    names = [name for name in past["tasks"] if name in earlier]
    names += sorted(name for name in earlier if name not in column)
    marks = [_marks(past, column.get(name), *earlier[name]) for name in names]
    rows, after = list(past["rows"]), list(past["after"])
    columns: list[int | None] = [column.get(name) for name in names]
    if not past["tasks"] and names:
        rows, after = [[earlier[name][0] for name in names]], [IN_FORCE]
        columns = [*range(len(names))]
    if newcomer is not None:
        name, accuracy = newcomer
        names.append(name)
        marks.append((accuracy, accuracy, accuracy))
        columns.append(column.get(name))
    kept = [[None if at is None else row[at] for at in columns] for row in rows]
    kept.append([now for _, _, now in marks])
    after.append(newcomer[0] if newcomer else THIS_OFFER)
    if len(names) > MAX_TASKS:
        kept, after = [], []
    return AccuracyMatrix(
        tasks=tuple(names),
        learned=tuple(learned for learned, _, _ in marks),
        best=tuple(best for _, best, _ in marks),
        now=tuple(now for _, _, now in marks),
        rows=tuple(tuple(row) for row in kept[-MAX_TASKS:]),
        after=tuple(after[-MAX_TASKS:]),
        newcomer=newcomer is not None,
    )


def _marks(
    past: dict[str, Any], at: int | None, stored: float | None, offered: float | None
) -> tuple[float, float, float | None]:
    """Return what one earlier task had when learned, at its best before, and has now."""
    recorded = 0.0 if stored is None else stored
    if at is None:
        return recorded, recorded, offered
    peaks = (past["best"][at], past["now"][at], stored)
    return past["learned"][at], max(one for one in peaks if one is not None), offered


def _read(history: Mapping[str, Any] | None) -> dict[str, Any]:
    """Check the form of a history; an absent one is empty.

    Raises:
        IntegrityBroken: it has another form, or values that are none.
    """
    if not history:
        return {"tasks": [], "learned": [], "best": [], "now": [], "rows": [], "after": []}
    try:
        past = {name: list(history[name]) for name in ("tasks", "learned", "best", "now", "after")}
        past["rows"] = [list(row) for row in history["rows"]]
    except (KeyError, TypeError) as error:
        raise _broken(str(error)) from error
    width = len(past["tasks"])
    if any(len(past[name]) != width for name in ("learned", "best", "now")):
        raise _broken("columns of different length")
    if any(len(row) != width for row in past["rows"]) or len(past["rows"]) != len(past["after"]):
        raise _broken("rows of different length")
    if not all(isinstance(name, str) for name in (*past["tasks"], *past["after"])):
        raise _broken("a name that is no text")
    measured = (one for values in (past["now"], *past["rows"]) for one in values if one is not None)
    if not all(_is_share(one) for one in (*past["learned"], *past["best"], *measured)):
        raise _broken("an accuracy that is no number from 0 to 1")
    return past


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _rounded(values: tuple[float | None, ...]) -> list[float | None]:
    return [None if value is None else round(value, 6) for value in values]


def _broken(why: str) -> IntegrityBroken:
    return IntegrityBroken(
        f"The accuracy matrix of the release in force has an unknown form ({why}).",
        fix="Give `matrix` of the gate report that admitted it, unchanged, or None.",
    )
