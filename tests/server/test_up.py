"""`clr up registry`: one command that starts server and release service, and ends with them."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from clr.data.workspace import init_workspace
from clr.registry.server.templates import TEMPLATES
from clr.registry.store import open_registry
from clr.settings import load_settings
from flows.cli import main
from flows.supervise import free_port
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("up")
READY, STOPPED = 180, 30
WEBHOOKS = """\
schema: clr.webhooks/1
webhooks:
  - {name: chat, url: "http://127.0.0.1:9/chat", events: [model_version_alias.created]}
"""


class Up:
    """A running `clr up registry`."""

    def __init__(self, root: Path, *arguments: str, **settings: str) -> None:
        self.root, self.log = root, root.parent / f"{root.name}.log"
        command = [sys.executable, "-m", "flows.cli", "up", "registry", *arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=root,
                env={**os.environ, **settings},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def line(self) -> str:
        """The next line on stdout."""
        return self.process.stdout.readline()

    def said(self) -> str:
        """All of stderr so far."""
        return self.log.read_text()

    def end(self) -> tuple[int, str]:
        """Wait for the end; return exit code and stderr."""
        code = self.process.wait(timeout=STOPPED)
        return code, self.said()

    def family(self) -> list[int]:
        """Everything that runs for this workspace, whoever its parent is now."""
        mark, found = f"CLR_HOME={self.root / '.clr'}".encode(), []
        for place in Path("/proc").iterdir():
            with suppress(OSError):
                if place.name.isdecimal() and mark in (place / "environ").read_bytes().split(b"\0"):
                    found.append(int(place.name))
        return found

    def kill(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in self.family():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace that kept its registry embedded so far, with a file in it."""
    root = tmp_path_factory.mktemp("up") / "a plant"
    init_workspace(root, {**TEMPLATES, "mlflow/webhooks.yaml": WEBHOOKS})
    registry = open_registry(load_settings(root))
    experiment = registry.client.create_experiment("clr/caps", f"{registry.artifacts}/clr-caps")
    run = registry.client.create_run(experiment).info.run_id
    registry.client.log_text(run, "seen", "notes.txt")
    return root, run


@pytest.fixture(scope="module")
def up(workspace):
    """The server of this module and what it said when it was ready."""
    running = Up(workspace[0], "--port", str(free_port()), "--json")
    try:
        ready = running.line()
        assert ready, running.said()
        yield running, json.loads(ready)
    finally:
        running.kill()


def test_ready_means_that_both_answer(up):
    running, ready = up
    assert ready.keys() == {"url", "service", "pid"}
    assert ready["pid"] == running.process.pid
    for url in (ready["url"], ready["service"]):
        assert requests.get(f"{url}/health", timeout=10).status_code == 200
    assert json.loads((running.root / ".clr" / "registry.json").read_text()) == {
        "url": ready["url"]
    }


def test_each_stage_is_told_in_a_line_on_stderr(up):
    lines = [line for line in up[0].said().splitlines() if re.match(r"\d\d:\d\d:\d\d  ", line)]
    stages = [line.split()[1] for line in lines]
    assert stages[:6] == ["policy", "prepare", "database", "users", "webhooks", "start"]
    assert set(stages[6:8]) == {"server", "service"}
    assert "3 addresses of files rewritten" in lines[2]


def test_no_secret_is_printed_or_logged(up):
    running, ready = up
    state = running.root / ".clr"
    written = [running.log, *(state / "logs").iterdir()]
    told = json.dumps(ready) + "".join(path.read_text() for path in written)
    commands = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in running.family())
    for path in (state / "secrets").iterdir():
        assert path.read_text().strip() not in told
        assert path.read_text().strip().encode() not in commands


def test_nobody_gets_in_without_a_password(up):
    for user in (None, ("admin", "password1234"), ("admin", "admin-admin-1"), ("mlflow", "")):
        answer = requests.get(
            f"{up[1]['url']}/api/2.0/mlflow/experiments/search?max_results=1", auth=user, timeout=10
        )
        assert answer.status_code == 401


def test_what_clr_users_changes_counts_at_once(up, monkeypatch):
    running, ready = up
    monkeypatch.chdir(running.root)

    def users(command: str, password: str, *more: str) -> None:
        done = CliRunner().invoke(
            main, ["users", command, "alice", *more], env={"CLR_PASSWORD": password}
        )
        assert done.exit_code == 0, done.output

    def status(password: str) -> int:
        url = f"{ready['url']}/api/2.0/mlflow/experiments/search?max_results=1"
        return requests.get(url, auth=("alice", password), timeout=10).status_code

    users("add", "alice-password-1", "--role", "auditor")
    assert until(lambda: status("alice-password-1") == 200, 5)
    users("passwd", "alice-password-2")
    assert until(lambda: status("alice-password-1") == 401, 5)
    assert status("alice-password-2") == 200
    users("remove", "")
    # 404 is MLflow's answer to who was signed in and is no more
    assert until(lambda: status("alice-password-2") in (401, 404), 5)


def test_commands_of_the_workspace_follow_the_server_and_find_what_was_there(up, workspace):
    root, run = workspace
    registry = open_registry(load_settings(root))
    assert (registry.uri, registry.embedded, registry.guarded) == (up[1]["url"], False, True)
    assert [one.path for one in registry.client.list_artifacts(run)] == ["notes.txt"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", registry.uri)
        assert Path(registry.client.download_artifacts(run, "notes.txt")).read_text() == "seen"


def webhooks(root: Path) -> dict[str, str]:
    with closing(sqlite3.connect(root / ".clr" / "mlflow.db")) as database:
        return dict(database.execute("SELECT name, url FROM webhooks"))


def test_the_webhooks_are_those_of_the_file_and_the_release_services(up):
    running, ready = up
    assert webhooks(running.root) == {
        "clr-promote": f"{ready['service']}/webhook",
        "chat": "http://127.0.0.1:9/chat",
    }


def test_a_second_one_for_the_same_workspace_is_refused_and_names_the_first(up):
    running, ready = up
    code, said = Up(running.root, "--port", str(free_port())).end()
    assert code == 7
    assert f"{ready['url']}, process {ready['pid']}" in said


def test_a_taken_port_is_named(up, tmp_path):
    init_workspace(tmp_path / "w")
    port = up[1]["url"].rpartition(":")[2]
    code, said = Up(tmp_path / "w", "--port", port).end()
    assert (code, f"Port {port} of 127.0.0.1 is taken" in said) == (7, True)
    assert not (tmp_path / "w" / ".clr" / "registry.json").exists()


def test_sigterm_stops_all_within_seconds(up):
    running, _ = up
    running.process.terminate()
    code, said = running.end()
    assert code == 0
    assert said.rstrip().endswith("stopped")
    assert until(lambda: not running.family(), STOPPED)


def test_nothing_outlives_a_killed_command_and_it_starts_again(up, workspace):
    old = up[1]["service"]
    running = Up(workspace[0], "--port", str(free_port()))
    try:
        assert until(lambda: "webhooks  clr-promote" in running.said(), READY)
        assert old not in webhooks(running.root)["clr-promote"]
        running.process.kill()
        assert until(lambda: not running.family(), STOPPED), running.said()
    finally:
        running.kill()


def test_a_command_that_works_in_the_embedded_registry_is_not_disturbed(tmp_path):
    from filelock import FileLock

    root = tmp_path / "w"
    init_workspace(root)
    (root / ".clr" / "locks").mkdir(parents=True)
    with FileLock(root / ".clr" / "locks" / "task-caps.lock"):
        code, said = Up(root, "--port", str(free_port())).end()
    assert (code, "A clr command works in this workspace (task-caps)" in said) == (7, True)


@pytest.mark.parametrize(
    ("file", "text", "settings", "code", "named"),
    [
        ("policy.yaml", "users: {}\n", {}, 2, "policy.yaml"),
        ("auth.ini", "[mlflow\n", {}, 2, "auth.ini"),
        ("webhooks.yaml", "webhooks: []\n", {}, 2, "webhooks.yaml"),
        ("x", "", {"CLR_REGISTRY_DATABASE": "mysql://db/x"}, 2, "CLR_REGISTRY_DATABASE"),
        ("x", "", {"CLR_REGISTRY_DATABASE": "postgresql://u:pw@127.0.0.1:9/x"}, 7, "127.0.0.1:9/x"),
        ("x", "", {"CLR_RELEASE_PASSWORD": "short"}, 2, "CLR_RELEASE_PASSWORD"),
        ("x", "", {"CLR_REGISTRY_HOST": "192.0.2.1"}, 2, "192.0.2.1"),
    ],
)
def test_what_cannot_be_used_ends_it_with_a_sentence(tmp_path, file, text, settings, code, named):
    root = tmp_path / "w"
    init_workspace(root, {**TEMPLATES, f"mlflow/{file}": text})
    running = Up(root, "--port", str(free_port()), **settings)
    try:
        ended, said = running.end()
    finally:
        running.kill()
    assert (ended, named in said) == (code, True), said
    assert "Traceback" not in said
    assert "u:pw" not in said
