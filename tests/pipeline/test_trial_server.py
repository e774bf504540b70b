"""Trials where a guarded server keeps the registry: who may start one, of what, and who may not."""

from __future__ import annotations

import json

import pytest

from clr.errors import ReviewRefused
from clr.registry.trial import Trial
from tests.house import sentence
from tests.siblings import register_sibling

TASK = "red-caps"


@pytest.fixture(scope="module")
def challenger(house):
    """A version that passed its gate and waits for review."""
    return register_sibling(house.plant.session(), TASK, 7)


def ab(house, user, *arguments):
    done = house.clr(user, "ab", *arguments, "--json")
    return done.code, json.loads(done.out)


def tag(house, user, number, value):
    body = {"name": f"clr-{TASK}", "version": str(number), "key": "clr.trial", "value": value}
    return house.call(user, "POST", "model-versions/set-tag", body)


def alias(house, user, number):
    body = {"name": f"clr-{TASK}", "version": str(number), "alias": "challenger"}
    return house.call(user, "POST", "registered-models/alias", body)


@pytest.mark.parametrize("user", ["tess", "alice", "ada", "otto"])
def test_who_has_not_the_role_release_starts_no_trial_by_command_or_by_hand(
    house, challenger, user
):
    code, told = ab(house, user, "start", TASK, challenger.version)
    assert code == ReviewRefused.exit_code
    assert "role release" in told["message"]
    trial = Trial("0" * 32, 0.05, challenger.adapter_digest, "2026-01-01T00:00:00+00:00").text()
    for answer in (
        tag(house, user, challenger.version, trial),
        alias(house, user, challenger.version),
    ):
        assert answer.status_code == 403
    assert "challenger" not in house.aliases(f"clr-{TASK}")
    assert "clr.trial" not in house.tags(f"clr-{TASK}", challenger.version)


def test_a_share_beyond_the_policy_and_a_forged_trial_are_refused_by_the_server(house, challenger):
    code, told = ab(house, "ruth", "start", TASK, challenger.version, "--share", "0.5")
    assert code == ReviewRefused.exit_code
    assert "10% of a task's items at most" in told["message"]
    assert "no trial" in sentence(tag(house, "ruth", challenger.version, "{}"))


def test_a_refused_version_is_not_tried(house):
    refused = house.version("untried", task=TASK, verdict="refused")
    code, told = ab(house, "ruth", "start", TASK, refused.number)
    assert code == ReviewRefused.exit_code
    assert "did not pass the retention gate" in told["message"]


def test_the_role_release_starts_and_ends_one_trial_a_task(house, challenger):
    since = house.entries()[-1].seq
    code, started = ab(house, "ruth", "start", TASK, challenger.version, "--share", "0.1")
    assert (code, started["mode"]) == (0, "10% of the items")
    other = register_sibling(house.plant.session(), TASK, 8)
    code, told = ab(house, "ruth", "start", TASK, other.version)
    assert code == ReviewRefused.exit_code
    assert "one trial at a time" in told["message"]
    code, ended = ab(house, "ruth", "stop", TASK, "--reason", "enough")
    assert code == 0
    assert "challenger" not in house.aliases(f"clr-{TASK}")
    assert ended["report"] in house.tags(f"clr-{TASK}", challenger.version)["clr.trial"]
    acts = [(one.action, one.actor) for one in house.entries(since)]
    for action in ("trial.started", "alias.set", "trial.ended", "alias.delete"):
        assert (action, "ruth") in acts
