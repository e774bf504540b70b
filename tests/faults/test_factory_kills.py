"""kill -9 of every part of a running `clr up`, at the worst moments: each task is onboarded once.

Registry, users and ledger are in a PostgreSQL server, which is killed, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from clr.audit.ledger import open_ledger
from clr.settings import Settings
from flows import arrivals
from tests.factory import end
from tests.postgres import server
from tests.waiting import until

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.soak,
    pytest.mark.xdist_group("killed-factory"),
]
STOPS = Path(__file__).parent / "stops"
AT_ONCE = 4
DISK = "400m"
POINTS = {
    "validate": "open 1 /incoming/{}/test/",
    "version": "open 1 /data/{}/test/",
    "baseline": "open 1 baseline.step.json",
    "train": "os.rename 2 checkpoint",
    "measure": "open 1 measure.step.json",
    "gate": "os.rename 1 gate.json",
    "register": "open 1 register-{}.lock",
}
"""Where a run stands in each step: see tests/faults/stops."""

WAVES = (("validate", "baseline", "train", "version"), ("measure", "gate", "register"))
"""Who stands in `version` holds up those that come after it."""


class Works:
    """A factory that is killed in parts, and whole.

    Attributes:
        factory: as it runs now.
        database: the PostgreSQL server.
    """

    def __init__(self, new_factory, database, folder: Path, new_caps) -> None:
        self._new, self.database, self._folder, self._caps = new_factory, database, folder, new_caps
        self._stops = folder / "stops"
        self._stops.mkdir()
        self._seeds = iter(range(1, 1000))
        self.start()

    def start(self) -> None:
        """Start `clr up`, for the first time or again."""
        self.factory = self._new(
            self._folder / "plant",
            CLR_PARALLEL=str(AT_ONCE),
            CLR_REGISTRY_DATABASE=self.database.url,
            CLR_LEDGER_URL=self.database.url,
            CLR_HOME=str(self._folder / "home"),
            PYTHONPATH=str(STOPS),
            STOPS_FOLDER=str(self._stops),
        )

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leave no byte free where all state is."""
        home = self.factory.plant.state
        if not home.is_mount():
            pytest.skip("no right to mount file systems here")
        filler = home / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        try:
            yield
        finally:
            filler.unlink()

    def drop(self, task: str, *, stop: str = "", epochs: int = 1) -> None:
        """Let a new task arrive, whose run stops in a step."""
        if stop:
            (self._stops / task).write_text(POINTS[stop].format(task))
        folder = self._caps(self._folder / "tasks" / task, seed=next(self._seeds), epochs=epochs)
        self.factory.drop(folder)

    def stands(self, task: str, seconds: float = 240) -> int:
        """Wait until a run of it stands there; return its process."""

        def here() -> list[Path]:
            return list(self._stops.glob(f"{task}.*.here"))

        assert until(here, seconds), self.factory.said()[-6000:]
        return int(here()[0].name.split(".")[-2])

    def go(self, *tasks: str) -> None:
        """Let runs go on, and stop none of these again."""
        for task in tasks:
            (self._stops / task).unlink()

    def record(self, task: str) -> arrivals.Arrival | None:
        settings = Settings(workspace=self.factory.plant.root, home=self.factory.plant.state)
        return next((one for one in arrivals.read_all(settings) if one.task == task), None)

    def done(self, task: str, seconds: float = 300) -> arrivals.Arrival:
        """Wait until an arrival is finished."""

        def finished() -> arrivals.Arrival | None:
            time.sleep(0.2)
            known = self.record(task)
            return known if known and known.finished else None

        known = until(finished, seconds)
        assert known, (self.record(task), self.factory.said()[-8000:])
        return known

    def part(self, name: str) -> dict:
        return json.loads((self.factory.plant.state / "server/parts.json").read_text())[name]

    def kill(self, name: str) -> None:
        """kill -9 of one process of `clr up`; see that another takes its place."""
        old = self.part(name)["pid"]
        os.kill(old, signal.SIGKILL)
        assert until(lambda: self.part(name)["pid"] != old, 60), name

    def assert_once(self, *tasks: str) -> None:
        """One arrival, one run that completed, one version, one entry, nothing half."""
        records = [self.done(task) for task in tasks]
        entries = [(one.action, one.subject) for one in self.ledger().entries()]
        for task, known in zip(tasks, records, strict=True):
            assert (known.state, known.result["version"]) == ("done", 1), known
            body = {"flows": {"name": {"any_": ["onboard"]}}, "limit": 200}
            runs = self.factory.api("POST", "/flow_runs/filter", body)
            mine = [one for one in runs if one["parameters"].get("arrival") == known.digest]
            assert [one["state_type"] for one in mine] == ["COMPLETED"], mine
            name = f"clr-{task}"
            found = self.factory.mlflow("model-versions/search", filter=f"name = '{name}'")
            assert [one["version"] for one in found["model_versions"]] == ["1"]
            assert entries.count(("adapter.registered", f"{name}/1")) == 1
            experiment = self.factory.mlflow(
                "experiments/get-by-name", experiment_name=f"clr/{task}"
            )["experiment"]["experiment_id"]
            (run,) = self.runs(experiment)
            assert run["info"]["status"] == "FINISHED"
            assert found["model_versions"][0]["run_id"] == run["info"]["run_id"]

    def runs(self, experiment: str) -> list[dict]:
        import requests

        answer = requests.post(
            f"{self.factory.registry}/api/2.0/mlflow/runs/search",
            json={"experiment_ids": [experiment]},
            auth=("admin", self.factory.secret("admin.password")),
            timeout=30,
        )
        return answer.json()["runs"]

    def ledger(self):
        return open_ledger(self.factory.plant.state, self.database.url)


@pytest.fixture(scope="module")
def works(new_factory, new_caps, tmp_path_factory) -> Iterator[Works]:
    folder = tmp_path_factory.mktemp("works")
    with server() as database, small_disk(folder / "home"):
        works = Works(new_factory, database, folder, new_caps)
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


def test_postgresql_killed_while_a_run_registers(works):
    works.drop("without-database", stop="register")
    works.stands("without-database")
    works.database.kill()
    works.go("without-database")
    time.sleep(3)
    works.database.start()
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
