"""kill -9 between every two steps of a promotion: one whole release serves, and one comes of it.

Each cut is made in a copy of the same plant, in which the gate has to run again first. What
completes it is in turn the same command, and what the release service does when it looks around.
"""

from __future__ import annotations

import signal

import pytest

from clr.registry.releases import current_release
from clr.registry.versions import tasks
from flows.reconcile import follow, look, repair
from flows.verify import run_verify

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

OLD = {"red-caps", "green-caps", "blue-caps", "yellow-caps"}
NEW = OLD | {"violet-caps"}
APPROVE = ("review", "violet-caps", 1, "approve", "--reason", "seen", "--json")
MOST_CALLS = 40


@pytest.fixture(scope="module")
def stale(template, tmp_path_factory, new_caps, copy_of):
    """A candidate whose gate saw a release that serves no more."""
    folder = tmp_path_factory.mktemp("stale")
    plant = copy_of(template.plant, folder / "plant")
    for name, colour in (("yellow-caps", 3), ("violet-caps", 4)):
        assert plant.clr("onboard", new_caps(folder / name, colour)).code == 0
    assert plant.clr("review", "yellow-caps", 1, "approve").code == 0
    return plant


@pytest.fixture(scope="module")
def cuts(stale, processes, copy_of, tmp_path_factory):
    """(plant, ended by the kill) for each cut of the command, until it is through uncut."""

    def make(command, plant):
        found = []
        for call in range(1, MOST_CALLS):
            copy = copy_of(plant, tmp_path_factory.mktemp("cut") / "plant")
            (end,) = processes((copy, command, ("*", call, "before")))
            if end["code"] != -signal.SIGKILL:
                assert end["code"] == 0, end
                return found
            found.append(copy)
        raise AssertionError(f"{command} makes more than {MOST_CALLS} changes")

    return make


def whole(session):
    """The tasks that serve; fails where adapters, router or aliases are a mixture."""
    release = current_release(session.registry)
    session.router(release)
    for champion in release.tasks.values():
        session.champion_network(champion)
    session.gate_report(release)
    return set(release.tasks)


def look_around(session):
    """What the release service does by itself."""
    found = look(session)
    if found.unrecorded or found.behind:
        repair(session)
    for task, version in found.decided:
        follow(session, task, version)


def entries(plant, *actions):
    return [one for one in plant.ledger() if one[0] in actions]


def champions(session):
    return {
        task for task, aliases in tasks(session.registry).items() if aliases.get("champion") == 1
    }


def settled(plant, session):
    """See that nothing is left to do, and that everything is as recorded."""
    assert not look(session)
    assert champions(session) == whole(session)
    before = plant.photograph()
    look_around(session)
    assert plant.photograph() == before
    assert run_verify(session)["problems"] == []
    assert plant.leftovers() == []


def test_a_promotion_cut_anywhere_is_completed_and_happens_once(stale, cuts):
    served = []
    for number, plant in enumerate(cuts(APPROVE, stale)):
        session = plant.session()
        assert run_verify(session)["problems"] == []  # cut off is not tampered with
        served.append(whole(session))
        decided = ("review.approved", "clr-violet-caps/1") in plant.ledger()
        if number % 2 and decided:
            look_around(session)
        else:
            assert plant.clr(*APPROVE).code == 0
        assert whole(session) == NEW
        release = current_release(session.registry)
        assert release.version == 5
        assert len(session.registry.client.search_model_versions("name = 'clr-release'")) == 5
        assert entries(plant, "release.activated")[-2:] == [
            ("release.activated", "clr-release/4"),
            ("release.activated", "clr-release/5"),
        ]
        assert len(entries(plant, "release.activated")) == 5
        settled(plant, session)
    assert sorted({len(one) for one in served}) == [len(OLD), len(NEW)]
    assert served == sorted(served, key=len)  # the old release until one moment, then the new
    assert len(served) > 15


def test_a_rejection_cut_anywhere_is_completed(stale, cuts):
    reject = ("review", "violet-caps", 1, "reject", "--reason", "wrong lamp")
    for plant in cuts(reject, stale):
        session = plant.session()
        assert run_verify(session)["problems"] == []
        assert whole(session) == OLD
        if ("review.rejected", "clr-violet-caps/1") in plant.ledger():
            look_around(session)
        else:
            assert plant.clr(*reject).code == 0
        assert "candidate" not in tasks(session.registry)["violet-caps"]
        assert entries(plant, "review.rejected", "candidate.closed")[-2:] == [
            ("review.rejected", "clr-violet-caps/1"),
            ("candidate.closed", "clr-violet-caps/1"),
        ]
        settled(plant, session)


@pytest.mark.parametrize(
    ("command", "after", "action"),
    [
        (("rollback", "--to", 2, "--reason", "seen late"), {"red-caps", "green-caps"},
         "release.rollback"),
        (("retire", "green-caps", "--reason", "sold"), OLD - {"green-caps"}, "task.retired"),
    ],
)  # fmt: skip
def test_taking_back_cut_anywhere_is_completed_once_ordered(stale, cuts, command, after, action):
    for number, plant in enumerate(cuts(command, stale)):
        session = plant.session()
        assert run_verify(session)["problems"] == []
        assert whole(session) in (OLD, after)
        if number % 2 and entries(plant, action):
            look_around(session)
        else:
            assert plant.clr(*command).code == 0
        assert whole(session) == after
        assert len(entries(plant, action)) == 1
        assert plant.ledger()[-1][0] == "release.activated"
        settled(plant, session)
