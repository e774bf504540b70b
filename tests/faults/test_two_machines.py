"""Two machines, each with a clone of the workspace and a state of its own, work on one PostgreSQL.

The first one runs `clr up`: the registry server, Prefect's server, workers. The second one has
their addresses. Both write into one ledger and push their data to one DVC remote.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from clr.audit.ledger import Ledger, open_ledger
from clr.data.workspace import init_workspace
from clr.registry.server.templates import TEMPLATES
from tests.conftest import Plant
from tests.factory import Factory, end, shell
from tests.pipeline.watching import git
from tests.postgres import server
from tests.waiting import until

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.soak,
    pytest.mark.xdist_group("two-machines"),
]
TASKS = ("blue", "green", "red", "violet", "yellow")
REVIEWER, PASSWORD = "alice", "a long password of alice"


class Machines:
    """Two machines of one plant.

    Attributes:
        one: runs the servers.
        two: uses them.
        ledger: that both write, at the database server.
    """

    def __init__(self, new_factory: Callable[..., Factory], folder: Path, databases: list[str]):
        shared = {
            "CLR_LEDGER_URL": databases[0],
            "CLR_DVC_REMOTE": str(folder / "remote"),
        }
        self.factory = new_factory(
            folder / "one" / "plant",
            CLR_HOME=str(folder / "one" / "home"),
            CLR_REGISTRY_DATABASE=databases[0],
            CLR_PREFECT_DATABASE=databases[1],
            **shared,
        )
        self.one = self.factory.plant
        git(self.one.root, "add", "-f", "data.dvc", "mlflow")
        git(self.one.root, "commit", "-qm", "a plant")
        git(folder, "clone", "-q", self.one.root, folder / "two" / "plant")
        init_workspace(folder / "two" / "plant", TEMPLATES)
        known = {
            "CLR_HOME": str(folder / "two" / "home"),
            "CLR_REGISTRY_URL": self.factory.registry,
            "CLR_RELEASE_SERVICE": self.factory.ready["service"],
            "CLR_TRAINER_PASSWORD": self.factory.secret("trainer.password"),
            "PREFECT_API_URL": self.factory.prefect,
            "PREFECT_API_AUTH_STRING": self.factory.secret("prefect.auth"),
        }
        self.two = Plant(folder / "two" / "plant", {**self.one.settings, **shared, **known})
        del self.two.settings["CLR_REGISTRY_DATABASE"], self.two.settings["CLR_PREFECT_DATABASE"]

    @property
    def ledger(self) -> Ledger:
        return open_ledger(self.one.state, self.one.settings["CLR_LEDGER_URL"])

    def both(self, *commands: tuple[object, ...]) -> list[dict[str, Any]]:
        """Run a command on each machine at the same time; return their JSON."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(run, (self.one, self.two), commands))

    def registered(self, task: str) -> list[str]:
        """Return the versions of a task that the registry has."""
        found = self.factory.mlflow("model-versions/search", filter=f"name = 'clr-{task}'")
        return [one["version"] for one in found["model_versions"]]

    def approve(self, task: str) -> None:
        """Approve version 1 as a reviewer does in the registry's page; wait until it serves."""
        answer = requests.post(
            f"{self.factory.registry}/api/2.0/mlflow/model-versions/set-tag",
            json={"name": f"clr-{task}", "version": "1", "key": "review", "value": "approve"},
            auth=(REVIEWER, PASSWORD),
            timeout=30,
        )
        assert answer.status_code == 200, answer.text

        def serves() -> bool:
            entries = self.ledger.entries(action="release.activated")
            return any(task in str(entry.payload["joined"]) for entry in entries)

        assert until(serves, 120), self.factory.said()[-6000:]


def run(plant: Plant, arguments: tuple[object, ...]) -> dict[str, Any]:
    """Run a command in a process of its own; return its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments), "--json"],
        cwd=plant.root,
        env={**shell(), **plant.settings},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def machines(new_factory, tmp_path_factory):
    folder = tmp_path_factory.mktemp("machines")
    with server() as database:
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE prefect")
        prefect = database.url.removesuffix("/postgres") + "/prefect"
        made = Machines(new_factory, folder, [database.url, prefect])
        made.factory.clr("users", "add", REVIEWER, "--role", "reviewer", CLR_PASSWORD=PASSWORD)
        yield made
        end(made.factory)


def test_different_tasks_at_the_same_time(machines, new_caps, tmp_path):
    red, green = (new_caps(tmp_path / name, n, seed=n) for n, name in enumerate(("red", "green")))
    said = machines.both(("onboard", red), ("onboard", green))
    assert [(one["task"], one["version"], one["verdict"]) for one in said] == [
        ("red", 1, "passed"),
        ("green", 1, "passed"),
    ]


def test_the_same_task_at_the_same_time_is_one_version(machines, new_caps, tmp_path):
    blue = new_caps(tmp_path / "blue", 2, seed=2)
    said = machines.both(("onboard", blue), ("onboard", blue))
    assert [(one["version"], one["verdict"]) for one in said] == [(1, "passed")] * 2
    assert machines.registered("blue") == ["1"]


def test_what_one_machine_made_the_other_one_knows(machines, new_caps, tmp_path):
    """Each gates a newcomer beside the champions of the other, whose data it has never had."""
    machines.approve("red")
    machines.approve("green")
    yellow, violet = (
        new_caps(tmp_path / name, n, seed=n) for n, name in enumerate(("yellow", "violet"), 3)
    )
    said = machines.both(("onboard", yellow), ("onboard", violet))
    assert [(one["version"], one["verdict"]) for one in said] == [(1, "passed")] * 2
    assert [one["gate"]["earlier_tasks"] for one in said] == [2, 2]


def test_one_order_and_one_chain(machines):
    entries = list(machines.ledger.entries())
    assert [one.seq for one in entries] == list(range(1, len(entries) + 1))
    registered = [one.subject for one in entries if one.action == "adapter.registered"]
    assert sorted(registered) == [
        f"clr-{t}/1" for t in ("blue", "green", "red", "violet", "yellow")
    ]
    keys = [plant.state / "keys" for plant in (machines.one, machines.two)]
    for folder, other in (keys, reversed(keys)):  # as docs/ledger.md says
        for public in other.glob("*.pub"):
            shutil.copy(public, folder)
    for checked in machines.both(("verify",), ("verify",)):
        assert checked["problems"] == []
