"""The clock of the whole machine jumps while `clr up` works: each task is onboarded once."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.factory import SETTINGS, end, shell
from tests.faults.works import Works
from tests.waiting import until

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.soak,
    pytest.mark.xdist_group("jumping-factory"),
]
REVIEWER, PASSWORD = "alice", "a long password of alice"
RECONCILE_SECONDS = float(SETTINGS["CLR_RECONCILE_SECONDS"])
HOUR, DAY = 3600, 86400
FORWARD, BACK = 5 * HOUR, -3 * DAY


class Clock:
    """The wall clock of a factory and of the commands beside it: see clock.c."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None or not sys.platform.startswith("linux"):
            pytest.skip("no C compiler, or no Linux, to make a clock that can be set")
        self._file, library = folder / "clock", folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True
        )
        self._file.write_bytes(bytes(8))
        self.settings = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self._file)}

    def jump(self, seconds: int) -> None:
        """Set it forward or back, by so much from where it is."""
        with self._file.open("r+b") as file:  # in place: everybody has it mapped
            (before,) = struct.unpack("q", file.read())
            file.seek(0)
            file.write(struct.pack("q", before + seconds))


@pytest.fixture(scope="module")
def clock(tmp_path_factory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def works(new_factory, new_caps, clock, tmp_path_factory) -> Iterator[Works]:
    folder = tmp_path_factory.mktemp("works")
    works = Works(new_factory, folder, new_caps, **clock.settings)
    added = works.factory.clr("users", "add", REVIEWER, "--role", "reviewer", CLR_PASSWORD=PASSWORD)
    assert added.code == 0, added.err
    yield works
    end(works.factory)


def command(works: Works, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person on that machine does: its clock is the machine's."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=works.factory.plant.root,
        env={**shell(), **works.factory.plant.settings},
        capture_output=True,
        text=True,
    )


def approve(works: Works, task: str) -> None:
    """Set the tag that approves version 1, as a reviewer does in the registry's page."""
    answer = requests.post(
        f"{works.factory.registry}/api/2.0/mlflow/model-versions/set-tag",
        json={"name": f"clr-{task}", "version": "1", "key": "review", "value": "approve"},
        auth=(REVIEWER, PASSWORD),
        timeout=30,
    )
    assert answer.status_code == 200, answer.text


def joined(works: Works, task: str) -> list[int]:
    """Return the versions of a task that joined a release, one for each time."""
    return [
        one["version"]
        for entry in works.ledger().entries(action="release.activated")
        for one in entry.payload["joined"]
        if one["task"] == task
    ]


def champion(works: Works, task: str) -> str:
    """Return the number of the version that serves; empty where none does."""
    found = works.factory.mlflow("registered-models/get", name=f"clr-{task}")
    aliases = (found or {}).get("registered_model", {}).get("aliases", ())
    return next((one["version"] for one in aliases if one["alias"] == "champion"), "")


@pytest.mark.parametrize("step", ["train", "register"])
@pytest.mark.parametrize("seconds", [FORWARD, BACK], ids=["forward", "back"])
def test_while_a_run_works(works, clock, seconds, step):
    task = f"{step}-{abs(seconds)}"
    works.drop(task, stop=step)
    works.stands(task)
    clock.jump(seconds)
    time.sleep(15)  # whoever counts heartbeats or looks for the dead has looked
    works.go(task)
    works.assert_once(task)


def test_while_a_run_waits_for_a_worker(works, clock):
    """What is due at a time that has become days away is due now."""
    working = ["in-work-1", "in-work-2"]
    for task in working:
        works.drop(task, stop="train")
        works.stands(task)
    works.drop("in-queue")
    assert until(lambda: (known := works.record("in-queue")) and works.flow_runs(known), 60)
    clock.jump(BACK)
    works.go(*working)
    works.assert_once(*working, "in-queue")


def test_a_run_that_dies_after_the_clock_went_back(works, clock):
    works.drop("dies-later", stop="train")
    process = works.stands("dies-later")
    clock.jump(BACK)
    os.kill(process, signal.SIGKILL)
    works.go("dies-later")
    works.assert_once("dies-later")


def test_while_a_dead_run_waits_to_be_started_again(works, clock):
    works.drop("dead", stop="train")
    os.kill(works.stands("dead"), signal.SIGKILL)
    known = works.record("dead")

    def waits() -> bool:
        return [one["state_name"] for one in works.flow_runs(known)] == ["AwaitingRetry"]

    assert until(waits, 60)
    clock.jump(BACK)
    works.go("dead")
    works.assert_once("dead")


@pytest.mark.parametrize("seconds", [FORWARD, BACK], ids=["forward", "back"])
def test_while_a_decision_waits(works, clock, seconds):
    """Its webhook is too old, or from the future, when the release service can take it."""
    task = f"decided-{abs(seconds)}"
    works.drop(task, colour=1 if seconds > 0 else 2)  # of one colour only one may join
    assert works.done(task).result["verdict"] == "passed"
    service = works.part("release-service")["pid"]
    os.kill(service, signal.SIGSTOP)
    approve(works, task)
    clock.jump(seconds)
    os.kill(service, signal.SIGCONT)
    assert until(lambda: joined(works, task), 120), works.factory.said()[-6000:]
    time.sleep(2 * RECONCILE_SECONDS)  # it has looked again, and found nothing to do
    assert joined(works, task) == [1]
    assert champion(works, task) == "1"


@pytest.mark.parametrize(("seconds", "step"), [(FORWARD, "train"), (BACK, "register")])
def test_across_a_restart(works, clock, seconds, step):
    """In the step `register` it dies with the lease of a lock, which would last for days."""
    task = f"restarted-{step}"
    works.drop(task, stop=step)
    works.stands(task)
    works.factory.stop()
    clock.jump(seconds)
    works.go(task)
    works.start()
    works.assert_once(task)


def test_all_of_it_verifies(works, clock):
    assert command(works, "verify").returncode == 0
    assert works.factory.plant.leftovers() == []
    numbers = [one.seq for one in works.ledger().entries()]
    assert numbers == list(range(1, len(numbers) + 1))
