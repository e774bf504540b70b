"""How long files are kept at least: read from the policy, undercut by no setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.errors import UsageError
from clr.registry.retention import Retention, kept
from clr.registry.roles import POLICY_TEMPLATE, Policy, parse_policy
from clr.settings import Settings

PAGE = Path(__file__).parents[2] / "mlflow" / "policy.yaml"


def policy(retention: str) -> Policy:
    return parse_policy(f"schema: clr.policy/1\nretention: {retention}\n")


def test_without_a_word_it_is_six_months_and_ten_years():
    assert Policy().retention == Retention(184, 3653) == parse_policy(POLICY_TEMPLATE).retention
    assert parse_policy(PAGE.read_text()).retention == Retention()


def test_the_policy_may_say_otherwise():
    assert policy("{logs_days: 400}").retention == Retention(400, 3653)


@pytest.mark.parametrize(
    ("retention", "problem"),
    [
        ("{logs_days: 0}", "logs_days is 0"),
        ("{logs_days: yes}", "logs_days is"),
        ("{evidence_days: 99999}", "evidence_days is 99999"),
        ("{log_days: 400}", "no field 'log_days'"),
        ("[400]", "no mapping"),
    ],
)
def test_a_mistake_is_named_with_its_line(retention, problem):
    with pytest.raises(UsageError, match=problem) as caught:
        policy(retention)
    assert "line 2" in str(caught.value)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 5000), st.integers(0, 5000))
def test_what_is_kept_is_never_less_than_the_policy(logs, evidence, asked_logs, asked_evidence):
    least = Retention(logs, evidence)
    settings = Settings(keep_logs_days=asked_logs, keep_evidence_days=asked_evidence)
    if 0 < asked_logs < logs or 0 < asked_evidence < evidence:
        with pytest.raises(UsageError, match="CLR_KEEP_"):
            kept(settings, least)
    else:
        found = kept(settings, least)
        assert (found.logs_days, found.evidence_days) == (
            asked_logs or logs,
            asked_evidence or evidence,
        )
