"""What production makes known takes the place of assumptions, and only that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.gate.statistics import wilson_interval
from clr.roi import business_case
from clr.serving.returns import Served, error_rate, served_case, window_fields
from tests.test_roi import ASSUMED, MEASURED

few = settings(max_examples=80)
CASE = business_case(MEASURED, ASSUMED)
SERVED = Served(
    days=56.0, items=28_000, active_hours=560, latency_ms=(20.0, 45.0),
    labels={"ok": 27_000, "crack": 1_000}, labelled=400, wrong=60, drawn=200, drawn_labelled=190,
    drawn_wrong=4, hours=6.0, incidents=2, logged_days=56.0,
)  # fmt: skip


@st.composite
def windows(draw: st.DrawFn) -> Served:
    items = draw(st.integers(1, 2000))
    labelled = draw(st.integers(0, items))
    drawn = draw(st.integers(0, items))
    drawn_labelled = draw(st.integers(0, min(drawn, labelled)))
    return Served(
        days=draw(st.floats(0.01, 400)), items=items, active_hours=draw(st.integers(1, 100)),
        labelled=labelled, wrong=draw(st.integers(0, labelled)), drawn=drawn,
        drawn_labelled=drawn_labelled, drawn_wrong=draw(st.integers(0, drawn_labelled)),
    )  # fmt: skip


# --- the error rate, and how its labels were sampled


@few
@given(windows())
def test_an_error_rate_says_how_it_was_sampled_and_its_ends_hold_the_middle(one: Served) -> None:
    rate = error_rate(one)
    if one.labelled == 0:
        assert rate is None
        return
    assert rate is not None
    assert 0 <= rate["low"] <= rate["middle"] <= rate["high"] <= 1
    drawn, full = one.drawn_labelled >= 30, one.labelled >= 0.95 * one.items
    assert rate["sampling"] == ("drawn" if drawn else "all" if full else "sent")


def test_drawn_items_without_a_label_widen_the_interval_to_both_sides() -> None:
    rate = error_rate(SERVED)
    assert rate is not None
    assert rate["middle"] == 4 / 190
    assert (rate["low"], rate["high"]) == (
        wilson_interval(4, 200)[0], wilson_interval(14, 200)[1],
    )  # fmt: skip


@few
@given(windows())
def test_the_bounds_hold_whatever_the_missing_labels_would_say(one: Served) -> None:
    fields = window_fields(one)
    if "error_rate_bounds" not in fields:
        assert one.labelled == 0
        return
    bounds, missing = fields["error_rate_bounds"], one.items - one.labelled
    for unseen in (0, missing // 2, missing):
        assert bounds["low"] <= (one.wrong + unseen) / one.items <= bounds["high"]


def test_labels_that_were_merely_sent_do_not_touch_the_accuracy() -> None:
    sent = replace(SERVED, drawn=0, drawn_labelled=0, drawn_wrong=0)
    case = served_case(CASE, sent, sent)
    assert case["accuracy"] == CASE["accuracy"]
    rate = window_fields(sent)["error_rate"]
    assert rate["sampling"] == "sent"
    assert "not a random sample" in rate["source"]


def test_a_random_sample_becomes_the_accuracy_and_the_test_sets_stays_beside_it() -> None:
    accuracy = served_case(CASE, SERVED, SERVED)["accuracy"]
    assert accuracy["kind"] == "measured"
    assert accuracy["middle"] == pytest.approx(1 - 4 / 190)
    assert accuracy["low"] < accuracy["middle"] < accuracy["high"]
    assert accuracy["tested"] == {"low": 0.93, "middle": 0.95, "high": 0.97}
    assert "4 wrong of 190" in accuracy["source"]


@pytest.mark.parametrize(("items", "counts"), [(1, False), (29, False), (30, True)])
def test_a_few_items_are_no_accuracy_even_if_they_are_all(items: int, counts: bool) -> None:
    few_items = Served(days=0.1, items=items, active_hours=1, labelled=items, wrong=1)
    case = served_case(CASE, few_items, few_items)
    assert window_fields(few_items)["error_rate"]["sampling"] == "all"
    assert (case["accuracy"] != CASE["accuracy"]) == counts


# --- volumes, upkeep, money


def test_volume_and_upkeep_replace_the_assumptions_with_their_formula() -> None:
    case = served_case(CASE, SERVED, SERVED)
    items, upkeep = case["items_per_year"], case["maintenance_hours_per_month"]
    assert (items["kind"], items["unit"], items["assumed"]) == ("derived", "items/year", 100_000)
    assert items["value"] == pytest.approx(28_000 * 365.25 / 56)
    assert "28000 / 56.0" in items["formula"]
    assert upkeep["value"] == pytest.approx(6 * 30.4375 / 56)
    assert upkeep["assumed"] == 2


def test_the_money_follows_worked_by_hand() -> None:
    case = served_case(CASE, SERVED, SERVED)
    items, wrong = 28_000 * 365.25 / 56, 4 / 190
    assert case["annual_benefit"]["middle"] == pytest.approx(items * (0.1 - wrong) * 2)
    hours = 6 * 30.4375 / 56
    assert case["annual_running_cost"]["value"] == pytest.approx(
        12 * hours * 80 + items * 36 / 3_600_000
    )
    assert case["adoption_cost"] == CASE["adoption_cost"]


@pytest.mark.parametrize("days", [0.5, 27.9])
def test_less_than_four_weeks_are_no_year(days: float) -> None:
    short = replace(SERVED, days=days, logged_days=days)
    case = served_case(CASE, short, short)
    assert case["items_per_year"] == CASE["items_per_year"]
    assert case["maintenance_hours_per_month"] == CASE["maintenance_hours_per_month"]


def test_without_production_the_case_is_as_it_was() -> None:
    assert served_case(CASE, Served(days=1.0), Served(days=1.0)) == CASE


def test_every_field_is_marked_and_has_a_unit_and_where_derived_a_formula() -> None:
    defects = {"kind": "assumed", "value": ["crack"]}
    fields = {**served_case(CASE, SERVED, SERVED), **window_fields(SERVED, defects)}
    for name, field in fields.items():
        assert field["kind"] in ("measured", "assumed", "derived"), name
        assert "unit" in field
        assert ("formula" in field) == (field["kind"] == "derived"), name


def test_rates_of_a_window() -> None:
    fields = window_fields(SERVED, {"kind": "assumed", "value": ["crack"]})
    assert fields["defect_rate"]["value"] == pytest.approx(1 / 28)
    assert fields["items_per_hour"]["value"] == 50
    assert fields["maintenance_hours_per_1000_items"]["value"] == pytest.approx(6 / 28)
    assert "defect_rate" not in window_fields(SERVED)


def test_where_nobody_recorded_upkeep_it_is_absent_not_zero() -> None:
    fields = window_fields(replace(SERVED, hours=None))
    assert not {"maintenance_hours", "incidents"} & fields.keys()


def test_a_cost_matrix_prices_the_errors_of_production() -> None:
    assumed = {
        **{name: value for name, value in ASSUMED.items() if name != "error_cost"},
        "cost_matrix": {"crack": {"ok": 40}, "ok": {"crack": 1}},
    }
    tested = {"crack": {"ok": 5, "crack": 95}, "ok": {"crack": 5, "ok": 95}}
    case = business_case({**MEASURED, "confusion": tested}, assumed)
    assert case["error_cost_after"]["value"] == 20.5
    seen = replace(SERVED, confusion={"crack": {"ok": 3}, "ok": {"crack": 1, "ok": 186}})
    now = served_case(case, seen, seen)
    assert now["error_cost_after"]["value"] == pytest.approx((3 * 40 + 1) / 4)
    assert now["error_cost_before"] == case["error_cost_before"]
    strange = replace(SERVED, confusion={"scratch": {"ok": 3}})
    assert served_case(case, strange, strange)["error_cost_after"] == case["error_cost_after"]
