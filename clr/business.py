"""The assumptions of a business case, as people write them in task.yaml, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from clr.errors import UsageError

ASSUMPTIONS: dict[str, tuple[str, str]] = {
    "currency": ("", "unit of all money, e.g. EUR"),
    "items_per_year": ("items/year", "decisions that the task makes a year"),
    "error_cost": ("{money}/error", "cost of one wrong decision"),
    "cost_matrix": ("{money}/error", "cost of each kind of error: true class, predicted class"),
    "defects": ("labels", "classes that are defects; for the defect rate"),
    "current_error_rate": ("share", "errors without the adapter; absent: the baseline's"),
    "label_cost_per_image": ("{money}/image", "labelling"),
    "compute_cost_per_hour": ("{money}/hour", "the machine that trains and predicts"),
    "engineer_hours": ("hours", "once, to adopt the task"),
    "hourly_rate": ("{money}/hour", "of that engineer"),
    "maintenance_hours_per_month": ("hours/month", "to keep the task running"),
    "horizon_years": ("years", "how far the business case looks"),
    "discount_rate": ("share/year", "0.08 is 8 % a year"),
}
"""Name of each assumption in ``business:`` of task.yaml: its unit and meaning."""

LARGEST, SMALLEST, LONGEST_YEARS, LOWEST_RATE = 1e12, 1e-12, 100.0, -0.5
"""Bounds of what may be assumed, so that what follows from it is a finite number."""

_MOST = {"current_error_rate": 1.0, "horizon_years": LONGEST_YEARS}
_POSITIVE = {"horizon_years"}


def parse_business(
    mapping: Mapping[str, Any], subject: str = "business", *, classes: Sequence[str] = ()
) -> dict[str, Any]:
    """Check assumptions as a person wrote them.

    Args:
        mapping: names out of `ASSUMPTIONS` with their values; empty values are left out.
        subject: where they stand, for the error message.
        classes: the task's classes, if known; then a cost matrix must be about these,
            and, unless error_cost covers the rest, give every kind of error a cost.

    Returns:
        The same, numbers as float, `cost_matrix` as {true: {predicted: cost}}.

    Raises:
        UsageError: an unknown name (near ones are suggested) or a bad value.
    """
    if not isinstance(mapping, Mapping):
        raise UsageError(f"{subject} must be a mapping.", fix="Write one `name: value` a line.")
    checked: dict[str, Any] = {}
    for name, value in mapping.items():
        if name not in ASSUMPTIONS:
            raise _unknown(str(name), subject)
        if value is None or value == "":
            continue
        if name == "currency":
            checked[name] = _currency(value, subject)
        elif name == "cost_matrix":
            checked[name] = _cost_matrix(value, subject)
        elif name == "defects":
            checked[name] = _defects(value, classes, subject)
        else:
            checked[name] = _number(name, value, subject)
    if classes and "cost_matrix" in checked:
        _covers(checked["cost_matrix"], classes, "error_cost" in checked, subject)
    return checked


def _covers(
    costs: Mapping[str, Mapping[str, float]], classes: Sequence[str], rest: bool, subject: str
) -> None:
    """Check that a cost matrix speaks of `classes` only, and of every error unless `rest`."""
    named = [*costs, *(predicted for row in costs.values() for predicted in row)]
    for name in named:
        if name not in classes:
            near = get_close_matches(name, classes, n=3)
            raise UsageError(
                f"{subject}: cost_matrix names {name}, which is no class of this task.",
                fix=f"Did you mean {' or '.join(near or classes)}?",
                key="cost_matrix",
            )
    pairs = ((true, other) for true in classes for other in classes if true != other)
    for true, other in pairs:
        if not rest and other not in costs.get(true, {}):
            raise missing_cost(true, other, subject)


def missing_cost(true: str, predicted: str, subject: str = "business") -> UsageError:
    """Return the error for a kind of error that a cost matrix leaves out."""
    return UsageError(
        f"{subject}: cost_matrix has no cost for {true} taken for {predicted}.",
        fix="Add it, or give error_cost for all other errors.",
        key="cost_matrix",
    )


def _number(name: str, value: Any, subject: str) -> float:
    most, least = _MOST.get(name, LARGEST), LOWEST_RATE if name == "discount_rate" else SMALLEST
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    zero = name not in _POSITIVE
    if not is_number or not (least <= value <= most or (zero and value == 0)):
        bounds = f"{'0 or ' if zero and least > 0 else ''}from {least:g} to {most:g}"
        raise _bad(name, value, f"a number {bounds}", subject)
    return float(value)


def _currency(value: Any, subject: str) -> str:
    if not isinstance(value, str) or len(value) > 12 or not value.isprintable():
        raise _bad("currency", value, "a short word such as EUR", subject)
    return value


def _defects(value: Any, classes: Sequence[str], subject: str) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, Sequence) or not all(isinstance(one, str) for one in listed):
        raise _bad("defects", value, "a list of classes", subject)
    unknown = [one for one in listed if classes and one not in classes]
    if unknown:
        raise UsageError(
            f"{subject}: defects names {unknown[0]}, which is no class of this task.",
            fix=f"Its classes are {', '.join(classes)}.",
            key="defects",
        )
    return sorted(set(listed))


def _cost_matrix(value: Any, subject: str) -> dict[str, dict[str, float]]:
    if not isinstance(value, Mapping) or not all(
        isinstance(row, Mapping) for row in value.values()
    ):
        raise _bad("cost_matrix", value, "a mapping {true: {predicted: cost}}", subject)
    matrix: dict[str, dict[str, float]] = {}
    for true, row in value.items():
        for predicted, cost in row.items():
            checked = _number("cost_matrix", cost, subject)
            if true == predicted and checked:
                raise _bad(
                    "cost_matrix", cost, f"0 or absent where {true} is taken for itself", subject
                )
            matrix.setdefault(str(true), {})[str(predicted)] = checked
    return matrix


def _unknown(name: str, subject: str) -> UsageError:
    near = get_close_matches(name, ASSUMPTIONS, n=3, cutoff=0.6)
    fix = f"Did you mean {' or '.join(near)}?" if near else f"Known are {', '.join(ASSUMPTIONS)}."
    return UsageError(f"{subject}: {name} is not a known assumption.", fix=fix, key=name)


def _bad(name: str, value: Any, wanted: str, subject: str) -> UsageError:
    return UsageError(
        f"{subject}: {name} must be {wanted}, not {value!r}.",
        fix=f"Correct {name}, or leave it out.",
        key=name,
    )
