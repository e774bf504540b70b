"""A server killed between the ledger's entry of a review and its tags owes them."""

from __future__ import annotations

import pytest

from clr.audit.ledger import open_ledger
from clr.registry.acts import AUTHENTICATED
from clr.registry.reviews import record_review


@pytest.fixture
def owed(house):
    """A version that alice approved, as the ledger has it; its tags do not say so."""
    version = house.version("owed", task="patient")
    record_review(
        open_ledger(house.plant.state),
        model=version.model,
        number=version.number,
        adapter=version.digest,
        source=version.source,
        decision="approved",
        reason="seen",
        actor="alice",
        authentication=AUTHENTICATED,
    )
    return version


def test_the_tags_come_when_the_release_service_tells_what_became_of_it(house, owed):
    assert "clr.reviewed_by" not in house.tags(owed.model, owed.number)
    body = {"name": owed.model, "version": str(owed.number), "key": "clr.promotion"}
    answer = house.call("ruth", "POST", "model-versions/set-tag", {**body, "value": "waits"})
    assert answer.status_code == 200, answer.text
    tags = house.tags(owed.model, owed.number)
    assert (tags["review"], tags["clr.approvals"]) == ("pending", "1 of 3: alice")
    assert tags["clr.reviewed_by"] == "alice"


def test_the_tags_of_a_review_without_a_server_stay_as_they_are(house):
    before = house.tags("clr-red-caps", 1)
    body = {"name": "clr-red-caps", "version": "1", "key": "clr.promotion", "value": "champion"}
    assert house.call("ruth", "POST", "model-versions/set-tag", body).status_code == 200
    after = house.tags("clr-red-caps", 1)
    assert after["clr.promotion"] == "champion"
    assert {**before, "clr.promotion": "champion"} == after
    assert after["review"] == "approved"
