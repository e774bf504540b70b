"""Journals of a prediction server, written by its own writer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from clr.serving.journal import Entry, Journal, Told, Tried, journal_path

DAY = 86_400.0
SAMPLE = Entry(
    request_id="0" * 32, time=0.0, client="line-3", release=4, release_digest="sha256:" + "a" * 64,
    task="red-caps", how="named", adapter="sha256:" + "b" * 64, version=1, label="dark",
    probability=0.9, unit="", arm="champion", doubtful="", unknown=False, seconds=0.02,
)  # fmt: skip


def at(day: str, hour: float = 0.0) -> float:
    """Seconds since 1970 of an hour of a day, UTC."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() + 3600 * hour


def answers(count: int, first: float, every: float, **fields: object) -> list[Entry]:
    """So many answers, one after another; `fields` as in `Entry`."""
    task = fields.get("task", SAMPLE.task)
    return [
        replace(
            SAMPLE,
            request_id=f"{task}-{first:.0f}-{number:06d}",
            time=first + number * every,
            **fields,
        )
        for number in range(count)
    ]


def told(entries: Iterable[Entry], wrong: int = 0, other: str = "light") -> list[Told]:
    """A true label for each; the first `wrong` of them say that the answer was wrong."""
    return [
        Told(one.request_id, one.time + 60, "lab", other if number < wrong else one.label)
        for number, one in enumerate(entries)
    ]


def write(state: Path, *rows: list[Entry] | list[Told] | list[Tried]) -> None:
    """Write rows into the journal under `state`."""
    journal = Journal(journal_path(state), keep_days=36_500, keep_rows=10_000_000)
    for part in rows:
        journal.write(part).result(timeout=60)
    journal.close()
