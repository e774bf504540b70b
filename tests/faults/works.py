"""A factory that is killed in parts and whole, and whose runs stand still where a test wants."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from clr.audit.ledger import Ledger, open_ledger
from clr.settings import Settings
from flows import arrivals
from tests.factory import Factory
from tests.waiting import until

STOPS = Path(__file__).parent / "stops"
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


class Works:
    """A factory of its own, and what became of the tasks that arrive there.

    Attributes:
        factory: as it runs now.
    """

    def __init__(
        self,
        new_factory: Callable[..., Factory],
        folder: Path,
        new_caps: Callable[..., Path],
        **settings: str,
    ) -> None:
        """Start it: its workspace is ``<folder>/plant``, its state ``<folder>/home``."""
        self._new, self._folder, self._caps = new_factory, folder, new_caps
        self._stops = folder / "stops"
        self._stops.mkdir()
        self._seeds = iter(range(1, 1000))
        self._settings = {
            "CLR_HOME": str(folder / "home"),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(STOPS), os.environ.get("PYTHONPATH")))),
            "STOPS_FOLDER": str(self._stops),
            **settings,
        }
        self.start()

    def start(self) -> None:
        """Start `clr up`, for the first time or again."""
        self.factory = self._new(self._folder / "plant", **self._settings)

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

    def drop(self, task: str, *, stop: str = "", epochs: int = 1, colour: int = 0) -> None:
        """Let a new task arrive, whose run stops in a step."""
        if stop:
            (self._stops / task).write_text(POINTS[stop].format(task))
        place, seed = self._folder / "tasks" / task, next(self._seeds)
        self.factory.drop(self._caps(place, colour, seed=seed, epochs=epochs))

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
        """Return the record of a task's arrival, if it was seen."""
        settings = Settings(workspace=self.factory.plant.root, home=self.factory.plant.state)
        return next((one for one in arrivals.read_all(settings) if one.task == task), None)

    def done(self, task: str, seconds: float = 300) -> arrivals.Arrival:
        """Wait until an arrival is finished."""

        def finished() -> arrivals.Arrival | None:
            time.sleep(0.2)
            known = self.record(task)
            return known if known and known.finished else None

        known: arrivals.Arrival | None = until(finished, seconds)
        assert known, (self.record(task), self.factory.said()[-8000:])
        return known

    def part(self, name: str) -> dict[str, Any]:
        """Return what `clr status` tells of a service."""
        known = json.loads((self.factory.plant.state / "server/parts.json").read_text())
        return dict(known[name])

    def kill(self, name: str) -> None:
        """kill -9 of one process of `clr up`; see that another takes its place."""
        old = self.part(name)["pid"]
        os.kill(old, signal.SIGKILL)
        assert until(lambda: self.part(name)["pid"] != old, 60), name

    @contextmanager
    def second_worker(self) -> Iterator[None]:
        """A worker beside that of `clr up`: as of another machine that sees the same folders."""
        known = Path(f"/proc/{self.part('worker-cpu')['pid']}/environ").read_text()
        command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
        with subprocess.Popen(
            [*command, "--pool", "cpu", "--name", "second"],
            cwd=self.factory.plant.root,
            env=dict(one.split("=", 1) for one in known.split("\0") if one),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield
            finally:
                process.terminate()

    def flow_runs(self, arrival: arrivals.Arrival) -> list[dict[str, Any]]:
        """Return the flow runs that were started for an arrival."""
        body = {"flows": {"name": {"any_": ["onboard"]}}, "limit": 200}
        runs = self.factory.api("POST", "/flow_runs/filter", body)
        return [one for one in runs if one["parameters"].get("arrival") == arrival.digest]

    def assert_once(self, *tasks: str) -> None:
        """One arrival, one run that completed, one version, one entry, nothing half."""
        records = [self.done(task) for task in tasks]
        entries = [(one.action, one.subject) for one in self.ledger().entries()]
        for task, known in zip(tasks, records, strict=True):
            assert known.result is not None
            assert (known.state, known.result.get("version")) == ("done", 1), known
            mine = until(lambda one=known: self._ended_runs(one), 30)
            assert [one["state_type"] for one in mine] == ["COMPLETED"], mine
            name = f"clr-{task}"
            found = self.factory.mlflow("model-versions/search", filter=f"name = '{name}'")
            assert [one["version"] for one in found["model_versions"]] == ["1"]
            assert entries.count(("adapter.registered", f"{name}/1")) == 1
            experiment = self.factory.mlflow(
                "experiments/get-by-name", experiment_name=f"clr/{task}"
            )["experiment"]["experiment_id"]
            (run,) = self._runs(experiment)
            assert run["info"]["status"] == "FINISHED"
            assert found["model_versions"][0]["run_id"] == run["info"]["run_id"]

    def ledger(self) -> Ledger:
        """Open its ledger."""
        return open_ledger(
            self.factory.plant.state, self.factory.plant.settings.get("CLR_LEDGER_URL", "")
        )

    def _ended_runs(self, arrival: arrivals.Arrival) -> list[dict[str, Any]]:
        """Return its flow runs, without a second one that found nothing to do; none too early."""
        time.sleep(0.2)
        runs = [one for one in self.flow_runs(arrival) if one["state_name"] != "Duplicate"]
        live = {"RUNNING", "PENDING", "SCHEDULED", "CANCELLING"}
        return [] if any(one["state_type"] in live for one in runs) else runs

    def _runs(self, experiment: str) -> list[dict[str, Any]]:
        answer = requests.post(
            f"{self.factory.registry}/api/2.0/mlflow/runs/search",
            json={"experiment_ids": [experiment]},
            auth=("admin", self.factory.secret("admin.password")),
            timeout=30,
        )
        runs: list[dict[str, Any]] = answer.json()["runs"]
        return runs
