"""kill -9 of every part of a running `clr up`, at the worst moments: each task is onboarded once.

Registry, users and ledger are in a PostgreSQL server, which is killed, too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.factory import end
from tests.faults.works import Works
from tests.postgres import server
from tests.waiting import until

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.soak,
    pytest.mark.xdist_group("killed-factory"),
]
AT_ONCE = 4
DISK = "400m"
WAVES = (("validate", "baseline", "train", "version"), ("measure", "gate", "register"))
"""Who stands in `version` holds up those that come after it."""


@pytest.fixture(scope="module")
def database():
    with server() as running:
        yield running


@pytest.fixture(scope="module")
def works(new_factory, new_caps, database, tmp_path_factory) -> Iterator[Works]:
    folder = tmp_path_factory.mktemp("works")
    with small_disk(folder / "home"):
        works = Works(
            new_factory,
            folder,
            new_caps,
            CLR_PARALLEL=str(AT_ONCE),
            CLR_REGISTRY_DATABASE=database.url,
            CLR_LEDGER_URL=database.url,
        )
        yield works
        end(works.factory)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own at `folder`, where one may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and not subprocess.run(command, capture_output=True).returncode
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("steps", WAVES)
def test_a_worker_killed_in_any_step(works, steps):
    tasks = [f"killed-in-{step}" for step in steps]
    for step, task in zip(steps, tasks, strict=True):
        if step == "version":
            assert all(works.stands(other) for other in tasks[:-1])
        works.drop(task, stop=step)
    processes = [works.stands(task) for task in tasks]
    works.kill("worker-cpu")
    assert until(lambda: not any(Path(f"/proc/{one}").exists() for one in processes), 10)
    works.go(*tasks)
    works.assert_once(*tasks)


def test_a_run_killed_in_training_goes_on_at_its_epoch(works):
    works.drop("killed-run", stop="train", epochs=2)
    os.kill(works.stands("killed-run"), signal.SIGKILL)
    works.go("killed-run")
    works.assert_once("killed-run")


def test_a_run_that_lives_and_is_taken_for_dead(works):
    """Another worker starts it again beside the first process, which has lost no bit of it."""
    works.drop("alive", stop="register")
    works.stands("alive")
    (run,) = works.flow_runs(works.record("alive"))
    dead = {"type": "CRASHED", "name": "Crashed", "message": "No heartbeat for 90 seconds."}
    with works.second_worker():
        works.factory.api(
            "POST", f"/flow_runs/{run['id']}/set_state", {"state": dead, "force": True}
        )

        def beside() -> bool:
            (now,) = works.flow_runs(works.record("alive"))
            return (now["state_type"], now["run_count"]) == ("RUNNING", 2)

        assert until(beside, 120), works.factory.said()[-6000:]
        works.go("alive")
        works.assert_once("alive")


def test_the_watcher_killed_once_it_has_seen_a_folder(works):
    works.drop("unwatched")
    assert until(lambda: works.record("unwatched"), 60)
    works.kill("watcher")
    works.assert_once("unwatched")


@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("prefect", "train"),
        ("registry", "register"),
        ("release-service", "register"),
        ("warm", "train"),
    ],
)
def test_a_service_killed_while_a_run_works(works, part, step):
    task = f"without-{part}"
    works.drop(task, stop=step)
    works.stands(task)
    works.kill(part)
    works.go(task)
    works.assert_once(task)


def test_postgresql_killed_while_a_run_registers(works, database):
    works.drop("without-database", stop="register")
    works.stands("without-database")
    database.kill()
    works.go("without-database")
    time.sleep(3)
    database.start()
    works.assert_once("without-database")


def test_the_disk_is_full_while_a_run_works(works):
    works.drop("no-room", stop="train")
    works.stands("no-room")
    with works.full():
        works.go("no-room")
        time.sleep(12)
    works.assert_once("no-room")


def test_clr_up_killed_whole_and_started_again(works):
    works.drop("all-killed", stop="train")
    works.stands("all-killed")
    works.drop("not-yet-started")
    os.kill(works.factory.process.pid, signal.SIGKILL)
    works.factory.process.wait()
    works.go("all-killed")
    assert until(lambda: not works.factory.family(), 30), works.factory.family()
    works.start()
    works.assert_once("all-killed", "not-yet-started")


def test_all_of_it_verifies(works):
    assert works.factory.clr("verify").code == 0
    assert works.factory.plant.leftovers() == []
