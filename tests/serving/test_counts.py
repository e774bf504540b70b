"""What is kept of the journal's answers is what counting them all would say."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clr.serving.counts import hourly, paces
from clr.serving.journal import Entry, Journal, answer, journal_path, reading
from clr.serving.production import read_production
from tests.serving.journals import SAMPLE, at, write


def some(count: int, seed: int) -> list[Entry]:
    """Answers of two tasks, two versions and three labels in six weeks; some ids come again."""
    draw = random.Random(seed)
    return [
        replace(
            SAMPLE,
            request_id=f"{draw.randrange(count)}",
            task=draw.choice(("red-caps", "blue-caps")),
            version=draw.choice((1, 2)),
            label=draw.choice(("dark", "light", "ünclear")),
            time=at("2027-01-10") + draw.random() * 42 * 86_400,
            seconds=draw.random() / 50,
        )
        for _ in range(count)
    ]


def counted(entries: list[Entry]) -> tuple[dict[Any, int], dict[Any, int]]:
    last = {one.request_id: one for one in entries}.values()
    month = {one: f"{datetime.fromtimestamp(one.time, UTC):%Y-%m}" for one in last}
    return (
        Counter((one.task, one.version, int(one.time // 3600), one.label) for one in last),
        Counter((one.task, one.version, month[one], round(one.seconds * 10_000)) for one in last),
    )


def kept(state: Path) -> tuple[dict[Any, int], dict[Any, int]]:
    with reading(state) as database:
        found = list(hourly(database)), list(paces(database))
    first, second = ({tuple(key): items for *key, items in rows} for rows in found)
    assert (len(first), len(second)) == tuple(map(len, found))
    return first, second


@pytest.fixture
def older(tmp_path: Path) -> list[Entry]:
    """A journal that was written before anything was counted."""
    entries = some(200, 3)
    write(tmp_path, entries)
    with closing(sqlite3.connect(journal_path(tmp_path))) as database, database:
        for (name,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'answers'"
        ).fetchall():
            database.execute(f"DROP TRIGGER {name}")
        for table in ("hourly", "paces"):
            database.execute(f"DROP TABLE {table}")
    return entries


@pytest.mark.parametrize("seed", range(3))
def test_what_is_written_replaced_and_swept_is_counted(seed: int, tmp_path: Path) -> None:
    entries = some(400, seed)
    write(tmp_path, entries[:250], entries[250:])
    assert kept(tmp_path) == counted(entries)
    journal = Journal(journal_path(tmp_path), keep_days=36_500, keep_rows=100)
    journal.write([SAMPLE]).result(timeout=60)  # sweeps
    journal.close()
    left = [one for one in {one.request_id: one for one in entries}.values()
            if answer(tmp_path, one.request_id)]  # fmt: skip
    assert len(left) == 100
    assert kept(tmp_path) == counted(left)


def test_a_row_that_is_refused_is_not_counted(tmp_path: Path) -> None:
    write(tmp_path, [replace(SAMPLE, probability=float("nan")), replace(SAMPLE, request_id="b")])
    assert [sum(one.values()) for one in kept(tmp_path)] == [1, 1]


def test_an_older_journal_is_counted_when_it_is_read_and_kept_when_it_is_opened(
    tmp_path: Path, older: list[Entry]
) -> None:
    assert kept(tmp_path) == counted(older)
    production = read_production(tmp_path, {}, at("2027-03-01"))
    more = some(20, 4)
    write(tmp_path, more)
    assert kept(tmp_path) == counted([*older, *more])
    assert sum(one.total.items for one in production.values()) == len(
        {one.request_id for one in older}
    )
