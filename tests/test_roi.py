"""The business case: what is measured, assumed and derived, and never mixed up."""

import csv
import io
from math import isfinite

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.business import ASSUMPTIONS, LARGEST, LONGEST_YEARS, LOWEST_RATE, SMALLEST
from clr.errors import UsageError
from clr.roi import business_case, metrics, parse_business, payback_curve
from flows.roi import as_csv

# busy machines are slow, which is no failure
few = settings(max_examples=60)

MEASURED = {
    "accuracy": 0.95,
    "accuracy_ci": (0.93, 0.97),
    "baseline_accuracy": 0.90,
    "images_labelled": 1000,
    "training_seconds": 360.0,
    "added_parameters": 58_000,
    "adapter_bytes": 231_000,
    "latency_p50_after_ms": 36.0,
}
ASSUMED = {
    "currency": "EUR",
    "items_per_year": 100_000,
    "error_cost": 2,
    "label_cost_per_image": 0.1,
    "compute_cost_per_hour": 1,
    "engineer_hours": 16,
    "hourly_rate": 80,
    "maintenance_hours_per_month": 2,
    "horizon_years": 3,
    "discount_rate": 0.08,
}
DERIVED = {
    "adoption_cost",
    "annual_running_cost",
    "annual_benefit",
    "payback_months",
    "npv",
    "roi_pct",
}


def ends(field):
    return field["low"], field["middle"], field["high"]


def number(cell):
    try:
        return isfinite(float(cell))
    except ValueError:
        return False


def derived(case):
    return {name for name, field in case.items() if field["kind"] == "derived"}


def test_a_case_worked_by_hand():
    case = business_case(MEASURED, ASSUMED)
    # 1,000 × 0.10 + 0.1 h × 1 + 16 × 80
    assert case["adoption_cost"]["value"] == pytest.approx(100 + 0.1 + 1280)
    # 12 × 2 × 80, and 100,000 predictions of 36 ms are one hour of machine
    assert case["annual_running_cost"]["value"] == pytest.approx(1920 + 1)
    # errors fall from 10 % to 7, 5 or 3 %
    assert ends(case["annual_benefit"]) == pytest.approx((6000, 10_000, 14_000))
    assert case["payback_months"]["middle"] == pytest.approx(1380.1 / (8079 / 12))
    # the textbook annuity: 36 equal payments at the monthly rate that makes 8 % a year
    monthly = 1.08 ** (1 / 12) - 1
    annuity = (1 - 1.08**-3) / monthly
    assert case["npv"]["middle"] == pytest.approx(8079 / 12 * annuity - 1380.1)
    total = 1380.1 + 3 * 1921
    assert ends(case["roi_pct"]) == pytest.approx(
        [100 * (3 * benefit - total) / total for benefit in (6000, 10_000, 14_000)]
    )


def test_every_field_says_what_it_is():
    case = business_case(MEASURED, ASSUMED)
    assert derived(case) == DERIVED
    for name, field in case.items():
        assert field["kind"] in ("measured", "assumed", "derived")
        assert isinstance(field["unit"], str)
        assert ("formula" in field) == (field["kind"] == "derived")
        assert ("value" in field) != ("middle" in field), name
    assert {name for name, field in case.items() if field["kind"] == "assumed"} == set(ASSUMED)
    assert case["npv"]["unit"] == "EUR"
    assert case["current_error_rate"]["kind"] == "measured"


def test_an_assumed_error_rate_replaces_the_measured_baseline():
    case = business_case(MEASURED, ASSUMED | {"current_error_rate": 0.2})
    assert case["current_error_rate"]["kind"] == "assumed"
    assert case["annual_benefit"]["middle"] == pytest.approx(100_000 * 0.15 * 2)


def test_without_assumptions_nothing_is_derived():
    case = business_case(MEASURED, {})
    assert derived(case) == set()
    assert metrics(case)["roi.accuracy"] == 0.95
    assert payback_curve(case) == []


@pytest.mark.parametrize(
    ("missing", "gone"),
    [
        ("horizon_years", {"npv", "roi_pct"}),
        ("discount_rate", {"npv"}),
        ("error_cost", {"annual_benefit", "payback_months", "npv", "roi_pct"}),
        ("engineer_hours", {"adoption_cost", "payback_months", "npv", "roi_pct"}),
        ("maintenance_hours_per_month", DERIVED - {"adoption_cost", "annual_benefit"}),
        ("hourly_rate", DERIVED - {"annual_benefit"}),
    ],
)
def test_what_lacks_an_assumption_is_absent_not_zero(missing, gone):
    assumed = {name: value for name, value in ASSUMED.items() if name != missing}
    assert derived(business_case(MEASURED, assumed)) == DERIVED - gone


def test_a_task_that_brings_no_surplus_never_pays_back():
    case = business_case(MEASURED, ASSUMED | {"current_error_rate": 0.055})
    assert case["payback_months"]["middle"] is None
    assert case["npv"]["middle"] < 0
    assert "roi.payback_months" not in metrics(case)
    assert case["payback_months"]["high"] is not None


CONFUSION = {"good": {"good": 90, "bad": 2}, "bad": {"good": 3, "bad": 5}}
COSTS = {"good": {"bad": 1}, "bad": {"good": 100}}


def test_cost_matrix_weighs_errors_as_they_occurred():
    measured = MEASURED | {
        "confusion": CONFUSION,
        "baseline_confusion": {"good": {"bad": 10}, "bad": {"good": 10}},
    }
    assumed = {name: value for name, value in ASSUMED.items() if name != "error_cost"}
    case = business_case(measured, assumed | {"cost_matrix": COSTS})
    assert case["error_cost_before"]["value"] == pytest.approx((10 + 1000) / 20)
    assert case["error_cost_after"]["value"] == pytest.approx((2 + 300) / 5)
    assert case["annual_benefit"]["middle"] == pytest.approx(100_000 * (0.1 * 50.5 - 0.05 * 60.4))


def test_kinds_of_errors_that_nobody_counted_have_no_price_of_all_others():
    case = business_case(MEASURED, ASSUMED | {"cost_matrix": COSTS})
    assert derived(case) == {"adoption_cost", "annual_running_cost"}


def test_error_without_a_cost_is_named():
    measured = MEASURED | {"confusion": CONFUSION}
    with pytest.raises(UsageError, match="no cost for bad taken for good"):
        business_case(measured, {"cost_matrix": {"good": {"bad": 1}}})
    case = business_case(measured, {"cost_matrix": {"good": {"bad": 1}}, "error_cost": 4})
    assert case["error_cost_after"]["value"] == pytest.approx((2 * 1 + 3 * 4) / 5)


def test_perfect_answers_still_have_a_cost_of_errors():
    measured = MEASURED | {"confusion": {"good": {"good": 9}, "bad": {"bad": 9}}}
    case = business_case(measured, {"cost_matrix": COSTS})
    assert case["error_cost_after"]["value"] == pytest.approx(50.5)
    assert "no test answer was wrong" in case["error_cost_after"]["formula"]


@few
@given(st.floats(0.5, 1), st.floats(0, 0.2), st.floats(0, 0.2), st.floats(-0.5, 1))
def test_a_higher_accuracy_never_makes_the_case_worse(accuracy, below, above, rate):
    interval = (max(0.0, accuracy - below), min(1.0, accuracy + above))
    measured = MEASURED | {"accuracy": accuracy, "accuracy_ci": interval}
    case = business_case(measured, ASSUMED | {"discount_rate": rate})
    for name in ("annual_benefit", "npv", "roi_pct"):
        low, middle, high = ends(case[name])
        assert low <= middle <= high
    paid = [one for one in ends(case["payback_months"]) if one is not None]
    assert paid == sorted(paid, reverse=True)


def test_payback_curve_crosses_zero_in_the_payback_month():
    case = business_case(MEASURED, ASSUMED)
    curve = payback_curve(case)
    assert len(curve) == 37
    assert curve[0]["low"] == curve[0]["high"] == -case["adoption_cost"]["value"]
    for end in ("low", "middle", "high"):
        month = next(one["month"] for one in curve if one[end] >= 0)
        assert month - 1 < case["payback_months"][end] <= month


def test_metrics_are_flat_numbers_and_match_the_case():
    case = business_case(MEASURED, ASSUMED)
    flat = metrics(case)
    assert (flat["roi.npv.low"], flat["roi.npv"], flat["roi.npv.high"]) == ends(case["npv"])
    assert flat["roi.images_labelled"] == 1000
    assert "roi.currency" not in flat
    assert all(isinstance(value, float) for value in flat.values())


# --- what people write


def test_unknown_assumption_gets_a_near_match():
    with pytest.raises(UsageError, match=r"items_per_yaer.*Did you mean items_per_year"):
        parse_business({"items_per_yaer": 5})


@pytest.mark.parametrize("rate", [LOWEST_RATE, LARGEST])
@pytest.mark.parametrize("price", [0, SMALLEST, LARGEST])
@pytest.mark.parametrize("use", [SMALLEST, LARGEST])
def test_whatever_may_be_assumed_comes_to_finite_numbers(rate, price, use):
    prices = dict.fromkeys(
        ("label_cost_per_image", "compute_cost_per_hour", "engineer_hours", "hourly_rate"), price
    )
    uses = dict.fromkeys(("items_per_year", "error_cost", "maintenance_hours_per_month"), use)
    for years in (SMALLEST, 1, LONGEST_YEARS):
        known = {"horizon_years": years, "discount_rate": rate, "current_error_rate": 1}
        case = business_case(MEASURED, prices | uses | known)
        numbers = [end for one in case.values() for end in one.values()
                   if isinstance(end, int | float)]  # fmt: skip
        assert all(isfinite(one) for one in numbers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("error_cost", -1),
        ("error_cost", "2 EUR"),
        ("error_cost", True),
        ("error_cost", float("nan")),
        ("current_error_rate", 1.5),
        ("error_cost", 5e-324),
        ("hourly_rate", 1e-13),
        ("cost_matrix", {"a": {"b": 1e-300}}),
        ("horizon_years", 5e-324),
        ("horizon_years", 0),
        ("discount_rate", -1),
        ("discount_rate", -0.51),
        ("discount_rate", 1e13),
        ("horizon_years", 101),
        ("horizon_years", 1e12),
        ("items_per_year", 1e308),
        ("error_cost", 10**400),
        ("currency", 5),
        ("currency", "E\nR"),
        ("cost_matrix", {"a": 3}),
        ("cost_matrix", {"a": {"a": 3}}),
        ("cost_matrix", {"a": {"b": -3}}),
    ],
)
def test_bad_value_is_refused_by_its_name(name, value):
    with pytest.raises(UsageError, match=f"business: {name} must be"):
        parse_business({name: value})


def test_cost_matrix_is_checked_against_the_classes_before_any_training():
    classes = ("bad", "good")
    assert parse_business({"cost_matrix": COSTS}, classes=classes)["cost_matrix"] == COSTS
    with pytest.raises(UsageError, match=r"names godo, .*Did you mean good"):
        parse_business({"cost_matrix": {"bad": {"godo": 1}}}, classes=classes)
    partial = {"cost_matrix": {"bad": {"good": 9}}}
    with pytest.raises(UsageError, match="no cost for good taken for bad"):
        parse_business(partial, classes=classes)
    parse_business(partial | {"error_cost": 1}, classes=classes)


def test_empty_values_count_as_not_given():
    assert parse_business({"currency": "", "error_cost": None, "horizon_years": 3}) == {
        "horizon_years": 3.0
    }


@pytest.mark.parametrize(
    "measured",
    [
        MEASURED | {"accuracy_ci": (0.96, 0.97)},
        MEASURED | {"training_seconds": float("inf")},
        MEASURED | {"images_labelled": -1},
    ],
)
def test_impossible_measurements_are_refused(measured):
    with pytest.raises(UsageError):
        business_case(measured, {})


def test_settings_know_the_same_assumptions():
    from clr.settings import Settings

    prefix = "business_"
    known = {name.removeprefix(prefix) for name in Settings.model_fields if prefix in name}
    assert known == set(ASSUMPTIONS) - {"cost_matrix", "defects"}  # which are a task's own


def test_no_cell_of_the_sheet_is_a_formula():
    """A spreadsheet would show #NAME? for how a value came about, or run what somebody wrote."""
    case = business_case(MEASURED, ASSUMED | {"currency": "=1+1"})
    assert case["npv"]["formula"].startswith("-")
    sheet = as_csv({"tasks": {"caps": {"version": 1, "roi": case}}})
    words = [cell for row in csv.reader(io.StringIO(sheet)) for cell in row if not number(cell)]
    assert "'=1+1" in words
    assert not [cell for cell in words if cell.startswith(("=", "+", "-", "@"))]
