"""A factory at work: a pytest plugin with one real `clr up` for the whole test session.

Registry, Prefect, release service, workers and watcher run as a user would have them. Starting
them takes some twenty seconds of both cores; so tests share one, and work on tasks of their own
names. Who has to kill or reconfigure something starts one of their own (`new_factory`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.waiting import until

START_SECONDS = 240
STOP_SECONDS = 40
BUSY_TRIES = 20
SETTINGS = {
    "CLR_SETTLE_SECONDS": "0.5",
    "CLR_GIT_POLL_SECONDS": "2",
    "CLR_RECONCILE_SECONDS": "5",
    "CLR_LOG_FORMAT": "json",
    "CLR_PARALLEL": "2",
    "CLR_SERVE_PORT": "0",  # a gigabyte and seconds of a core, which few tests look at
    # nothing of a schedule comes in between
    "CLR_REPLAY_CRON": "",
    "CLR_DRIFT_CRON": "",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one factory in one process, where tests run in several."""
    for item in items:
        marked = item.get_closest_marker("xdist_group")
        if "factory" in getattr(item, "fixturenames", ()) and not marked:
            item.add_marker(pytest.mark.xdist_group("factory"))


@dataclass(frozen=True, eq=False)
class Factory:
    """A workspace with everything running.

    Attributes:
        plant: the workspace (tests/conftest.py), with the settings of its commands.
        process: of `clr up`.
        log: file with its stderr.
        ready: what `clr up --json` said: registry, service, prefect, metrics, serving, pid.
        seconds: from its start to that line.
    """

    plant: Any
    process: subprocess.Popen[bytes]
    log: Path
    ready: dict[str, Any]
    seconds: float

    @property
    def registry(self) -> str:
        """Address of the MLflow server."""
        return str(self.ready["registry"])

    @property
    def prefect(self) -> str:
        """Address of the Prefect API, with ``/api``."""
        return str(self.ready["prefect"])

    @property
    def metrics(self) -> str:
        """Address of the watcher: ``/metrics`` and ``/health`` are below it."""
        return str(self.ready["metrics"])

    @property
    def prefect_auth(self) -> tuple[str, str]:
        """User and password of the Prefect API."""
        user, _, password = self.secret("prefect.auth").partition(":")
        return user, password

    def secret(self, file: str) -> str:
        """Return a secret of the workspace."""
        return str((self.plant.state / "secrets" / file).read_text().strip())

    def clr(self, *arguments: object, **settings: str) -> Any:
        """Run a command in the workspace, in this process, with the services of `clr up`."""
        known = {"PREFECT_API_URL": self.prefect,
                 "PREFECT_API_AUTH_STRING": self.secret("prefect.auth")}  # fmt: skip
        return self.plant.clr(*arguments, **{**known, **settings})

    def drop(self, folder: Path, name: str = "") -> Path:
        """Put a copy of a task folder or an archive into ``incoming/``, all at once."""
        inbox = self.plant.root / "incoming"
        inbox.mkdir(exist_ok=True)
        place, partial = inbox / (name or folder.name), inbox / f".{name or folder.name}.part"
        (shutil.copytree if folder.is_dir() else shutil.copy2)(folder, partial)
        partial.rename(place)
        return place

    def mlflow(self, path: str, user: str = "admin", **query: Any) -> Any:
        """Return what the registry answers to GET; None where it answers an error."""
        password = self.secret(f"{user.removeprefix('clr-')}.password")
        answer = _get(f"{self.registry}/api/2.0/mlflow/{path}", (user, password), query)
        return answer.json() if answer.status_code == 200 else None

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Return what the Prefect API answers, e.g. ``api("POST", "/flow_runs/filter", {})``.

        While its database is busy it is asked again, as Prefect's own clients do.
        """
        for _ in range(BUSY_TRIES):
            with requests.Session() as session:
                session.trust_env = False
                answer = session.request(
                    method, self.prefect + path, json=body, auth=self.prefect_auth, timeout=30
                )
            if answer.status_code != 503:
                break
            time.sleep(0.5)
        assert answer.ok, (path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def until_version(self, task: str, number: int = 1, seconds: float = 180) -> dict[str, Any]:
        """Wait for a version of a task; return it as MLflow tells it, its tags as a dict."""

        def found() -> Any:
            version = self.mlflow("model-versions/get", name=f"clr-{task}", version=number)
            tags = {
                one["key"]: one.get("value", "")
                for one in ((version or {}).get("model_version", {}).get("tags", ()))
            }
            return {**version["model_version"], "tags": tags} if "clr.verdict" in tags else None

        version = until(lambda: time.sleep(0.2) or found(), seconds)
        assert version, f"{task} version {number} does not come:\n{self.said()[-6000:]}"
        return dict(version)

    def said(self) -> str:
        """All of stderr of `clr up` so far: its own lines and those of all services."""
        return self.log.read_text(errors="replace")

    def family(self) -> dict[int, str]:
        """Everything that runs for this workspace, whoever its parent is: command by process."""
        mark, found = f"CLR_HOME={self.plant.state}".encode(), {}
        for place in Path("/proc").iterdir():
            with suppress(OSError):
                if place.name.isdecimal() and mark in (place / "environ").read_bytes().split(b"\0"):
                    command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if command:  # else it has ended
                        found[int(place.name)] = command
        return found

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send a signal to `clr up`; return the seconds until it ended."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=STOP_SECONDS)
        return time.monotonic() - began


def _get(url: str, auth: tuple[str, str], query: dict[str, Any]) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, params=query, auth=auth, timeout=30)


@pytest.fixture(scope="session")
def new_factory(
    backbone_settings: dict[str, str],
) -> Iterator[Callable[..., Factory]]:
    """Function (folder, *arguments, **settings) -> a `Factory`, ended with the session."""
    from clr.data.workspace import init_workspace
    from clr.registry.server.templates import TEMPLATES
    from tests.conftest import Plant

    running: list[Factory] = []

    def build(folder: Path, *arguments: str, **settings: str) -> Factory:
        if not (folder / "data.dvc").exists():
            init_workspace(folder, TEMPLATES)
        plant = Plant(folder, {**backbone_settings, **SETTINGS, **settings})
        running.append(start(plant, *arguments))
        return running[-1]

    yield build
    for one in running:
        end(one)


@pytest.fixture(scope="session")
def factory(new_factory: Callable[..., Factory], tmp_path_factory: Any) -> Iterator[Factory]:
    """The factory of this test session. Use task names of your own; stop and kill nothing."""
    made = new_factory(tmp_path_factory.mktemp("factory") / "plant", CLR_SERVE_PORT="8080")
    yield made
    end(made)


def start(plant: Any, *arguments: str) -> Factory:
    """Start `clr up` in a workspace and wait until all of it answers."""
    log = plant.root.parent / "up.log"
    command = [sys.executable, "-m", "flows.cli", "up", "--free-ports", "--json", *arguments]
    began = time.monotonic()
    with log.open("wb") as err:
        process = subprocess.Popen(
            command,
            cwd=plant.root,
            env={**shell(), **plant.settings},
            stdout=subprocess.PIPE,
            stderr=err,
            start_new_session=True,
        )
    assert process.stdout is not None
    line = until_line(process, START_SECONDS)
    made = Factory(plant, process, log, {}, time.monotonic() - began)
    if not line.rstrip().endswith(b"}"):
        end(made)
        raise AssertionError(f"`clr up` does not start:\n{made.said()[-6000:]}")
    made.ready.update(json.loads(line))
    return made


def shell() -> dict[str, str]:
    """Return the environment of a shell: no server or login that tests of this process have set."""
    foreign = ("PREFECT_", "MLFLOW_TRACKING_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def until_line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """Return the next line on stdout; empty if none came in time."""
    import select

    assert process.stdout is not None
    there = select.select([process.stdout], [], [], seconds)[0]
    return process.stdout.readline() if there else b""


def end(factory: Factory) -> None:
    """Stop `clr up` as `kill` does, and see that nothing of it stays."""
    try:
        if factory.process.poll() is None:
            seconds = factory.stop()
            left = factory.family()
            assert (factory.process.returncode, left) == (0, {}), factory.said()[-4000:]
            assert seconds < STOP_SECONDS / 2  # alone: five
    finally:
        for pid in [factory.process.pid, *factory.family()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        factory.process.wait()
        if factory.process.stdout is not None:
            factory.process.stdout.close()
