"""Locks: of a workspace, and of all machines that share one Prefect server."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from clr.errors import ServiceUnavailable
from clr.settings import Settings
from flows import locks, prefect_server
from tests.waiting import until

FREE_SECONDS = locks.LEASE_SECONDS / 3
"""A slot that was given back is free at once, and one that was lost only when its lease ends.

The first time that it is asked for, Prefect's server may still answer that its database is busy:
on SQLite two transactions that write at the same time do not wait for each other.
"""

HOLDER = """
import sys, time
from pathlib import Path
from clr.settings import Settings
from flows import locks
with locks.hold(Settings(workspace=Path(sys.argv[1]), home=Path(sys.argv[1])), sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def shared(factory, monkeypatch):
    """Use the factory's Prefect server."""
    monkeypatch.setenv("PREFECT_API_URL", factory.prefect)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", factory.secret("prefect.auth"))
    return factory


def machine(tmp_path, name):
    """A workspace of its own: files of one are nothing to the other."""
    folder = tmp_path / name
    folder.mkdir()
    return Settings(workspace=folder, home=folder)


class Holder:
    """Another process that holds a lock."""

    def __init__(self, settings, name):
        command = [sys.executable, "-c", HOLDER, str(settings.workspace), name]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ})
        assert self.process.stdout.readline() == b"held\n"

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


def is_free(settings, name, monkeypatch, seconds=FREE_SECONDS):
    with monkeypatch.context() as patch:
        patch.setattr(locks, "SECONDS", seconds)
        try:
            with locks.hold(settings, name):
                return True
        except ServiceUnavailable as error:
            if "was not free" not in error.message:
                raise
            return False


def slots_of(factory):
    """What the server says of the lock's slots: for a test that finds them in a wrong state."""
    limits = factory.api("POST", "/v2/concurrency_limits/filter", {})
    leases = locks.leases(Settings(workspace=factory.plant.root)).glob("*.json")
    return limits, [lease.read_text() for lease in leases]


def is_held(settings, name, monkeypatch, seconds=0.0):
    return not is_free(settings, name, monkeypatch, seconds)


def test_a_workspaces_lock_is_free_as_soon_as_its_holder_is_killed(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    here = machine(tmp_path, "here")
    holder = Holder(here, "task-animals")
    assert is_held(here, "task-animals", monkeypatch)
    caplog.set_level(logging.INFO, "clr")
    done = threading.Event()

    def wait():
        with locks.hold(here, "task-animals"):
            done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert until(lambda: "waiting" in caplog.text, 10)
    assert not done.is_set()
    holder.kill()
    assert done.wait(5)
    thread.join()


def test_machines_exclude_each_other_where_they_must(shared, tmp_path, monkeypatch, caplog):
    here, there = machine(tmp_path, "here"), machine(tmp_path, "there")
    caplog.set_level(logging.INFO, "clr")
    with locks.hold(here, "registry"):
        assert is_held(there, "registry", monkeypatch, 1.0)
        assert "another machine" in caplog.text
        assert is_free(there, "task-animals", monkeypatch)
    assert is_free(there, "registry", monkeypatch)


def test_a_holder_that_lives_renews_its_lease(shared, tmp_path, monkeypatch):
    said, post = [], locks.prefect_api.post

    def listen(settings, path, body):
        answer = post(settings, path, body)  # raises where the server does not take it
        said.append(path.rpartition("/")[2])
        return answer

    monkeypatch.setattr(locks.prefect_api, "post", listen)
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.1)
    with locks.hold(machine(tmp_path, "here"), "registry"):
        assert until(lambda: said.count("renew") >= 2, 20)
    assert (said[0], said[-1]) == ("increment-with-lease", "decrement-with-lease")


def test_a_server_without_the_limit_leaves_it_to_the_file(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SHARED", ("unheard-of",))
    here, there = machine(tmp_path, "here"), machine(tmp_path, "there")
    with locks.hold(here, "unheard-of"):
        assert is_free(there, "unheard-of", monkeypatch)
        assert is_held(here, "unheard-of", monkeypatch)


BY_NAME = {"names": [locks.limit_of("registry")], "slots": 1}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("increment-with-lease", {"lease_duration": 86400.0}),  # as if the clock had gone back
        ("increment", {"mode": "concurrency"}),  # killed before it made the lease
    ],
)
def test_a_slot_that_nobody_holds_is_free_after_a_start(shared, tmp_path, monkeypatch, path, body):
    shared.api("POST", f"/v2/concurrency_limits/{path}", {**BY_NAME, **body})
    here, server = machine(tmp_path, "here"), Settings(workspace=shared.plant.root)
    monkeypatch.delenv("PREFECT_HOME")  # the tests' own; the factory's is in its state
    assert is_held(here, "registry", monkeypatch)
    locks.settle(server)
    assert is_free(here, "registry", monkeypatch), slots_of(shared)


def test_a_server_here_that_has_lent_nothing_yet_is_known_to_be_here(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_HOME")
    here = machine(tmp_path, "here")
    assert not locks.leases(here).exists()
    prefect_server.lasting(here, "127.0.0.1", 4200, "http://127.0.0.1:4200", "user:password")
    assert locks.leases(here).is_dir()


def test_a_slot_that_somebody_holds_stays_theirs(shared, tmp_path, monkeypatch):
    here, there = machine(tmp_path, "here"), machine(tmp_path, "there")
    monkeypatch.delenv("PREFECT_HOME")
    monkeypatch.setattr(locks, "SECONDS", 2 * locks.LEASE_SECONDS)
    with locks.hold(here, "registry"):
        locks.settle(Settings(workspace=shared.plant.root))
        assert is_held(there, "registry", monkeypatch)


@pytest.mark.soak
def test_a_slot_is_free_again_a_minute_after_its_holder_was_killed(shared, tmp_path, monkeypatch):
    here, there = machine(tmp_path, "here"), machine(tmp_path, "there")
    holder = Holder(here, "registry")
    holder.kill()
    began = time.monotonic()
    assert is_free(there, "registry", monkeypatch, seconds=110)
    assert 20 < time.monotonic() - began < 100


def test_a_server_that_is_away_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with (
        pytest.raises(ServiceUnavailable, match="Prefect's server"),
        locks.hold(machine(tmp_path, "here"), "promote"),
    ):
        pass
