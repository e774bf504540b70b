"""A folder of backups keeps its order, and what is worth keeping, whatever the clock says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.snapshot import Snapshot
from flows.store import Store, newest, open_store

NIGHTS = [datetime(2026, 11, day, 2, tzinfo=UTC) for day in (1, 2, 3, 4)]
AHEAD = datetime(2030, 11, 2, 2, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "safe", create=True) as opened:
        yield opened


def commit(store: Store, *moments: datetime) -> list[str]:
    """Add an empty snapshot at each moment that the clock shows."""
    return [store.commit(Snapshot("", one.isoformat(), 0, {}, {}, ())) for one in moments]


def test_names_are_times_as_long_as_the_clock_goes_on(store: Store) -> None:
    assert commit(store, *NIGHTS[:2]) == ["20261101T020000Z", "20261102T020000Z"]


def test_the_newest_is_the_one_made_last_though_one_before_is_of_the_future(store: Store) -> None:
    made = commit(store, NIGHTS[0], AHEAD, *NIGHTS[2:])
    assert made[2:] == ["20261103T020000Z-2", "20261104T020000Z-2"]
    assert store.names() == made
    found = newest(store)
    assert found is not None
    assert found.name == made[-1]


def test_more_than_ten_backups_in_a_second_stay_in_order(store: Store) -> None:
    made = commit(store, *[NIGHTS[0]] * 12)
    assert store.names() == made


def test_a_clock_that_is_ahead_in_one_backup_removes_no_other(store: Store) -> None:
    made = commit(store, *NIGHTS[:3], AHEAD)
    assert store.expire(AHEAD, 30) == []
    made += commit(store, NIGHTS[3])
    assert store.expire(NIGHTS[3], 30) == []
    assert store.names() == made


def test_a_clock_that_was_behind_in_one_backup_removes_no_other(store: Store) -> None:
    behind = datetime(1970, 1, 1, tzinfo=UTC)
    made = commit(store, *NIGHTS[:2], behind)
    assert store.expire(behind, 30) == []
    made += commit(store, *NIGHTS[2:])
    assert store.expire(NIGHTS[3], 30) == [made[2]]
    assert store.names() == [*made[:2], *made[3:]]


def test_old_ones_go_once_two_are_newer(store: Store) -> None:
    old = datetime(2026, 9, 1, tzinfo=UTC)
    made = commit(store, old, NIGHTS[0])
    assert store.expire(NIGHTS[0], 30) == []
    made += commit(store, NIGHTS[1])
    assert store.expire(NIGHTS[1], 30) == made[:1]
