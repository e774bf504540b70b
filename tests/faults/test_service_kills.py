"""kill -9 of the release service, and of the registry server, while a promotion is at work.

`clr up registry` starts what was killed again; the promotion then happens, and happens once.
"""

from __future__ import annotations

import json
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

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

AGAIN_SECONDS = 240.0


@pytest.fixture(scope="module")
def works(new_house, template, copy_of, tmp_path_factory):
    """A house of its own, whose processes are killed."""
    house = new_house(copy_of(template.plant, tmp_path_factory.mktemp("works") / "plant"))
    assert until(lambda: told(house) and ready(house), AGAIN_SECONDS)
    return house


def told(house):
    """What `clr up registry --json` said when all was ready."""
    lines = house.log.read_text(encoding="utf-8").splitlines()
    return next((json.loads(line) for line in lines if line.startswith("{")), None)


def ready(house):
    with suppress(requests.RequestException):
        return requests.get(f"{told(house)['service']}/health", timeout=5).json()["ready"]
    return False


def victim(house, name):
    """Process id of one of the two children of `clr up registry`: ``service`` or ``server``."""
    parent = told(house)["pid"]
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


MOMENTS = {
    "approved": lambda house, before: True,
    "written": lambda house, before: releases(house) > before,
    "serves": lambda house, before: serving(house) > before,
}


@pytest.mark.parametrize(
    ("number", "name", "moment"),
    [
        (1, "service", "written"),
        (2, "service", "serves"),
        (3, "server", "approved"),
        (4, "server", "written"),
        (5, "server", "serves"),
    ],
)
def test_what_was_killed_comes_again_and_the_promotion_happens_once(works, number, name, moment):
    if os.name != "posix" or not Path("/proc/self/task").is_dir():
        pytest.skip("needs /proc to find the processes")
    calmly(lambda: works.get("registered-models/get", name="clr-release"))
    found = register_sibling(works.plant.session(), "red-caps", number)
    before, since = calmly(lambda: serving(works)), works.entries()[-1].seq
    process = victim(works, name)
    body = {"name": "clr-red-caps", "version": str(found.version), "key": "review"}
    answer = works.call("alice", "POST", "model-versions/set-tag", {**body, "value": "approved"})
    assert answer.status_code == 200, answer.text
    end = time.monotonic() + 60
    while not MOMENTS[moment](works, before) and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(process, signal.SIGKILL)

    def done():
        there = works.aliases("clr-red-caps").get("champion") == found.version
        entries = [one for one in works.entries(since) if one.action == "release.activated"]
        return there and entries

    (entry,) = calmly(done)
    assert [one["version"] for one in entry.payload["joined"]] == [found.version]
    assert until(lambda: victim(works, name) not in (None, process))
    assert calmly(lambda: "clr.promotion" in works.tags("clr-red-caps", found.version))
    session = works.plant.session()
    release = current_release(session.registry)
    assert (release.version, releases(works)) == (before + 1, before + 1)
    session.router(release)
    for champion in release.tasks.values():
        session.champion_network(champion)
    assert not look(session)
    assert session.ledger.verify() == []
