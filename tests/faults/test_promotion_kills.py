"""A promotion cut off between every two steps: one whole release serves, and one comes of it.

Before each of its changes the workspace is copied, which is what ``kill -9`` at that moment leaves
(real kills are in test_kills.py and tests/registry/test_kills.py). In every copy the gate has to
run again first. What completes it is in turn the same command, and what the release service does
when it looks around.
"""

from __future__ import annotations

import pytest

from clr.registry.releases import current_release
from clr.registry.versions import tasks
from flows.reconcile import follow, look, repair
from flows.verify import run_verify

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

OLD = {"red-caps", "green-caps"}
NEW = OLD | {"violet-caps"}
APPROVE = ("review", "violet-caps", 1, "approve", "--reason", "seen", "--json")


@pytest.fixture(scope="module")
def stale(template, tmp_path_factory, new_caps, copy_of):
    """A candidate whose gate saw a release that serves no more."""
    folder = tmp_path_factory.mktemp("stale")
    plant = copy_of(template.plant, folder / "plant")
    assert plant.clr("onboard", new_caps(folder / "violet-caps", 4)).code == 0
    assert plant.clr("retire", "blue-caps", "--reason", "sold").code == 0
    return plant


@pytest.fixture(scope="module")
def cuts(stale, processes, copy_of, moved, tmp_path_factory):
    """What a kill before each change of a command leaves of the stale plant, in their order."""

    def make(command):
        folder = tmp_path_factory.mktemp("cuts")
        plant = copy_of(stale, folder / "plant")
        (end,) = processes((plant, command, None, folder / "kept"))
        assert end["code"] == 0, end
        kept = sorted((folder / "kept").iterdir())
        assert len(kept) > 1
        return [moved(plant, one) for one in kept]

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


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.soak)])
def test_a_promotion_cut_anywhere_is_completed_and_happens_once(every, cuts):
    served = []
    for number, plant in enumerate(cuts(APPROVE)[::every]):
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
    assert len(served) > 15 / every


@pytest.mark.soak
def test_a_rejection_cut_anywhere_is_completed(cuts):
    reject = ("review", "violet-caps", 1, "reject", "--reason", "wrong lamp")
    for plant in cuts(reject):
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


@pytest.mark.soak
@pytest.mark.parametrize(
    ("command", "after", "action"),
    [
        (("rollback", "--to", 1, "--reason", "seen late"), {"red-caps"}, "release.rollback"),
        (("retire", "green-caps", "--reason", "sold"), OLD - {"green-caps"}, "task.retired"),
    ],
)
def test_taking_back_cut_anywhere_is_completed_once_ordered(stale, cuts, command, after, action):
    earlier = len(entries(stale, action))
    for number, plant in enumerate(cuts(command)):
        session = plant.session()
        assert run_verify(session)["problems"] == []
        assert whole(session) in (OLD, after)
        if number % 2 and len(entries(plant, action)) > earlier:
            look_around(session)
        else:
            assert plant.clr(*command).code == 0
        assert whole(session) == after
        assert len(entries(plant, action)) == earlier + 1
        assert plant.ledger()[-1][0] == "release.activated"
        settled(plant, session)
