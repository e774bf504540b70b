"""Runs that died are marked and started again; what got lost is told anew."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from clr.errors import ServiceUnavailable
from clr.settings import Settings
from flows import arrivals
from flows.recover import is_gone, process_began, recover
from flows.tracking import BEGAN, PROCESS, process_ticks

DIGEST = "sha256:" + "ab" * 32
AN_HOUR = timedelta(hours=1)


@pytest.fixture
def desk(factory, tmp_path, monkeypatch):
    """A workspace of its own on the factory's Prefect server: function -> what one look did."""
    monkeypatch.setenv("PREFECT_API_URL", factory.prefect)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", factory.secret("prefect.auth"))
    monkeypatch.setattr("flows.recover.SETTLED_SECONDS", -60.0)
    (tmp_path / "data.dvc").touch()
    settings = Settings(workspace=tmp_path, home=tmp_path / "home", run_attempts=2)
    desk = Desk(factory, settings)
    yield desk
    desk.close()


class Desk:
    def __init__(self, factory, settings):
        self.settings, self.runs, self.api = settings, [], factory.api

    def run(self, kind, *, arrival="", pid=None, deployed=True, attempts=0):
        """Return the id of a run in a state, as its process would have left it."""
        if deployed:
            known = self.api("GET", "/deployments/name/onboard/onboard")["id"]
            body = {"parameters": {"path": "incoming/x", "arrival": arrival}}
            body["state"] = {"type": "PENDING"}
            made = self.api("POST", f"/deployments/{known}/create_flow_run", body)["id"]
        else:
            flow = self.api("POST", "/flows/", {"name": "something"})["id"]
            body = {"flow_id": flow, "state": {"type": "PENDING"}}
            made = self.api("POST", "/flow_runs/", body)["id"]
        self.runs.append(made)
        for _ in range(attempts):
            self.set(made, "RUNNING")
        if pid is not None:
            labels = {PROCESS: f"{socket.gethostname()}:{pid}:{attempts}"}
            self.api("PATCH", f"/flow_runs/{made}/labels", labels)
        if kind != "RUNNING":
            self.set(made, kind)
        return made

    def set(self, run, kind):
        state = {"type": kind, "name": kind.title()}
        self.api("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})

    def state(self, run):
        return self.api("GET", f"/flow_runs/{run}")["state"]

    def arrival(self, **values):
        arrivals.claim(self.settings, "x", self.settings.workspace / "incoming/x", DIGEST, "folder")
        return arrivals.update(self.settings, DIGEST, **values)

    def record(self):
        return arrivals.get(self.settings, DIGEST)

    def look(self):
        """Look once; the watcher, too, comes again when the server is busy."""
        for _ in range(20):
            try:
                return recover(SimpleNamespace(settings=self.settings))
            except ServiceUnavailable:
                time.sleep(0.5)
        return recover(SimpleNamespace(settings=self.settings))

    def close(self):
        for run in self.runs:
            self.set(run, "CANCELLED")


@pytest.fixture
def dead():
    """Number of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_run_whose_process_is_gone_is_crashed_at_once_and_started_again(desk, dead):
    run = desk.run("RUNNING", arrival=DIGEST, pid=dead, attempts=1)
    desk.arrival(state="running", flow_run=run)
    seen = desk.look()
    assert run in seen.again
    state = desk.state(run)
    assert (state["type"], state["name"]) == ("SCHEDULED", "AwaitingRetry")
    due = datetime.fromisoformat(state["state_details"]["scheduled_time"].replace("Z", "+00:00"))
    assert timedelta(seconds=4) < due - datetime.now(UTC) < timedelta(seconds=13)
    assert desk.record().state == "running"


def test_the_last_attempt_is_told_as_a_failure(desk, dead):
    run = desk.run("RUNNING", arrival=DIGEST, pid=dead, attempts=2)
    desk.arrival(state="running", flow_run=run)
    assert DIGEST in desk.look().given_up
    assert desk.state(run)["type"] == "CRASHED"
    assert (desk.record().state, "crashed" in desk.record().result["message"]) == ("failed", True)


def test_a_run_that_lives_is_left_alone(desk):
    run = desk.run("RUNNING", arrival=DIGEST, pid=os.getpid(), attempts=1)
    desk.arrival(state="running", flow_run=run)
    assert run not in desk.look().crashed + desk.look().again
    assert desk.state(run)["type"] == "RUNNING"


def test_a_process_of_the_same_number_that_began_later_is_another_one(desk):
    run = desk.run("RUNNING", arrival=DIGEST, attempts=1)
    time.sleep(3.5)  # processes began in whole hundredths, the system itself in whole seconds
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as later:
        label = {PROCESS: f"{socket.gethostname()}:{later.pid}:1"}
        desk.api("PATCH", f"/flow_runs/{run}/labels", label)
        desk.look()
        later.kill()
    assert desk.state(run)["type"] == "CRASHED"


@pytest.mark.parametrize(("host", "attempt"), [("elsewhere", 1), (socket.gethostname(), 1)])
def test_a_process_of_another_machine_or_attempt_is_not_judged(dead, host, attempt):
    stamp = (datetime.now(UTC) - AN_HOUR).isoformat()
    run = {
        "labels": {PROCESS: f"{host}:{dead}:{attempt}"},
        "run_count": attempt if host == "elsewhere" else attempt + 1,
        "state": {"timestamp": stamp},
    }
    assert not is_gone(run)
    assert is_gone(
        {**run, "labels": {PROCESS: f"{socket.gethostname()}:{dead}:{run['run_count']}"}}
    )


def test_a_run_that_nobody_started_goes_to_another_worker(desk, monkeypatch):
    run = desk.run("PENDING", arrival=DIGEST)
    desk.look()
    assert desk.state(run)["type"] == "PENDING"
    monkeypatch.setattr("flows.recover.PENDING_SECONDS", -60.0)
    desk.look()
    assert desk.state(run)["name"] == "AwaitingRetry"


def test_a_run_that_became_due_in_days_when_the_clock_went_back_is_due_now(desk):
    run = desk.run("PENDING", arrival=DIGEST)
    due = {"scheduled_time": (datetime.now(UTC) + timedelta(days=3)).isoformat()}
    state = {"type": "SCHEDULED", "name": "Scheduled", "state_details": due}
    desk.api("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
    desk.arrival(state="announced", flow_run=run)
    assert run in desk.look().again
    due_now = desk.state(run)["state_details"]["scheduled_time"].replace("Z", "+00:00")
    assert datetime.fromisoformat(due_now) < datetime.now(UTC)
    assert run not in desk.look().again


def test_what_somebody_cancelled_stays_cancelled(desk):
    run = desk.run("CANCELLED", arrival=DIGEST, attempts=1)
    desk.arrival(state="running", flow_run=run)
    assert run not in desk.look().again
    assert desk.record().state == "failed"


def test_a_run_that_prefect_does_not_know_is_told_anew(desk):
    desk.arrival(state="running", flow_run=str(uuid.uuid4()))
    assert desk.look().told == (DIGEST,)
    assert (desk.record().state, desk.record().flow_run) == ("seen", "")


def test_what_a_service_refused_for_a_while_is_tried_again(desk):
    run = desk.run("FAILED", arrival=DIGEST, attempts=1)
    desk.arrival(state="running", flow_run=run, result={"error": "ServiceUnavailable"})
    assert run in desk.look().again


def test_an_arrival_that_was_refused_is_never_started_again(desk):
    run = desk.run("FAILED", arrival=DIGEST, attempts=1)
    desk.arrival(state="refused", flow_run=run)
    assert run not in desk.look().again
    assert desk.state(run)["type"] == "FAILED"


def test_other_flows_are_marked_and_not_started_again(desk, dead):
    run = desk.run("RUNNING", pid=dead, attempts=1, deployed=False)
    desk.look()
    desk.look()
    assert desk.state(run)["type"] == "CRASHED"


@pytest.mark.parametrize("jump", [2 * AN_HOUR, -2 * AN_HOUR])
def test_a_clock_that_jumps_makes_no_living_run_a_dead_one(jump):
    stamp = (datetime.now(UTC) - jump).isoformat()
    labels = {PROCESS: f"{socket.gethostname()}:{os.getpid()}:1", BEGAN: process_ticks(os.getpid())}
    run = {"labels": labels, "run_count": 1, "state": {"timestamp": stamp}}
    assert not is_gone(run)
    assert is_gone({**run, "labels": {**labels, BEGAN: "1"}})  # another one of its number


def test_when_a_process_began_is_known():
    began = process_began(os.getpid())
    assert abs(began - Path(f"/proc/{os.getpid()}").stat().st_ctime) < 5
    assert process_began(2**22 + 1) is None
