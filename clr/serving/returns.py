"""The business case of a task that serves: what production tells takes the place of assumptions.

Pure functions: counts of a window in, fields out, each measured or derived as in `clr.roi`. How
the labels behind an error rate were sampled is always said; only an error rate of items that were
drawn at random, or of practically all items, takes the place of the test set's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clr.errors import UsageError
from clr.gate.statistics import wilson_interval
from clr.roi import Case, Field, currency, derive, derived, replace
from clr.roi_errors import mean_cost

YEAR_DAYS, MONTH_DAYS = 365.25, 30.4375
KNOWN_DAYS = 28.0
"""Four whole weeks: before that a month or year is not extrapolated."""

KNOWN_LABELS = 30
"""Labelled items, drawn at random or all there are, from which on their error rate counts."""

ALL = 0.95
"""Share of labelled items from which on they count as all."""

SAMPLINGS = {
    "drawn": "items drawn at random by clr upkeep --draw; items without a label count as right at "
    "the low end and as wrong at the high end",
    "all": "practically every item; items without a label count as right at the low end and as "
    "wrong at the high end",
    "sent": "whatever labels were sent: not a random sample, and the interval does not cover that",
}


@dataclass(frozen=True)
class Served:
    """What was counted of a task in a window of time.

    Attributes:
        days: that the window covers.
        items: answers.
        active_hours: clock hours with an answer.
        latency_ms: median and 95 % of the time from request to answer; None without items.
        labels: answers by label.
        labelled: answers whose true label came.
        wrong: of these.
        confusion: {true: {predicted: count}} of these.
        drawn: answers that were drawn at random.
        drawn_labelled: of these, those whose true label came.
        drawn_wrong: of these.
        hours: of upkeep, as people recorded them; None: nobody did.
        incidents: as people recorded them.
        logged_days: of the window since the first record of upkeep, which may be older than it.
    """

    days: float
    items: int = 0
    active_hours: int = 0
    latency_ms: tuple[float, float] | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    labelled: int = 0
    wrong: int = 0
    confusion: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    drawn: int = 0
    drawn_labelled: int = 0
    drawn_wrong: int = 0
    hours: float | None = None
    incidents: int = 0
    logged_days: float = 0.0


def error_rate(served: Served) -> Field | None:
    """Return the share of wrong answers with its interval and `sampling`; None without labels.

    Of items drawn at random where enough of them are labelled, else of all where practically all
    are, else of whatever was sent. Wilson's 95 % interval; for the first two an item without a
    label counts as right at the low end and as wrong at the high end.
    """
    if served.drawn_labelled >= KNOWN_LABELS:
        sampling, of, n, wrong = (
            "drawn", served.drawn, served.drawn_labelled, served.drawn_wrong,
        )  # fmt: skip
    elif served.labelled:
        full = served.labelled >= ALL * served.items
        sampling, n, wrong = "all" if full else "sent", served.labelled, served.wrong
        of = served.items if full else n
    else:
        return None
    return {
        "kind": "measured",
        "unit": "share",
        "low": wilson_interval(wrong, of)[0],
        "middle": wrong / n,
        "high": wilson_interval(wrong + of - n, of)[1],
        "n": n,
        "of": of,
        "sampling": sampling,
        "source": f"{wrong} wrong of {n} labelled: {SAMPLINGS[sampling]}",
    }


def window_fields(served: Served, defects: Mapping[str, Any] | None = None) -> Case:
    """Return what a window tells, each field marked; what is not known is absent.

    Args:
        served: counts of the window.
        defects: the assumption of that name, if it is there: {kind, value: labels}.
    """
    found: Case = {
        "items": _measured("items", served.items),
        "active_hours": _measured("hours", served.active_hours),
    }
    if served.items:
        found["items_per_hour"] = derived(
            "items/hour", "items / active_hours", served.items / served.active_hours
        )
    if served.latency_ms is not None:
        found["latency_p50_served_ms"] = _measured("ms", round(served.latency_ms[0], 3))
        found["latency_p95_served_ms"] = _measured("ms", round(served.latency_ms[1], 3))
    if defects is not None and served.items:
        count = sum(served.labels.get(label, 0) for label in defects["value"])
        found["defect_rate"] = derived(
            "share", "answers with a label of defects / items", count / served.items
        )
    rate = error_rate(served)
    if rate is not None:
        found["labelled"] = _measured("items", served.labelled)
        found["error_rate"] = rate
        found["error_rate_bounds"] = _bounds(served)
    if served.hours is not None:
        source = "recorded by people, clr upkeep"
        found["maintenance_hours"] = _measured("hours", served.hours, source)
        found["incidents"] = _measured("incidents", served.incidents, source)
        if served.items:
            found["maintenance_hours_per_1000_items"] = derived(
                "hours/1000 items", "1000 × maintenance_hours / items",
                1000 * served.hours / served.items,
            )  # fmt: skip
    return found


def served_case(case: Mapping[str, Field], served: Served, version: Served) -> Case:
    """Return the case of the onboarding with what production made known in its place.

    Args:
        case: as `clr.roi.business_case` returned it.
        served: all that was counted of the task.
        version: the same of the version that serves: its error is what the case is about.
    """
    kept: Case = {
        name: dict(one)
        for name, one in case.items()
        if one["kind"] != "derived" or name in ("error_cost_before", "error_cost_after")
    }
    replace(kept, _known(served), currency(kept))
    rate = error_rate(version)
    if (
        rate is not None
        and rate["sampling"] != "sent"
        and rate["n"] >= KNOWN_LABELS
        and "accuracy" in kept
    ):
        kept["accuracy"] = _accuracy(rate, kept["accuracy"])
        _price_errors(kept, version)
    for name, one in window_fields(served).items():
        if name.startswith("latency_"):
            kept[name] = one
    return derive(kept)


def _known(served: Served) -> dict[str, Field]:
    known: dict[str, Field] = {}
    if served.days >= KNOWN_DAYS and served.items:
        known["items_per_year"] = {
            "kind": "derived",
            "value": served.items * YEAR_DAYS / served.days,
            "formula": f"{YEAR_DAYS} × items / days = "
            f"{YEAR_DAYS} × {served.items} / {served.days:.1f}",
        }
    if served.hours is not None and served.logged_days >= KNOWN_DAYS:
        known["maintenance_hours_per_month"] = {
            "kind": "derived",
            "value": served.hours * MONTH_DAYS / served.logged_days,
            "formula": f"{MONTH_DAYS} × maintenance_hours / days since the first record, or since "
            f"the first answer where that came later = {MONTH_DAYS} × {served.hours:g} / "
            f"{served.logged_days:.1f}",
        }
    return known


def _accuracy(rate: Field, tested: Field) -> Field:
    ends = {"low": 1 - rate["high"], "middle": 1 - rate["middle"], "high": 1 - rate["low"]}
    return {
        "kind": "measured",
        "unit": "share",
        **ends,
        "source": f"production: {rate['source']}",
        "tested": {end: tested[end] for end in ("low", "middle", "high")},
    }


def _price_errors(case: Case, served: Served) -> None:
    """Price the errors of production where a cost matrix tells them apart and knows them all."""
    if "cost_matrix" not in case or "error_cost_after" not in case:
        return
    rest = case["error_cost"]["value"] if "error_cost" in case else None
    try:
        cost = mean_cost(served.confusion, case["cost_matrix"]["value"], rest)
    except UsageError:  # a label that the task does not have: the price of the test set stays
        return
    if cost is not None:
        case["error_cost_after"] |= {
            "value": cost,
            "formula": "Σ count × cost / Σ count over the wrong answers of production",
        }


def _bounds(served: Served) -> Field:
    """Return what the error of all items is at least and at most, with nothing assumed."""
    return {
        "kind": "derived",
        "unit": "share",
        "formula": "from wrong / items to (wrong + items without a label) / items, of these very "
        "items, however they were sampled (Manski 1989)",
        "low": served.wrong / served.items,
        "middle": None,
        "high": (served.wrong + served.items - served.labelled) / served.items,
    }


def _measured(unit: str, value: float, source: str = "") -> Field:
    return {"kind": "measured", "unit": unit, "value": value} | (
        {"source": source} if source else {}
    )
