"""What counts as approved, and which tags agree, where a server recorded the decisions."""

from __future__ import annotations

import pytest

from clr.audit.ledger import open_ledger
from clr.registry.acts import Kind
from clr.registry.overview import Overview
from clr.registry.release import ChampionRef, Release
from clr.registry.reviews import record_review
from clr.registry.roles import Policy
from clr.registry.versions import Version
from flows.recorded import read_records
from flows.verify_reviews import champion_findings, tag_problems

ADAPTER = "sha256:" + "a" * 64
SOURCE = "models:/m-" + "1" * 32
SERVER, LOCAL = "mlflow-basic-auth", "local-os-user"


class Story:
    """A ledger that tells of version 1 of one task, and what the registry says of it."""

    def __init__(self, folder):
        self.ledger = open_ledger(folder)
        self.tags = {"review": "pending"}

    def registered(self, by):
        self.ledger.append(
            Kind.CREATE_VERSION,
            "clr-caps/1",
            {"source": SOURCE, "actual": ADAPTER},
            actor=by,
            authentication=SERVER,
        )
        self.tags["clr.created_by"] = by

    def decided(self, by, decision="approved", how=SERVER, source=SOURCE, four_eyes=True):
        return record_review(
            self.ledger,
            model="clr-caps",
            number=1,
            adapter=ADAPTER,
            source=source,
            decision=decision,
            reason="seen",
            actor=by,
            authentication=how,
            four_eyes=four_eyes,
        )

    def told(self, review, by, at, approvals):
        self.tags |= {"review": review, "clr.reviewed_by": by, "clr.reviewed_at": at}
        self.tags["clr.approvals"] = approvals

    def promoted(self, needed=1, how=SERVER):
        joined = {"task": "caps", "version": 1, "adapter": ADAPTER, "needed": needed}
        self.ledger.append(
            "release.activated",
            "clr-release/1",
            {"release": "sha256:" + "f" * 64, "joined": [joined]},
            actor="clr-release",
            authentication=how,
        )

    @property
    def version(self):
        identifier = SOURCE.removeprefix("models:/")
        return Version("caps", 1, "run", identifier, ADAPTER, "md5:0.dir", tags=self.tags)

    def wrong_tags(self, quorum=1):
        return list(tag_problems(self.version, read_records(self.ledger.entries()), quorum))

    def findings(self, policy=None):
        release = Release("sha256:" + "b" * 64, {"caps": ChampionRef("caps", 1, ADAPTER, "", "")})
        there = Overview({"caps": {"champion": 1}}, {"caps": (self.version,)}, {}, ())
        records = read_records(self.ledger.entries())
        return list(champion_findings(release, there, records, policy or Policy()))

    def problems(self, policy=None):
        return [message for wrong, _, message in self.findings(policy) if wrong]


@pytest.fixture
def story(tmp_path):
    made = Story(tmp_path)
    made.registered("tess")
    return made


MISSING = "is champion, but the ledger has {} of {} approvals of its bytes"


def test_one_approval_by_somebody_else_is_enough(story):
    entry = story.decided("alice")
    story.told("approved", "alice", entry.time, "1 of 1: alice")
    story.promoted()
    assert (story.problems(), story.wrong_tags()) == ([], [])


def test_who_registered_it_does_not_count_under_four_eyes(story):
    story.decided("tess")
    story.promoted()
    assert story.problems() == [MISSING.format(0, 1)]


def test_a_forged_creator_in_the_tags_does_not_make_an_own_approval_count(story):
    story.decided("tess")
    story.promoted()
    story.tags["clr.created_by"] = "tom"
    assert story.problems() == [MISSING.format(0, 1)]
    assert ("clr-caps/1", "its tag clr.created_by says 'tom', the ledger 'tess'") in (
        story.wrong_tags()
    )


def test_where_four_eyes_were_off_it_counts(story):
    story.decided("tess", four_eyes=False)
    story.promoted()
    assert story.problems() == []


def test_an_approval_of_another_source_is_none_of_this_one(story):
    story.decided("alice", source="models:/m-" + "2" * 32)
    story.promoted()
    assert story.problems() == [MISSING.format(0, 1)]


def test_a_local_approval_does_not_carry_a_promotion_by_the_server(story):
    story.decided("root", how=LOCAL, four_eyes=False)
    story.promoted()
    assert story.problems() == [MISSING.format(0, 1)]


def test_a_local_approval_carries_a_local_promotion_and_is_told_as_weaker(story):
    story.decided("root", how=LOCAL, four_eyes=False)
    story.promoted(how=LOCAL)
    ((wrong, _, message),) = story.findings()
    assert (wrong, message) == (False, "approved by root as local-os-user: weaker evidence")


def test_the_quorum_is_that_of_the_promotion(story):
    story.decided("alice")
    story.promoted(needed=2)
    assert story.problems() == [MISSING.format(1, 2)]
    story.decided("alice")  # once more the same person
    assert story.problems() == [MISSING.format(1, 2)]
    story.decided("bob")
    assert story.problems() == []


def test_a_quorum_raised_since_is_a_note(story):
    story.decided("alice")
    story.promoted()
    ((wrong, _, message),) = story.findings(Policy(quorum=2))
    assert (wrong, message) == (False, "has 1 approval(s); the policy now asks for 2")


def test_a_rejection_before_the_promotion_is_named_one_after_it_is_not(story):
    story.decided("alice")
    story.decided("bob", "rejected")
    story.promoted()
    assert story.problems() == ["is champion, but bob rejected it (entry 3)"]


def test_a_version_taken_back_then_rejected_then_put_back_is_honest(story):
    story.decided("alice")
    story.promoted()
    story.decided("bob", "rejected")
    assert story.problems() == []


def test_tags_while_the_quorum_is_open(story):
    entry = story.decided("alice")
    story.told("pending", "alice", entry.time, "1 of 2: alice")
    assert story.wrong_tags(quorum=2) == []
    story.tags["review"] = "approved"
    (problem,) = story.wrong_tags(quorum=2)
    assert problem == ("clr-caps/1", "its tag review says 'approved', the ledger 'pending'")


def test_tags_of_two_reviewers_name_both(story):
    story.decided("alice")
    entry = story.decided("bob")
    story.told("approved", "alice, bob", entry.time, "2 of 2: alice, bob")
    assert story.wrong_tags(quorum=2) == []
    story.tags["clr.reviewed_by"] = "bob, alice"
    assert len(story.wrong_tags(quorum=2)) == 1


def test_tags_may_lag_behind_a_decision_until_it_is_carried_out(story):
    assert story.wrong_tags() == []
    entry = story.decided("alice")
    assert story.wrong_tags() == []  # a process was killed here
    story.tags["clr.reviewed_by"] = "alice"
    assert story.wrong_tags() == []
    story.tags["clr.reviewed_at"] = "2026-01-01T00:00:00.000000Z"
    assert len(story.wrong_tags()) == 1
    story.tags["clr.reviewed_at"] = entry.time
    story.promoted()
    assert story.wrong_tags() == [
        ("clr-caps/1", "its tag review says 'pending', the ledger 'approved'")
    ]


def test_a_quorum_that_changed_after_the_review_makes_no_tag_wrong(story):
    entry = story.decided("alice")
    story.told("pending", "alice", entry.time, "1 of 2: alice")
    assert story.wrong_tags(quorum=1) == []
    story.told("approved", "alice", entry.time, "1 of 1: alice")
    assert story.wrong_tags(quorum=2) == []


def test_a_tally_that_names_somebody_who_never_approved_changes_nothing(story):
    entry = story.decided("alice")
    story.told("pending", "alice", entry.time, "1 of 2: eve")
    story.promoted()
    assert story.wrong_tags() == [
        ("clr-caps/1", "its tag review says 'pending', the ledger 'approved'")
    ]


def test_a_registration_that_failed_makes_nobody_the_creator(tmp_path):
    story = Story(tmp_path)
    story.registered("eve")
    payload = {"entry": 1, "kind": "version.create", "status": 400}
    story.ledger.append("act.failed", "clr-caps/1", payload, actor="eve", authentication=SERVER)
    story.registered("tess")
    assert story.wrong_tags() == []
