"""A real server under load: it follows promotions, survives kills, and refuses what is broken."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from clr.serving import journal
from tests.serving.load import Callers, Moves, Picture, Server
from tests.serving.plants import TASKS, Served
from tests.waiting import until


def pictures(served: Served, tasks: tuple[str, ...] = TASKS) -> list[Picture]:
    return [Picture(task, one.read_bytes()) for task in tasks for one in served.images(task)[:4]]


@pytest.fixture
def server(own: Served) -> Iterator[Server]:
    """A server of a copy of the workspace; started by the test."""
    made = Server(own.root, own.environment, own.root.parent / "serve.log")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop(signal.SIGKILL)


def one(served: Served, task: str, *, named: bool = True) -> dict[str, Any]:
    data = served.images(task)[0].read_bytes()
    return {"instances": [Picture(task, data).instance(named=named)]}


@pytest.mark.slow
def test_promotions_and_rollbacks_drop_and_mix_nothing(own: Served, server: Server) -> None:
    assert server.start()["release"] == own.second.version
    moves = Moves(own.activate, own.second)
    callers = Callers(server.port, pictures(own, ("red", "green")), 12)
    for release in (own.first, own.second) * 3:
        callers.until(40)
        moves.to(release)
    callers.until(40)
    asked = callers.stop()
    assert callers.broken == []
    assert {one.status for one in asked} == {200}
    assert moves.wrong(asked) == []
    assert {one.release for one in asked} == {own.first.version, own.second.version}
    adapters = {ref.adapter_digest for ref in own.second.tasks.values()}
    for answered in asked:
        for found in answered.answer["predictions"]:
            assert found["adapter"] in adapters
            entry = journal.answer(own.state, found["request_id"])
            assert entry is not None
            assert (entry.release, entry.label) == (answered.release, found["label"])


@pytest.mark.soak
def test_killed_under_load_it_comes_back_and_every_answer_is_known(
    own: Served, server: Server
) -> None:
    server.start()
    callers = Callers(server.port, pictures(own), 8)
    callers.until(60)
    server.stop(signal.SIGKILL)
    server.start()
    callers.until(60)
    asked = callers.stop()
    assert callers.broken  # while it was away
    good = [one for one in asked if one.status == 200]
    assert len(good) > 100
    assert {one.status for one in asked} <= {200, 503}  # it says so while it is starting
    for answered in good:
        assert answered.release == own.second.version
        for found in answered.answer["predictions"]:
            assert journal.answer(own.state, found["request_id"]), found
    assert server.stop() == 0


@pytest.mark.soak
def test_a_damaged_adapter_takes_its_own_task_away_until_it_is_whole(
    own: Served, server: Server
) -> None:
    file = own.adapter("green")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one flipped bit
    server.start()
    status, health = server.ask("GET", "/health")
    assert (status, health["status"], health["tasks"]) == (200, "degraded", ["blue", "red"])
    assert "green" in health["refused"]
    assert server.ask("POST", "/v1/predict", one(own, "red"))[0] == 200
    status, answer = server.ask("POST", "/v1/predict", one(own, "green"))
    assert (status, answer["code"]) == (503, "unavailable-task")
    file.write_bytes(whole)
    assert until(lambda: "green" in server.ask("GET", "/health")[1]["tasks"], 60)
    status, answer = server.ask("POST", "/v1/predict", one(own, "green"))
    assert answer["predictions"][0]["task"] == "green"


@pytest.mark.soak
def test_without_its_registry_the_last_release_goes_on_and_starts_again(
    own: Served, server: Server
) -> None:
    database, away = own.state / "mlflow.db", own.state / "away.db"
    server.start()
    expected = server.ask("POST", "/v1/predict", one(own, "red"))[1]["predictions"][0]
    shutil.copy(database, away)
    database.write_bytes(b"this is no database" * 1000)
    assert until(lambda: server.ask("GET", "/health")[1]["problems"], 60)
    assert server.ask("POST", "/v1/predict", one(own, "red", named=False))[0] == 200
    assert server.stop() == 0
    server.start()
    status, answer = server.ask("POST", "/v1/predict", one(own, "red"))
    assert status == 200
    assert answer["release"] == own.second.version
    assert answer["predictions"][0]["adapter"] == expected["adapter"]
    assert server.ask("GET", "/health")[1]["status"] == "degraded"
    shutil.copy(away, database)
    assert until(lambda: server.ask("GET", "/health")[1]["status"] == "ok", 60)


@pytest.mark.slow
def test_a_taken_port_is_said(own: Served, server: Server) -> None:
    import socket
    import subprocess
    import sys

    from tests.factory import shell

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "serve", "--port", str(taken.getsockname()[1])],
            cwd=own.root,
            env={**shell(), **own.environment, "CLR_SERVE_KEYS": "false"},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 7
    assert "is taken" in done.stderr
    assert "--port" in done.stderr
