"""What is on trial, as a tag says it, and the share that the policy gives it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from clr.errors import UsageError
from clr.registry.acts import Kind, State
from clr.registry.roles import Policy, parse_policy
from clr.registry.trial import MAX_SHARE, Trial, parse_trial, percent
from tests.registry.people import POLICY, VERSION, A, approve, ask, refused, who_may

TRIAL = Trial("0123456789abcdef" * 2, 0.05, A, "2026-01-01T00:00:00Z", "新しい lamps")
SCHEMA = "schema: clr.policy/1\n"


OPEN = State(version=VERSION)


def tag(trial: Trial, state: State = OPEN) -> set[str]:
    return who_may(Kind.SET_VERSION_TAG, state, name="clr.trial", value=trial.text())


def test_a_trial_is_read_as_it_was_written():
    assert parse_trial(TRIAL.text()) == TRIAL
    assert parse_trial(replace(TRIAL, share=0.0).text()).share == 0


@pytest.mark.parametrize(
    "change",
    [{"share": 1}, {"share": -0.1}, {"share": True}, {"share": "0.1"}, {"share": None},
     {"id": "0" * 31}, {"id": 5}, {"reason": []}, {"more": ""}, {"schema": "clr.trial/2"}],
)  # fmt: skip
def test_what_is_no_trial_is_refused(change):
    with pytest.raises(UsageError, match="no trial"):
        parse_trial(json.dumps({**json.loads(TRIAL.text()), **change}))


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "[" * 100_000, "NaN", '{"share": NaN}'])
def test_neither_is_what_is_no_object(text):
    with pytest.raises(UsageError, match="no trial"):
        parse_trial(text)


def test_the_role_release_starts_trials_of_what_passed_and_nobody_rejected():
    assert tag(TRIAL) == {"ruth", "all"}
    rejected = (approve("bob", decision="rejected"),)
    for facts in ({"verdict": "refused"}, {"reviews": rejected}):
        assert tag(TRIAL, State(version=replace(VERSION, **facts))) == set()
    assert tag(TRIAL, State()) == set(), "there is no such version"
    forged = {"name": "clr.trial", "value": "yes"}
    assert "no trial" in refused("ruth", Kind.SET_VERSION_TAG, OPEN, **forged)


def test_a_share_lies_within_the_policy():
    about = {"name": "clr.trial", "value": replace(TRIAL, share=0.2).text()}
    said = refused("ruth", Kind.SET_VERSION_TAG, OPEN, **about)
    assert "10% of a task's items at most, not 20%" in said
    wider = replace(POLICY, max_share=0.2)
    assert ask("ruth", Kind.SET_VERSION_TAG, OPEN, wider, **about).allowed


@pytest.mark.parametrize(
    ("share", "read"), [(0.1, "10%"), (0.104, "10.4%"), (0.004, "0.4%"), (0.9, "90%")]
)
def test_shares_that_differ_are_told_apart(share, read):
    assert percent(share) == read


def test_a_version_cannot_be_born_on_trial():
    tags = {"clr.adapter_digest": A, "clr.trial": TRIAL.text()}
    about = {"source": "models:/m-1", "tags": tags}
    state = State(actual=A)
    assert "clr.trial" in refused("tess", Kind.CREATE_VERSION, state, **about)


def test_the_policy_says_the_greatest_share():
    assert Policy().max_share == parse_policy(SCHEMA).max_share == MAX_SHARE
    assert parse_policy(SCHEMA + "trials: {max_share: 0}\n").max_share == 0
    for wrong in ("1", "-0.1", "yes", ".nan", "[]", "1" * 400):
        with pytest.raises(UsageError, match="line 2"):
            parse_policy(f"{SCHEMA}trials: {{max_share: {wrong}}}\n")
    with pytest.raises(UsageError, match="no field"):
        parse_policy(f"{SCHEMA}trials: {{share: 0.1}}\n")
