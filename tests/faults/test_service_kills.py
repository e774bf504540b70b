"""kill -9 of the release service, and of the registry server, while a promotion is at work.

`clr up registry` starts what was killed again; the promotion then happens, and happens once.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from clr.registry.releases import current_release
from flows.reconcile import look
from tests.siblings import register_sibling
from tests.waiting import until

pytestmark = [pytest.mark.timeout(900), pytest.mark.soak]

AGAIN_SECONDS = 240.0


def victim(house, name):
    """Process id of one of the two children of `clr up registry`: ``service`` or ``server``."""
    parent = house.told()["pid"]
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in map(int, children):
        with suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
            if ("flows.service" in command) == (name == "service"):
                return child
    return None


def calmly(act):
    """What `act` says once the server answers again."""

    def attempt():
        with suppress(requests.RequestException, AssertionError, KeyError):
            return act()
        return None

    return until(attempt, AGAIN_SECONDS)


def releases(house):
    found = house.get("model-versions/search", filter="name = 'clr-release'")
    return len(found["model_versions"])


def serving(house):
    return house.aliases("clr-release")["champion"]


LOGGED = {"service": "release-service", "server": "registry"}
"""Names in the log of `clr up registry`."""

MOMENTS = {
    "approved": lambda house, before: True,
    "written": lambda house, before: releases(house) > before,
    "serves": lambda house, before: serving(house) > before,
}


@pytest.mark.parametrize(
    ("number", "name", "moment"),
    [
        (51, "service", "written"),
        (52, "service", "serves"),
        (53, "server", "approved"),
        (54, "server", "written"),
        (55, "server", "serves"),
    ],
)
def test_what_was_killed_comes_again_and_the_promotion_happens_once(office, number, name, moment):
    if os.name != "posix" or not Path("/proc/self/task").is_dir():
        pytest.skip("needs /proc to find the processes")
    calmly(lambda: office.get("registered-models/get", name="clr-release"))
    found = register_sibling(office.plant.session(), "red-caps", number)
    before, since = calmly(lambda: serving(office)), office.entries()[-1].seq
    process = victim(office, name)
    body = {"name": "clr-red-caps", "version": str(found.version), "key": "review"}
    answer = office.call("alice", "POST", "model-versions/set-tag", {**body, "value": "approved"})
    assert answer.status_code == 200, answer.text
    end = time.monotonic() + 60
    while not MOMENTS[moment](office, before) and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(process, signal.SIGKILL)

    def done():
        there = office.aliases("clr-red-caps").get("champion") == found.version
        entries = [one for one in office.entries(since) if one.action == "release.activated"]
        return there and entries

    (entry,) = calmly(done)
    assert [one["version"] for one in entry.payload["joined"]] == [found.version]
    assert until(lambda: victim(office, name) not in (None, process))
    assert f"restart   {LOGGED[name]} ended" in office.log.read_text(encoding="utf-8")
    assert calmly(lambda: "clr.promotion" in office.tags("clr-red-caps", found.version))
    session = office.plant.session()
    release = current_release(session.registry)
    assert (release.version, releases(office)) == (before + 1, before + 1)
    session.router(release)
    for champion in release.tasks.values():
        session.champion_network(champion)
    assert not look(session)
    assert session.ledger.verify() == []
