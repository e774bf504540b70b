"""Reviews: which words are understood, what the ledger keeps, and which approvals count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clr.audit.ledger import Ledger, open_ledger
from clr.errors import UsageError
from clr.registry.acts import AUTHENTICATED, LOCAL, Review, VersionFacts
from clr.registry.reviews import (
    APPROVED,
    REJECTED,
    approvals,
    read_reviews,
    record_review,
    registrar,
    rejected,
    standing,
    tally,
    word,
)
from clr.registry.roles import Policy, TaskReview

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
ONE, TWO = "models:/m-1", "models:/m-2"
REVIEWER = frozenset({"reviewer"})
POLICY = Policy(users={"alice": REVIEWER, "bob": REVIEWER, "tess": REVIEWER | {"trainer"}})
VERSION = VersionFacts("clr-animals", 1, "tess", "passed", A, A, ONE)


def review(
    who: str,
    decision: str = APPROVED,
    adapter: str = A,
    source: str = ONE,
    how: str = AUTHENTICATED,
) -> Review:
    return Review(who, decision, adapter, source, authentication=how)


def counted(*reviews: Review, policy: Policy = POLICY, **facts: object) -> tuple[str, ...]:
    return approvals(replace(VERSION, reviews=reviews, **facts), policy)  # type: ignore[arg-type]


class TestWords:
    @pytest.mark.parametrize(
        "text",
        ["approved", "Approved", " approve ", "APPROVED!", "approve\n", "“approved”", "'approve'",
         "ａｐｐｒｏｖｅｄ", "承認", "承認済み", "承認。", " 承認　"],
    )  # fmt: skip
    def test_approved_in_many_hands(self, text: str):
        assert word(text) == APPROVED

    @pytest.mark.parametrize(
        "text", ["rejected", "Reject", "REJECTED.", "却下", "否認", "ｒｅｊｅｃｔ"]
    )
    def test_rejected_in_many_hands(self, text: str):
        assert word(text) == REJECTED

    @pytest.mark.parametrize(
        "text",
        ["", " ", "pending", "aproved", "approved?", "not approved", "approved, rejected", "yes",
         "true", "1", "app roved", "аpproved", "approved\u200b", "未承認", "不承認", "承認しない",
         "<b>approved</b>", "approved" * 20, " " * 101 + "approved", "a" * 1_000_000],
    )  # fmt: skip
    def test_what_is_neither_is_neither(self, text: str):
        assert word(text) is None


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path)


def record(ledger: Ledger, who: str = "alice", decision: str = APPROVED, number: int = 1, **more):
    about = {"adapter": A, "source": ONE, "reason": "looks good", "authentication": AUTHENTICATED}
    return record_review(
        ledger,
        model="clr-animals",
        number=number,
        decision=decision,
        actor=who,
        **{**about, **more},
    )


class TestLedger:
    def test_what_is_recorded_is_read(self, ledger: Ledger):
        entry = record(ledger, four_eyes=False, creator="alice")
        assert entry.payload["four_eyes"] is False
        assert entry.payload["creator"] == "alice"
        assert read_reviews(ledger, "clr-animals", 1) == (
            Review("alice", APPROVED, A, ONE, "looks good", entry.time, AUTHENTICATED),
        )

    def test_the_same_again_is_the_same_until_another_release_serves(self, ledger: Ledger):
        first = record(ledger)
        assert record(ledger, reason="said again") == first
        ledger.append("release.activated", "clr-release/2", actor="r", authentication=LOCAL)
        again = record(ledger, reason="seen again")
        assert (again.seq, again.payload["reason"]) == (3, "seen again")
        assert record(ledger) == again

    def test_each_version_has_its_own(self, ledger: Ledger):
        record(ledger)
        record(ledger, "bob", REJECTED, number=11)
        assert [one.reviewer for one in read_reviews(ledger, "clr-animals", 1)] == ["alice"]
        assert read_reviews(ledger, "clr-animals", 2) == ()
        assert read_reviews(ledger, "clr-vehicles", 1) == ()

    def test_oldest_first_and_nothing_but_decisions(self, ledger: Ledger):
        record(ledger, "bob")
        ledger.append("review.reason", "clr-animals/1", {}, actor="alice", authentication="x")
        ledger.append("alias.set", "clr-animals/1", {}, actor="alice", authentication="x")
        record(ledger, "alice", REJECTED)
        found = read_reviews(ledger, "clr-animals", 1)
        assert [(one.reviewer, one.decision) for one in found] == [
            ("bob", APPROVED),
            ("alice", REJECTED),
        ]

    def test_the_same_said_twice_is_one_entry(self, ledger: Ledger):
        assert record(ledger) == record(ledger, reason="said again")
        record(ledger, source=TWO)
        record(ledger, decision=REJECTED)
        record(ledger, "bob")
        assert len(list(ledger.entries())) == 4

    def test_entries_of_another_form_say_nothing(self, ledger: Ledger):
        for payload in ({}, {"adapter": 1, "source": None}, {"adapter": [A], "source": {"x": ONE}}):
            ledger.append(
                "review.approved", "clr-animals/1", payload, actor="x", authentication="y"
            )
        found = read_reviews(ledger, "clr-animals", 1)
        assert len(found) == 3
        assert standing(found, "", "") == ()
        assert standing(found, A, ONE) == ()

    def test_who_registered_a_version_before_there_was_a_server(self, ledger: Ledger):
        for actor, adapter in (("root", A), ("later", A), ("other", B)):
            ledger.append(
                "adapter.registered",
                "clr-animals/1",
                {"adapter": adapter},
                actor=actor,
                authentication=LOCAL,
            )
        assert registrar(ledger, "clr-animals", 1, A) == "root"
        assert registrar(ledger, "clr-animals", 1, B) == "other"
        assert registrar(ledger, "clr-animals", 2, A) == ""
        assert registrar(ledger, "clr-animals", 1, "") == ""

    def test_other_words_are_no_decision(self, ledger: Ledger):
        with pytest.raises(UsageError):
            record(ledger, decision="maybe")
        assert list(ledger.entries()) == []


class TestWhatCounts:
    def test_an_approval_of_these_bytes_from_this_source(self):
        assert counted(review("alice")) == ("alice",)
        assert counted(review("alice", adapter=B)) == ()
        assert counted(review("alice", source=TWO)) == ()
        assert counted(review("alice", source="")) == ()

    def test_one_person_counts_once(self):
        assert counted(review("bob"), review("alice"), review("bob")) == ("bob", "alice")

    def test_the_creator_does_not_count_under_four_eyes(self):
        assert counted(review("tess")) == ()
        assert counted(review("tess"), policy=replace(POLICY, four_eyes=False)) == ("tess",)

    def test_of_an_unknown_creator_nobody_counts_under_four_eyes(self):
        assert counted(review("alice"), creator="") == ()
        without = replace(POLICY, four_eyes=False)
        assert counted(review("alice"), creator="", policy=without) == ("alice",)

    def test_who_lost_the_role_does_not_count_any_more(self):
        gone = Policy(users={"bob": REVIEWER})
        assert counted(review("alice"), review("bob"), policy=gone) == ("bob",)

    def test_who_is_not_on_the_list_of_the_task_does_not_count(self):
        listed = replace(POLICY, tasks={"animals": TaskReview(reviewers=frozenset({"bob"}))})
        assert counted(review("alice"), review("bob"), policy=listed) == ("bob",)

    def test_what_only_the_operating_system_vouches_for_does_not_count_on_the_server(self):
        version = replace(VERSION, reviews=(review("alice", how=LOCAL),))
        assert approvals(version, POLICY) == ()
        assert approvals(version, POLICY, authentication=LOCAL) == ("alice",)

    def test_a_version_without_digest_or_source_has_no_approvals(self):
        assert counted(review("alice", adapter=""), adapter="") == ()
        assert counted(review("alice", source=""), source="") == ()


class TestRejections:
    def test_anybody_s_rejection_closes_for_good(self):
        gone = review("somebody who left", REJECTED)
        version = replace(VERSION, reviews=(review("alice"), gone, review("bob")))
        assert rejected(version) == (gone,)
        assert not tally(version, POLICY).reached

    def test_bytes_that_changed_do_not_lift_it(self):
        version = replace(VERSION, adapter=B, reviews=(review("alice", REJECTED),))
        assert rejected(version)

    def test_it_is_about_one_version_not_about_its_number(self):
        again = replace(VERSION, source=TWO, reviews=(review("alice", REJECTED),))
        assert rejected(again) == ()

    def test_an_old_entry_without_source_counts_for_the_same_bytes(self):
        old = review("alice", REJECTED, source="")
        assert rejected(replace(VERSION, reviews=(old,)))
        assert not rejected(replace(VERSION, adapter=B, reviews=(old,)))


class TestTally:
    def test_it_says_how_far_the_review_is(self):
        two = replace(POLICY, quorum=2)
        none = tally(VERSION, two)
        one = tally(replace(VERSION, reviews=(review("bob"),)), two)
        both = tally(replace(VERSION, reviews=(review("bob"), review("alice"))), two)
        assert [str(t) for t in (none, one, both)] == [
            "0 of 2",
            "1 of 2: bob",
            "2 of 2: bob, alice",
        ]
        assert [t.reached for t in (none, one, both)] == [False, False, True]

    def test_a_task_may_need_more(self):
        strict = replace(POLICY, tasks={"animals": TaskReview(quorum=2)})
        assert not tally(replace(VERSION, reviews=(review("bob"),)), strict).reached
