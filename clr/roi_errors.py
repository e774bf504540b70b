"""What one error costs on average, where a cost matrix tells errors apart (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clr.business import missing_cost

Case = dict[str, dict[str, Any]]


def add_error_costs(case: Case, measured: Mapping[str, Any], money: str) -> None:
    """Add what one error costs on average, before and after, where a cost matrix tells."""
    if "cost_matrix" not in case:
        return
    confusion = measured.get("confusion")
    if not confusion:
        return
    costs = case["cost_matrix"]["value"]
    fallback = case["error_cost"]["value"] if "error_cost" in case else None
    listed = [cost for row in costs.values() for cost in row.values() if cost]
    idle = sum(listed) / len(listed) if listed else 0.0
    unit, counted = f"{money}/error", "Σ count × cost / Σ count over the wrong test answers"
    for name, matrix in (
        ("error_cost_before", measured.get("baseline_confusion") or confusion),
        ("error_cost_after", confusion),
    ):
        cost = mean_cost(matrix, costs, fallback)
        formula = counted if cost is not None else "mean of the costs: no test answer was wrong"
        case[name] = {
            "kind": "derived",
            "unit": unit,
            "formula": formula,
            "value": idle if cost is None else cost,
        }


def mean_cost(
    confusion: Mapping[str, Mapping[str, float]],
    costs: Mapping[str, Mapping[str, float]],
    fallback: float | None,
) -> float | None:
    """Return the mean cost of the errors counted in a confusion matrix; None without errors."""
    total = errors = 0.0
    for true, row in confusion.items():
        for predicted, number in row.items():
            if true == predicted or not number:
                continue
            cost = costs.get(true, {}).get(predicted, fallback)
            if cost is None:
                raise missing_cost(true, predicted)
            total += number * cost
            errors += number
    return total / errors if errors else None
