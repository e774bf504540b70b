"""The journal forgets what is too old or too much, a little at a time."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from clr.serving import sweeping
from clr.serving.journal import Tried, journal_path
from clr.serving.sweeping import sweep
from tests.serving.journals import SAMPLE, told, write

TABLES = ("answers", "tried", "feedback")
DAYS, ROWS = 2.0, 120


def fill(state: Path, seed: int) -> None:
    """Answers of four days, some of one moment, in two trials, half of them labelled."""
    draw, now = random.Random(seed), time.time()
    times = [now - 3600 * draw.randrange(96) - draw.choice((0, 0.5)) for _ in range(300)]
    answers = [
        replace(SAMPLE, request_id=f"{number:03d}", time=at) for number, at in enumerate(times)
    ]
    tried = [
        # the items of one trial have stopped to come
        Tried(one.request_id, one.time, "over" if one.time < now - 200_000 else "on",
              one.request_id, 0.0, "champion", "good", "bad")
        for one in answers
        if draw.random() < 0.7
    ]  # fmt: skip
    write(state, answers, tried, told(draw.sample(answers, 150)))


def left(state: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], dict]:
    """Sweep; how many answers are there after each step, and what is in each table at last."""
    monkeypatch.setattr(sweeping, "_ROWS", at_once)
    with closing(sqlite3.connect(journal_path(state))) as database:
        count = "SELECT count(*) FROM answers"
        counts = [database.execute(count).fetchone()[0]]
        for more in sweep(database, DAYS, ROWS):
            assert more
            counts.append(database.execute(count).fetchone()[0])
        ids = "SELECT request_id FROM {}"
        return counts, {
            name: {one for (one,) in database.execute(ids.format(name))} for name in TABLES
        }


@pytest.mark.parametrize("seed", range(3))
def test_in_many_steps_goes_what_goes_in_one(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "a", seed)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    steps, many = left(tmp_path / "a", 3, monkeypatch)
    _, one = left(tmp_path / "b", 10_000, monkeypatch)
    assert many == one
    assert ROWS <= len(one["answers"]) < 150
    assert len(one["answers"]) < len(one["tried"] | one["answers"])  # of the trial that goes on
    gone = [before - after for before, after in pairwise(steps)]
    assert len(gone) > 25
    assert max(gone) < 30  # those of one moment go together


def test_nothing_that_is_new_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [replace(SAMPLE, time=time.time())])
    assert left(tmp_path, 3, monkeypatch)[0] == [1]


def test_labels_whose_answers_are_long_gone_go_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = replace(SAMPLE, request_id="gone", time=1.0)
    write(tmp_path, told([gone]), [replace(SAMPLE, time=time.time())])
    assert left(tmp_path, 3, monkeypatch)[1] == {
        "answers": {SAMPLE.request_id}, "tried": set(), "feedback": set()
    }  # fmt: skip
