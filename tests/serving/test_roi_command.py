"""``clr roi`` and ``clr upkeep`` on the machine that serves."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Plant
from tests.serving import dashboards
from tests.serving.journals import SAMPLE, told, write

NOW = datetime.now(UTC)


@pytest.fixture
def plant(own: Any) -> Plant:
    """A workspace that has served for half a year, and may be changed."""
    dashboards.fill(own, NOW)
    return Plant(own.root, own.environment)


def test_production_stands_in_the_place_of_assumptions(plant: Plant) -> None:
    done = plant.clr("roi", "red", "--json")
    assert done.code == 0, done.err
    (case,) = done.json["tasks"].values()
    items = case["roi"]["items_per_year"]
    assert (items["kind"], items["assumed"]) == ("derived", 20_000)
    assert case["onboarded"]["items_per_year"] == {
        "kind": "assumed", "unit": "items/year", "value": 20_000,
    }  # fmt: skip
    total, months = case["production"]["total"], case["production"]["months"]
    assert total["items"]["value"] == sum(one["fields"]["items"]["value"] for one in months)
    assert total["error_rate"]["sampling"] == "sent"
    assert case["roi"]["accuracy"] == case["onboarded"]["accuracy"]
    assert months == sorted(months, key=lambda one: one["month"])


def test_a_task_that_never_answered_keeps_its_case(plant: Plant) -> None:
    done = plant.clr("roi", "blue", "--json")
    assert done.code == 0, done.err
    case = done.json["tasks"]["blue"]
    assert set(case) == {"version", "roi"}


def test_a_business_case_that_is_damaged_is_named(plant: Plant) -> None:
    for path in plant.state.rglob("roi.json"):
        path.write_text("{")
    done = plant.clr("roi", "blue", "--json")
    assert (done.code, "roi.json" in done.err) == (6, True)


def test_csv_has_one_line_a_field_and_window(plant: Plant) -> None:
    done = plant.clr("roi", "--csv")
    assert done.code == 0, done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert {row["task"] for row in rows} == {"red", "green", "blue"}
    assert {row["kind"] for row in rows} == {"measured", "assumed", "derived"}
    assert all(row["formula"] for row in rows if row["kind"] == "derived")
    known = plant.clr("roi", "red", "--json").json["tasks"]["red"]
    months = [one["month"] for one in known["production"]["months"]]
    windows = dict.fromkeys(row["window"] for row in rows if row["task"] == "red")
    assert list(windows) == ["case", "all", *months]
    (row,) = (one for one in rows if one["field"] == "items_per_year" and one["task"] == "red")
    value = known["roi"]["items_per_year"]["value"]
    assert float(row["value"]) == pytest.approx(value, rel=1e-5)  # time goes on
    assert row["assumed"] == "20000.0"


def test_a_sheet_without_upkeep_says_so_beside_it(plant: Plant) -> None:
    for file in (plant.state / "ledger").glob("ledger.db*"):
        file.unlink()
    (plant.state / "ledger" / "ledger.db").write_bytes(b"no database" * 100)
    done = plant.clr("roi", "--csv")
    assert done.code == 0, done.err
    assert "Upkeep is not in these figures" in done.err
    assert "Upkeep" not in done.out


def test_a_person_reads_months_and_how_labels_were_sampled(plant: Plant) -> None:
    out = plant.clr("roi", "red").out
    assert "red in production since" in out
    assert "not a random sample" in out
    assert "(assumed: 2.000e+04)" in out or "(assumed: 20,000)" in out


def test_upkeep_is_written_with_who_and_when_and_counts(plant: Plant) -> None:
    before = plant.clr("roi", "red", "--json").json["tasks"]["red"]["production"]["total"]
    day = (NOW - timedelta(days=1)).date().isoformat()
    done = plant.clr(
        "upkeep", "red", "--hours", "1.5", "--incident", "belt torn", "--on", day, "--json"
    )
    assert done.code == 0, done.err
    told = done.json
    assert (told["hours"], told["incident"], told["on"]) == (1.5, True, day)
    assert told["by"]
    assert ("upkeep.logged", "clr-red") in plant.ledger()
    after = plant.clr("roi", "red", "--json").json["tasks"]["red"]["production"]["total"]
    gained = after["maintenance_hours"]["value"] - before["maintenance_hours"]["value"]
    assert gained == pytest.approx(1.5)
    assert after["incidents"]["value"] == before["incidents"]["value"] + 1


def test_the_error_rate_of_drawn_items_becomes_the_accuracy(plant: Plant) -> None:
    drawn = plant.clr("upkeep", "red", "--draw", "40", "--days", "60", "--json")
    assert drawn.code == 0, drawn.err
    requests = drawn.json["requests"]
    assert len(requests) == 40
    assert ("feedback.drawn", "clr-red") in plant.ledger()
    entries = [replace(SAMPLE, request_id=one, label="left") for one in requests]
    write(plant.state, told(entries, wrong=2, other="nothing of the kind"))
    case = plant.clr("roi", "red", "--json").json["tasks"]["red"]
    assert case["production"]["total"]["error_rate"]["sampling"] == "drawn"
    assert case["roi"]["accuracy"]["tested"] == {"low": 0.93, "middle": 0.95, "high": 0.965}
    assert case["roi"]["accuracy"]["middle"] < 0.96


def test_what_is_drawn_is_listed_one_a_line(plant: Plant) -> None:
    done = plant.clr("upkeep", "red", "--draw", "5", "--days", "60")
    assert len(done.out.split()) == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ("upkeep", "red"),
        ("upkeep", "purple", "--hours", "1"),
        ("upkeep", "red", "--hours", "-1"),
        ("upkeep", "red", "--hours", "1", "--on", (date.today() + timedelta(3)).isoformat()),
        ("upkeep", "red", "--hours", "1", "--on", "0001-01-01"),
        ("upkeep", "red", "--draw", "501"),
        ("upkeep", "red", "--draw", "5", "--hours", "1"),
        ("upkeep", "blue", "--draw", "5"),
        ("roi", "--csv", "--json"),
        ("roi", "purple"),
    ],
)
def test_a_slip_of_the_pen_ends_with_2_and_leaves_no_entry(
    arguments: tuple[str, ...], own: Any
) -> None:
    plant = Plant(own.root, own.environment)
    before = plant.ledger()
    assert plant.clr(*arguments).code == 2
    assert plant.ledger() == before


def test_the_words_of_an_incident_can_be_erased_and_the_chain_holds(plant: Plant) -> None:
    from clr.audit.ledger import open_ledger
    from clr.serving.upkeep import read_upkeep

    plant.clr("upkeep", "red", "--incident", "Karl fell asleep")
    ledger = open_ledger(plant.state)
    newest = read_upkeep(ledger)["red"].logged[-1]
    assert newest.reason == "Karl fell asleep"
    entry = list(ledger.entries(action="upkeep.logged"))[-1]
    assert "Karl" not in str(entry.stored)
    assert ledger.verify() == []
