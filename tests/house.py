"""A guarded registry at work: a pytest plugin with one real server for the whole test session.

The house is a workspace with three champions, whose registry `clr up registry` serves on a
real port, with users that `clr users add` made. Starting it takes some twenty seconds; so
tests share it, and what they change they change on versions of their own (`House.version`).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from flows.supervise import free_port
from tests.candidate import Candidate, make_candidate
from tests.photograph import photograph
from tests.waiting import until

API = "/api/2.0/mlflow"
AJAX = "/ajax-api/2.0/mlflow"
START_SECONDS = 180
STOP_SECONDS = 30

USERS = {  # who lives here, and what policy.yaml lets them do
    "tess": "trainer",
    "tom": "trainer",
    "alice": "reviewer",
    "bob": "reviewer",
    "carol": "trainer reviewer",
    "ruth": "release",
    "ada": "admin",
    "otto": "auditor",
}
SERVICES = {
    "admin": "admin.password",
    "clr-release": "release.password",
    "clr-trainer": "trainer.password",
    "clr-server": "server.password",
}
"""Accounts that the server makes itself, and where their passwords are."""

STRANGER = "nina"
"""Known to MLflow, without any role."""

POLICY = """\
schema: clr.policy/1
users:
  dora: [reviewer]  # has a role, but no account on the server
review:
  quorum: 1
  reviewers: []
  tasks:
    twofold: {quorum: 2}
    patient: {quorum: 3}  # approvals here wait for more, so that nothing is promoted
    choosy: {reviewers: [dora]}
four_eyes: true
embedded_review: true
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one house in one process, where tests run in several."""
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        for name in ("house", "office"):
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(name))


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker, which pytest-xdist reads, where it is not installed."""
    config.addinivalue_line("markers", "xdist_group(name): tests that run in one process")


@dataclass(frozen=True, eq=False)
class House:
    """A workspace with a running, guarded registry.

    Attributes:
        plant: the workspace (tests/conftest.py), with the settings of its commands.
        url: of the server.
        passwords: by user.
        log: file with what the server wrote.
        process: of `clr up registry`.
        made: versions that tests share, by name.
    """

    plant: Any
    url: str
    passwords: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes]
    made: dict[str, Candidate] = field(default_factory=dict)
    _sessions: dict[str, requests.Session] = field(default_factory=dict)

    def as_(self, user: str) -> requests.Session:
        """An HTTP session signed in as `user`; "" is nobody at all."""
        if user not in self._sessions:
            session = requests.Session()
            session.trust_env = False  # no proxy, no netrc
            # the server ends a connection that rests for seconds, perhaps as the next request comes
            session.headers["Connection"] = "close"
            if user:
                session.auth = (user, self.passwords[user])
            self._sessions[user] = session
        return self._sessions[user]

    def call(
        self, user: str, method: str, path: str, json: Any = None, **options: Any
    ) -> requests.Response:
        """Send one request as `user`; a path without a leading slash is below ``API``."""
        where = path if path.startswith("/") else f"{API}/{path}"
        options.setdefault("timeout", 60)
        return self.as_(user).request(method, self.url + where, json=json, **options)

    def get(self, path: str, **query: Any) -> Any:
        """Return what the server answers the auditor."""
        answer = self.call("otto", "GET", path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def version(self, name: str, **facts: Any) -> Candidate:
        """A version to try things on, made the first time its `name` is asked for.

        Args:
            name: of this version among the tests; also its task's, unless ``task`` is given.
            facts: see `tests.candidate.make_candidate`.
        """
        if name not in self.made:
            self.made[name] = make_candidate(self.call, **{"task": name, **facts})
        return self.made[name]

    def tags(self, model: str, number: int) -> dict[str, str]:
        """Return the tags of a version as they are now."""
        found = self.get("model-versions/get", name=model, version=number)["model_version"]
        return {one["key"]: one.get("value", "") for one in found.get("tags", ())}

    def aliases(self, model: str) -> dict[str, int]:
        """Return the aliases of a model as they are now."""
        found = self.get("registered-models/get", name=model)["registered_model"]
        return {one["alias"]: int(one["version"]) for one in found.get("aliases", ())}

    def entries(self, since: int = 0) -> list[Any]:
        """Return the ledger's entries after number `since`."""
        from clr.audit.ledger import open_ledger

        ledger = open_ledger(self.plant.state, self.plant.settings.get("CLR_LEDGER_URL", ""))
        return list(ledger.entries(since_seq=since))

    def photograph(self) -> Mapping[str, Any]:
        """All that must not change when something is refused."""
        return photograph(self.plant.state)

    def told(self) -> dict[str, Any]:
        """Return what `clr up registry --json` said when all was ready; empty before."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return next((json.loads(line) for line in lines if line.startswith("{")), {})

    def clr(self, user: str, *arguments: object, **settings: str) -> Any:
        """Run a command in the workspace as a user of the server."""
        login = {
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": self.passwords[user],
        }
        return self.plant.clr(*arguments, **{"CLR_REGISTRY_URL": self.url, **login, **settings})


@pytest.fixture(scope="session")
def new_house() -> Iterator[Callable[..., House]]:
    """Function (plant, policy, users) -> `House`, its server stopped at the end of the session."""
    running: list[subprocess.Popen[bytes]] = []

    def build(
        plant: Any, policy: str = POLICY, users: Mapping[str, str] = USERS, **settings: str
    ) -> House:
        plant = type(plant)(plant.root, {**plant.settings, **settings})
        passwords = _furnish(plant, policy, users)
        port, log = free_port(), plant.root.parent / "registry.log"
        running.append(_start(plant, port, log))
        url = f"http://127.0.0.1:{port}"
        _wait(url, running[-1], log)
        for name, file in SERVICES.items():
            passwords[name] = (plant.state / "secrets" / file).read_text().strip()
        house = House(plant, url, passwords, log, running[-1])
        _invite(house, STRANGER)
        return house

    yield build
    for process in running:
        stop(process)


@pytest.fixture(scope="session")
def house(
    new_house: Callable[..., House],
    template: Any,
    copy_of: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[House]:
    """The house of this test session: an embedded workspace that has grown into a server."""
    made = new_house(copy_of(template.plant, tmp_path_factory.mktemp("house") / "plant"))
    yield made
    stop(made.process)


@pytest.fixture(scope="session")
def office(
    new_house: Callable[..., House],
    template: Any,
    copy_of: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[House]:
    """A second house, where what serves changes and processes are killed; its service is ready."""
    plant = copy_of(template.plant, tmp_path_factory.mktemp("office") / "plant")
    made = new_house(plant, users={**USERS, "dora": "reviewer"})
    assert until(lambda: _ready(made), START_SECONDS), made.log.read_text()[-3000:]
    yield made
    stop(made.process)


def _ready(house: House) -> bool:
    with suppress(requests.RequestException):
        told = house.told()
        return bool(told and requests.get(f"{told['service']}/health", timeout=5).json()["ready"])
    return False


def _furnish(plant: Any, policy: str, users: Mapping[str, str]) -> dict[str, str]:
    file = plant.root / "mlflow" / "policy.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(policy, encoding="utf-8")
    passwords = {}
    for name, roles in users.items():
        passwords[name] = f"{name}-{secrets.token_hex(8)}"
        flags = [word for role in roles.split() for word in ("--role", role)]
        done = plant.clr("users", "add", name, *flags, CLR_PASSWORD=passwords[name])
        assert done.code == 0, done
    return passwords


def _invite(house: House, name: str) -> None:
    house.passwords[name] = f"{name}-{secrets.token_hex(8)}"
    known = {"username": name, "password": house.passwords[name]}
    answer = house.call("admin", "POST", "users/create", known)
    assert answer.status_code == 200, answer.text


def _start(plant: Any, port: int, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows.cli", "up", "registry", "--port", str(port), "--json"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **plant.settings}
    with log.open("wb") as out:
        return subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, cwd=plant.root, start_new_session=True
        )


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with suppress(requests.RequestException):
            if requests.get(f"{url}/health", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise AssertionError(f"The registry does not start: {log.read_text()[-4000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop `clr up` as Ctrl-C does, and see that nothing of it stays."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=STOP_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def sentence(answer: requests.Response) -> str:
    """Return the words of a refusal, as MLflow's page shows them."""
    try:
        found = json.loads(answer.text)
    except ValueError:  # MLflow's pages about errors are HTML
        return re.sub(r".*<title>(.*?)</title>.*", r"\1", answer.text, flags=re.DOTALL).strip()
    if isinstance(found, dict):
        return str(found.get("message") or found.get("detail") or found)
    return str(found)
