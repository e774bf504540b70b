"""The journal of a server, counted by month."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from clr.audit.ledger import open_ledger
from clr.errors import UsageError
from clr.serving import production
from clr.serving.journal import journal_path
from clr.serving.production import read_production
from clr.serving.upkeep import (
    DRAWN,
    LOGGED,
    Logged,
    Upkeep,
    draw,
    logged_payload,
    read_upkeep,
)
from tests.serving.journals import DAY, answers, at, told, write

NOW = at("2027-03-11")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Two months of one task, one day of another."""
    january = answers(200, at("2027-01-20"), 3600.0, seconds=0.010)
    february = answers(100, at("2027-02-03"), 1800.0, version=2, label="light", seconds=0.030)
    other = answers(30, at("2027-03-10"), 60.0, task="blue-caps")
    write(tmp_path, january, february, other, told(january[:50], wrong=5))
    return tmp_path


def test_blank_words_are_no_incident() -> None:
    with pytest.raises(UsageError, match="nothing to record"):
        logged_payload(0, " \t", None, date(2027, 3, 11))
    assert logged_payload(1, " a jam ", None, date(2027, 3, 11))["reason"] == "a jam"


def test_windows_are_calendar_months_from_the_first_answer_on(journal: Path) -> None:
    found = read_production(journal, {}, NOW)
    assert list(found) == ["blue-caps", "red-caps"]
    red = found["red-caps"]
    assert list(red.months) == ["2027-01", "2027-02", "2027-03"]
    assert [one.items for one in red.months.values()] == [200, 100, 0]
    assert [round(one.days, 2) for one in red.months.values()] == [12.0, 28.0, 10.0]
    assert red.total.items == sum(one.items for one in red.months.values())
    assert red.total.days == pytest.approx(50.0)


def test_a_window_has_hours_latency_labels_and_feedback(journal: Path) -> None:
    one = read_production(journal, {}, NOW)["red-caps"]
    first, second, last = one.months.values()
    assert (first.active_hours, second.active_hours) == (200, 50)
    assert first.latency_ms == (10.0, 10.0)
    assert one.total.latency_ms == (10.0, 30.0)
    assert (first.labelled, first.wrong, second.labelled) == (50, 5, 0)
    assert one.total.labels == {"dark": 200, "light": 100}
    assert first.confusion == {"light": {"dark": 5}, "dark": {"dark": 45}}
    assert last.latency_ms is None


def test_answers_that_are_swept_meanwhile_are_counted_in_all_figures_or_in_none(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*asked: Any) -> Any:
        with closing(sqlite3.connect(journal_path(journal))) as other, other:
            other.execute("DELETE FROM answers")
        return paces(*asked)

    paces = production.paces
    monkeypatch.setattr(production, "paces", late)
    red = read_production(journal, {}, NOW)["red-caps"].total
    assert (red.items, red.latency_ms) == (300, (10.0, 30.0))


def test_each_version_is_counted_for_itself(journal: Path) -> None:
    versions = read_production(journal, {}, NOW)["red-caps"].versions
    assert {number: one.items for number, one in versions.items()} == {1: 200, 2: 100}
    assert versions[2].labelled == 0


def test_a_second_label_counts_instead_of_the_first(journal: Path) -> None:
    again = answers(50, at("2027-01-20"), 3600.0)
    write(journal, told(again, wrong=0))
    one = read_production(journal, {}, NOW)["red-caps"].total
    assert (one.labelled, one.wrong) == (50, 0)


def test_no_journal_is_no_production(tmp_path: Path) -> None:
    assert read_production(tmp_path, {}) == {}
    assert not (tmp_path / "serving").exists()


# --- what people record


def test_upkeep_is_an_act_with_who_and_when(journal: Path) -> None:
    ledger = open_ledger(journal)
    for hours, words, day in ((2.0, "lamp replaced", date(2027, 1, 25)), (0.5, "", None)):
        payload = logged_payload(hours, words, day, date(2027, 2, 10))
        ledger.append(LOGGED, "clr-red-caps", payload, actor="olga", authentication="local-os-user")
    upkeep = read_upkeep(ledger)
    logged = upkeep["red-caps"].logged
    assert [(one.by, one.hours, one.incident, one.reason) for one in logged] == [
        ("olga", 2.0, True, "lamp replaced"), ("olga", 0.5, False, ""),
    ]  # fmt: skip
    months = read_production(journal, upkeep, NOW)["red-caps"].months
    assert [(one.hours, one.incidents) for one in months.values()] == [(2.0, 1), (0.5, 0), (0, 0)]
    assert ledger.verify() == []


def test_before_the_first_record_hours_are_unknown(journal: Path) -> None:
    ledger = open_ledger(journal)
    payload = logged_payload(1.0, "", date(2027, 2, 20), date(2027, 2, 20))
    ledger.append(LOGGED, "clr-red-caps", payload, actor="olga", authentication="local-os-user")
    months = read_production(journal, read_upkeep(ledger), NOW)["red-caps"].months
    assert [one.hours for one in months.values()] == [None, 1.0, 0]


def test_records_from_before_the_first_answer_are_no_days_without_hours(journal: Path) -> None:
    ledger = open_ledger(journal)
    for day in (date(2026, 9, 1), date(2027, 2, 20)):
        payload = logged_payload(1.0, "", day, date(2027, 2, 20))
        ledger.append(LOGGED, "clr-red-caps", payload, actor="olga", authentication="local-os-user")
    total = read_production(journal, read_upkeep(ledger), NOW)["red-caps"].total
    assert (total.hours, total.logged_days) == (1.0, pytest.approx(50.0))


@pytest.mark.parametrize(
    ("first", "asked", "days"),
    [
        ("2027-02-01T06:00", "2027-02-10T09:00", [date(2027, 2, 10)]),
        ("2027-02-10T15:00", "2027-02-20T15:00", [date(2027, 2, 10)]),
        ("2027-01-30T15:00", "2027-02-10T09:00",
         [date(2027, 1, 30), date(2027, 1, 31), date(2027, 2, 1), date(2027, 2, 10)]),
    ],
    ids=["today, before noon", "the first day, answers from the afternoon", "months share no day"],
)  # fmt: skip
def test_hours_of_today_and_of_the_first_day_count_once(
    tmp_path: Path, first: str, asked: str, days: list[date]
) -> None:
    write(tmp_path, answers(3, at(first), 60.0, task="red-caps"))
    known = Upkeep(tuple(Logged(n, "", "olga", day, 2.0, True, "") for n, day in enumerate(days)))
    found = read_production(tmp_path, {"red-caps": known}, at(asked))["red-caps"]
    assert (found.total.hours, found.total.incidents) == (2.0 * len(days), len(days))
    assert sum(one.hours or 0 for one in found.months.values()) == 2.0 * len(days)


@pytest.mark.parametrize(
    ("hours", "incident", "on"), [(0.0, "", None), (1.0, "", date(2027, 2, 11))]
)
def test_nothing_and_the_future_are_no_upkeep(hours: float, incident: str, on: date | None) -> None:
    with pytest.raises(UsageError):
        logged_payload(hours, incident, on, date(2027, 2, 10))


# --- items drawn to be labelled


def test_drawn_items_are_of_the_task_new_and_counted_as_a_random_sample(tmp_path: Path) -> None:
    import time

    now = time.time()
    rows = answers(300, now - 2 * DAY, 60.0)
    old = answers(50, now - 30 * DAY, 60.0)
    write(tmp_path, rows, old, answers(50, now - DAY, 60.0, task="blue-caps"))
    first = draw(tmp_path, "red-caps", 40, 7.0, ())
    assert (len(first["requests"]), first["of"]) == (40, 300)
    second = draw(tmp_path, "red-caps", 500, 7.0, first["requests"])
    assert second["of"] == 260
    assert not set(first["requests"]) & set(second["requests"])
    assert {*first["requests"], *second["requests"]} == {one.request_id for one in rows}
    chosen = [one for one in rows if one.request_id in first["requests"]]
    write(tmp_path, told(chosen, wrong=4))
    upkeep = {"red-caps": Upkeep(drawn=frozenset(first["requests"]))}
    total = read_production(tmp_path, upkeep)["red-caps"].total
    assert (total.drawn, total.drawn_labelled, total.drawn_wrong) == (40, 40, 4)


def test_every_item_has_the_same_chance(tmp_path: Path) -> None:
    import time

    rows = answers(20, time.time() - 3600, 60.0)
    write(tmp_path, rows)
    drawn = [one for _ in range(400) for one in draw(tmp_path, "red-caps", 5, 7.0, ())["requests"]]
    counts = [drawn.count(one.request_id) for one in rows]
    assert all(50 < count < 160 for count in counts)  # 100 expected, six deviations


def test_an_act_of_drawing_is_read_back(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    for requests in (["a", "b"], ["c"]):
        ledger.append(
            DRAWN, "clr-red-caps", {"requests": requests, "of": 9, "days": 7.0},
            actor="olga", authentication="local-os-user",
        )  # fmt: skip
    assert read_upkeep(ledger)["red-caps"].drawn == {"a", "b", "c"}


@pytest.mark.parametrize("count", [0, 501])
def test_a_draw_has_a_size(count: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        draw(tmp_path, "red-caps", count, 7.0, ())


def test_nothing_to_draw_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no answers of red-caps"):
        draw(tmp_path, "red-caps", 5, 7.0, ())
