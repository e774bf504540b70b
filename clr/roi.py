"""The business case of a task: measurements and assumptions in, money and months out.

Every field says what it is: ``measured``, ``assumed`` or ``derived`` (with its
formula). What depends on the measured accuracy is given at the low, middle and
high end of the accuracy's interval. A field whose assumptions are missing is
absent, never zero. docs/roi.md tells the formulas in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import numpy as np

from clr.business import ASSUMPTIONS, parse_business
from clr.errors import UsageError
from clr.roi_errors import add_error_costs

__all__ = ["business_case", "derive", "metrics", "parse_business", "payback_curve", "replace"]

Field = dict[str, Any]
Case = dict[str, Field]
Ends = tuple[float, float, float]

OF_PROBE = "1 - baseline_accuracy"
"""Source of `current_error_rate` where nobody said what it is today: the linear probe's error."""

_PRICES = ("compute_cost_per_hour", "engineer_hours", "hourly_rate")

MEASUREMENTS: dict[str, str] = {
    "images_labelled": "images",
    "training_seconds": "s",
    "baseline_accuracy": "share",
    "added_parameters": "parameters",
    "adapter_bytes": "bytes",
    "latency_p50_before_ms": "ms",
    "latency_p95_before_ms": "ms",
    "latency_p50_after_ms": "ms",
    "latency_p95_after_ms": "ms",
}
"""Name of each measurement besides the accuracy: its unit."""


def business_case(measured: Mapping[str, Any], assumptions: Mapping[str, Any]) -> Case:
    """Return the business case of one task.

    Args:
        measured: `accuracy` (share), `accuracy_ci` (its 95 % interval, low and high),
            and of `MEASUREMENTS` what is known; for a cost matrix also `confusion`
            ({true: {predicted: count}} on the test split) and, where there is one,
            `baseline_confusion`. `known` has fields by name, each {kind, value, source or
            formula}, that have become known and take the place of assumptions.
        assumptions: as `parse_business` returns them.

    Returns:
        Fields by name: {kind, unit, value} or {kind, unit, low, middle, high}, derived
        ones with `formula`. `low` is at the low end of the accuracy's interval.

    Raises:
        UsageError: an assumption is bad, or a kind of error that occurred has no cost.
    """
    assumed = parse_business(assumptions)
    money = assumed.get("currency", "currency units")
    case = _measured_fields(measured)
    for name, value in assumed.items():
        case[name] = {"kind": "assumed", "unit": _unit(name, money), "value": value}
    replace(case, measured.get("known", {}), money)
    if "current_error_rate" not in case and "baseline_accuracy" in case:
        case["current_error_rate"] = {
            "kind": "measured",
            "unit": "share",
            "value": round(1 - case["baseline_accuracy"]["value"], 12),
            "source": OF_PROBE,
        }
    add_error_costs(case, measured, money)
    return derive(case)


def derive(case: Case) -> Case:
    """Add to a case what follows from its measured and assumed fields; return it."""
    money = currency(case)
    _add_costs(case, money)
    _add_benefit(case, money)
    _add_returns(case, money)
    return case


def currency(case: Case) -> str:
    """Return the unit of a case's money."""
    return str(case["currency"]["value"]) if "currency" in case else "currency units"


def derived(unit: str, formula: str, value: float) -> Field:
    """Return a field that follows from others by a formula."""
    return {"kind": "derived", "unit": unit, "formula": formula, "value": value}


def payback_curve(case: Case, months: int | None = None) -> list[dict[str, float]]:
    """Return the cumulative cash after each month, from minus the adoption cost at month 0.

    Args:
        case: a business case.
        months: last month; by default the horizon, else five years.

    Returns:
        [{month, low, middle, high}], not discounted; empty where the case does not
        say what adoption costs or what a year brings.
    """
    if not {"adoption_cost", "annual_benefit", "annual_running_cost"} <= case.keys():
        return []
    if months is None:
        months = round(12 * case["horizon_years"]["value"]) if "horizon_years" in case else 60
    cost = case["adoption_cost"]["value"]
    net = _net(case)
    return [
        {
            "month": float(month),
            **{end: month * net[i] / 12 - cost for i, end in enumerate(("low", "middle", "high"))},
        }
        for month in range(months + 1)
    ]


def metrics(case: Case) -> dict[str, float]:
    """Return the numbers of a case under flat names: ``roi.npv.low``, ``roi.npv``, ….

    The middle has the plain name. What is no number (a currency, a cost matrix, a
    payback that never comes) is left out.
    """
    flat: dict[str, Any] = {}
    for name, field in case.items():
        if "value" in field:
            flat[f"roi.{name}"] = field["value"]
            continue
        flat[f"roi.{name}"] = field["middle"]
        flat[f"roi.{name}.low"], flat[f"roi.{name}.high"] = field["low"], field["high"]
    return {
        name: float(value)
        for name, value in flat.items()
        if isinstance(value, int | float) and isfinite(value)
    }


def _measured_fields(measured: Mapping[str, Any]) -> Case:
    low, high = measured["accuracy_ci"]
    middle = float(measured["accuracy"])
    if not 0 <= low <= middle <= high <= 1:
        raise UsageError(
            f"An accuracy of {middle} with interval {low} to {high} is not possible.",
            fix="Measure the accuracy and its interval on the same test images.",
        )
    accuracy = {"kind": "measured", "unit": "share"} | _ends((float(low), middle, float(high)))
    case: Case = {"accuracy": accuracy}
    for name, unit in MEASUREMENTS.items():
        if measured.get(name) is not None:
            value = float(measured[name])
            if not isfinite(value) or value < 0:
                raise UsageError(f"{name} = {value} is no measurement.", fix="Measure it again.")
            whole = unit in ("images", "parameters", "bytes")
            case[name] = {"kind": "measured", "unit": unit, "value": int(value) if whole else value}
    return case


def _unit(name: str, money: Any) -> str:
    return ASSUMPTIONS[name][0].format(money=money)


def replace(case: Case, known: Mapping[str, Field], money: Any) -> None:
    """Put what has become known in the place of assumptions, which stay beside it as `assumed`.

    Args:
        case: is changed.
        known: fields {kind, value, source or formula} by the assumption's name.
        money: currency.
    """
    for name, field in known.items():
        assumed = case.get(name)
        case[name] = {"kind": field["kind"], "unit": _unit(name, money), **field}
        if assumed is not None:
            case[name]["assumed"] = assumed["value"]


def _add_costs(case: Case, money: str) -> None:
    """Add adoption cost and annual running cost, where their assumptions are there."""
    known = _values(case, "images_labelled label_cost_per_image training_seconds", *_PRICES)
    if known is not None:
        images, label, seconds, compute, hours, rate = known
        case["adoption_cost"] = derived(
            money,
            "images_labelled × label_cost_per_image + training_seconds / 3600 × "
            "compute_cost_per_hour + engineer_hours × hourly_rate",
            images * label + seconds / 3600 * compute + hours * rate,
        )
    if (known := _values(case, "maintenance_hours_per_month hourly_rate")) is not None:
        hours, rate = known
        cost, formula = 12 * hours * rate, "12 × maintenance_hours_per_month × hourly_rate"
        machine = _values(case, "items_per_year latency_p50_after_ms compute_cost_per_hour")
        if machine is not None:
            items, latency, compute = machine
            cost += items * latency / 3_600_000 * compute
            formula += " + items_per_year × latency_p50_after_ms / 3,600,000 × "
            formula += "compute_cost_per_hour"
        case["annual_running_cost"] = derived(f"{money}/year", formula, cost)


def _add_benefit(case: Case, money: str) -> None:
    known = _values(case, "items_per_year current_error_rate")
    if known is None:
        return
    items, rate = known
    if "error_cost_before" in case:
        before, after = case["error_cost_before"]["value"], case["error_cost_after"]["value"]
        formula = (
            "items_per_year × (current_error_rate × error_cost_before - (1 - accuracy) × "
            "error_cost_after)"
        )
    elif "error_cost" in case and "cost_matrix" not in case:  # which nobody counted errors for
        before = after = case["error_cost"]["value"]
        formula = "items_per_year × (current_error_rate - (1 - accuracy)) × error_cost"
    else:
        return
    case["annual_benefit"] = _derived_ends(
        case,
        f"{money}/year",
        formula,
        lambda accuracy: items * (rate * before - (1 - accuracy) * after),
    )


def _add_returns(case: Case, money: str) -> None:
    """Add payback, net present value and return, where costs and benefit are known."""
    if not {"adoption_cost", "annual_benefit", "annual_running_cost"} <= case.keys():
        return
    cost, running = case["adoption_cost"]["value"], case["annual_running_cost"]["value"]
    net = _net(case)
    case["payback_months"] = {
        "kind": "derived",
        "unit": "months",
        "formula": "adoption_cost / ((annual_benefit - annual_running_cost) / 12); "
        "none where a year brings no surplus",
    } | _ends(_map(net, lambda one: 12 * cost / one if one > 0 else None))
    if "horizon_years" not in case:
        return
    years = case["horizon_years"]["value"]
    if "discount_rate" in case:
        months = np.arange(1, round(12 * years) + 1)
        factor = float(np.sum((1 + case["discount_rate"]["value"]) ** (-months / 12))) / 12
        case["npv"] = {
            "kind": "derived",
            "unit": money,
            "formula": "-adoption_cost + Σ over months m of (annual_benefit - "
            "annual_running_cost) / 12 / (1 + discount_rate)^(m/12)",
        } | _ends(_map(net, lambda one: one * factor - cost))
    total = cost + running * years
    if total > 0:
        case["roi_pct"] = {
            "kind": "derived",
            "unit": "%",
            "formula": "100 × (annual_benefit × horizon_years - total) / total, with total = "
            "adoption_cost + annual_running_cost × horizon_years; not discounted",
        } | _ends(_map(net, lambda one: 100 * ((one + running) * years - total) / total))


def _net(case: Case) -> Ends:
    """What a year brings after its running cost, at the three ends of the accuracy."""
    running = case["annual_running_cost"]["value"]
    benefit = case["annual_benefit"]
    return (benefit["low"] - running, benefit["middle"] - running, benefit["high"] - running)


def _values(case: Case, *names: str) -> list[float] | None:
    """Return the values of the named fields, or None where one is absent."""
    wanted = " ".join(names).split()
    return [case[name]["value"] for name in wanted] if set(wanted) <= case.keys() else None


def _derived_ends(
    case: Case, unit: str, formula: str, of: Callable[[float], float | None]
) -> Field:
    accuracy = case["accuracy"]
    values = _map((accuracy["low"], accuracy["middle"], accuracy["high"]), of)
    return {"kind": "derived", "unit": unit, "formula": formula} | _ends(values)


def _map(
    ends: Ends, of: Callable[[float], float | None]
) -> tuple[float | None, float | None, float | None]:
    low, middle, high = ends
    return of(low), of(middle), of(high)


def _ends(values: tuple[float | None, float | None, float | None]) -> Field:
    return dict(zip(("low", "middle", "high"), values, strict=True))
