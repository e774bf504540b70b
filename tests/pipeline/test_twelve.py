"""Twelve tasks that arrive at once: two are worked on at a time, and all are registered in turn."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from clr.audit.ledger import open_ledger
from clr.settings import Settings
from flows import arrivals
from tests.waiting import until

pytestmark = [pytest.mark.timeout(900), pytest.mark.soak]
TASKS = [f"twelve-{number:02}" for number in range(12)]
AT_ONCE = 2


class Watched:
    """What runs for a factory, looked at once a second."""

    def __init__(self, factory) -> None:
        self.most_runs = self.most_bytes = 0
        self._factory, self._end = factory, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(1):
            family = self._factory.family()
            runs = [one for one in family.values() if one.split()[1:] == ["-m", "flows.warm"]]
            self.most_runs = max(self.most_runs, len(runs))
            self.most_bytes = max(self.most_bytes, sum(map(proportional, family)))


def proportional(process: int) -> int:
    """Bytes of memory of a process, what it shares with others counted in parts."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


def test_all_finish_two_at_a_time_and_are_registered_one_after_another(
    factory, new_caps, tmp_path, record_property
):
    settings = Settings(workspace=factory.plant.root)
    folders = [new_caps(tmp_path / task, seed=100 + n) for n, task in enumerate(TASKS)]

    def finished() -> list[arrivals.Arrival]:
        time.sleep(0.5)
        found = [one for one in arrivals.read_all(settings) if one.task in TASKS and one.finished]
        return found if len(found) == len(TASKS) else []

    began = time.monotonic()
    with Watched(factory) as watched:
        for folder in folders:
            factory.drop(folder)
        found = until(finished, 600)
    seconds = time.monotonic() - began
    assert {(one.state, one.result["version"]) for one in found} == {("done", 1)}, factory.said()

    registered = {
        entry.subject: entry
        for entry in open_ledger(factory.plant.state).entries()
        if entry.action == "adapter.registered" and entry.subject.startswith("clr-twelve-")
    }
    assert sorted(registered) == [f"clr-{task}/1" for task in TASKS]
    made = {
        f"clr-{task}/1": factory.until_version(task)["creation_timestamp"] / 1000 for task in TASKS
    }
    order = sorted(made, key=made.__getitem__)
    assert list(registered) == order
    for one, following in pairwise(order):
        assert datetime.fromisoformat(registered[one].time).timestamp() < made[following] + 0.001

    assert 1 <= watched.most_runs <= AT_ONCE
    record_property("seconds", round(seconds))
    record_property("peak_bytes", watched.most_bytes)
    print(
        f"12 tasks of 48 images: {seconds:.0f} s, {watched.most_runs} at once, "
        f"peak {watched.most_bytes / 1e9:.2f} GB"
    )
