"""The policy as a table of attempts: who reviews, and which tags are whose."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest

from clr.registry.acts import Act, Kind, Principal, State
from clr.registry.policy import decide
from clr.registry.roles import Policy, TaskReview
from tests.registry.people import (
    NOW,
    POLICY,
    R1,
    R2,
    SERVING,
    VERSION,
    WORKERS,
    A,
    B,
    allowed,
    approve,
    ask,
    refused,
    who_may,
)


class TestReview:
    def test_reviewers_approve_and_reject_what_others_registered(self):
        for value in ("approved", "rejected"):
            reviewers = {"alice", "bob", "carol", "all"}
            assert who_may(Kind.SET_VERSION_TAG, name="review", value=value) == reviewers
            assert who_may(Kind.SET_VERSION_TAG, name="review.reason", value=value) == reviewers

    @pytest.mark.parametrize("text", ["Approved", " approve ", "承認", "ＡＰＰＲＯＶＥＤ"])
    def test_a_word_in_another_hand_is_stored_plainly(self, text: str):
        assert ask("alice", Kind.SET_VERSION_TAG, name="review", value=text).value == "approved"
        assert ask("alice", Kind.SET_VERSION_TAG, name="review", value="却下").value == "rejected"
        assert ask("alice", Kind.SET_VERSION_TAG, name="note", value=text).value == ""

    @pytest.mark.parametrize("text", ["aproved", "yes", "", "not approved", "<script>", "x" * 5001])
    def test_a_wrong_word_is_told_the_right_ones(self, text: str):
        said = refused("alice", Kind.SET_VERSION_TAG, name="review", value=text)
        assert "approved" in said or "5000" in said

    def test_pending_is_the_server_s(self):
        said = refused("alice", Kind.SET_VERSION_TAG, name="review", value="pending")
        assert "server alone" in said

    @pytest.mark.parametrize("name", ["review", "review.reason"])
    def test_nobody_decides_on_his_own_work(self, name: str):
        for who in ("carol", "all"):
            own = State(version=replace(VERSION, creator=who))
            for value in ("approved", "rejected"):
                said = refused(who, Kind.SET_VERSION_TAG, own, name=name, value=value)
                assert "four eyes" in said
                assert "alice" in said, "says who can be asked"
            assert allowed("alice", Kind.SET_VERSION_TAG, own, name=name, value="approved")

    def test_four_eyes_can_be_switched_off(self):
        own = State(version=replace(VERSION, creator="carol"))
        alone = replace(POLICY, four_eyes=False)
        about = {"name": "review", "value": "approved"}
        assert ask("carol", Kind.SET_VERSION_TAG, own, alone, **about).allowed
        assert not ask("tess", Kind.SET_VERSION_TAG, NOW, alone, **about).allowed

    def test_where_the_creator_is_unknown_nothing_is_approved_but_it_can_be_closed(self):
        unknown = State(version=replace(VERSION, creator=""))
        said = refused("alice", Kind.SET_VERSION_TAG, unknown, name="review", value="approved")
        assert "nobody knows who registered it" in said
        assert allowed("alice", Kind.SET_VERSION_TAG, unknown, name="review", value="rejected")
        alone = replace(POLICY, four_eyes=False)
        about = {"name": "review", "value": "approved"}
        assert ask("alice", Kind.SET_VERSION_TAG, unknown, alone, **about).allowed

    def test_a_task_s_list_keeps_others_out(self):
        listed = replace(POLICY, tasks={"animals": TaskReview(reviewers=frozenset({"bob"}))})
        about = {"name": "review", "value": "approved"}
        assert not ask("alice", Kind.SET_VERSION_TAG, NOW, listed, **about).allowed
        assert ask("bob", Kind.SET_VERSION_TAG, NOW, listed, **about).allowed

    def test_roles_of_the_principal_count_not_only_the_list(self):
        about = Act(Kind.SET_VERSION_TAG, model="clr-animals", version=1, name="review")
        act = replace(about, value="approved")
        assert not decide(act, Principal("alice", frozenset({"trainer"})), NOW, POLICY).allowed
        assert not decide(act, Principal("eve", frozenset({"reviewer"})), NOW, POLICY).allowed

    @pytest.mark.parametrize(
        "facts",
        [{"verdict": "refused"}, {"verdict": ""}, {"verdict": "Passed"}, {"actual": B},
         {"actual": ""},
         {"adapter": ""}, {"adapter": "", "actual": ""}, {"source": ""},
         {"reviews": (approve("bob", decision="rejected"),)},
         {"reviews": (approve("alice", decision="rejected"), approve("alice"))}],
    )  # fmt: skip
    def test_only_what_passed_and_is_whole_and_open_is_approved(self, facts: dict[str, object]):
        version = State(version=replace(VERSION, **facts))  # type: ignore[arg-type]
        assert who_may(Kind.SET_VERSION_TAG, version, name="review", value="approved") == set()
        assert allowed("bob", Kind.SET_VERSION_TAG, version, name="review", value="rejected")

    def test_a_rejection_is_quoted_to_who_approves_after_it(self):
        closed = replace(approve("bob", decision="rejected"), reason="blurred <b>images</b>")
        state = State(version=replace(VERSION, reviews=(closed,)))
        said = refused("alice", Kind.SET_VERSION_TAG, state, name="review", value="approved")
        assert "rejected by bob" in said
        assert "blurred" in said

    def test_what_serves_is_not_rejected_but_replaced(self):
        serves = State(version=VERSION, serving=replace(SERVING, tasks={"animals": (1, A)}))
        aliased = State(version=VERSION, aliases={"champion": 1})
        for state in (serves, aliased):
            said = refused("alice", Kind.SET_VERSION_TAG, state, name="review", value="rejected")
            assert "clr rollback" in said
        other = State(version=VERSION, serving=replace(SERVING, tasks={"animals": (2, A)}))
        assert allowed("alice", Kind.SET_VERSION_TAG, other, name="review", value="rejected")

    def test_a_release_is_not_reviewed(self):
        state = State(version=replace(VERSION, model="clr-release"), target=SERVING)
        about = {"model": "clr-release", "name": "review", "value": "approved"}
        assert who_may(Kind.SET_VERSION_TAG, state, **about) == set()

    @pytest.mark.parametrize("tag", ["review", "review.reason", "clr.verdict", "clr.created_by"])
    def test_what_was_decided_cannot_be_removed(self, tag: str):
        assert who_may(Kind.DELETE_VERSION_TAG, name=tag) == set()


class TestTags:
    @pytest.mark.parametrize(
        "tag",
        ["clr.verdict", "clr.adapter_digest", "clr.created_by", "clr.reviewed_by", "clr.approvals",
         "clr.key", "clr.anything", "mlflow.prompt.is_prompt", "reviewer", "review.extra"],
    )  # fmt: skip
    def test_evidence_is_nobody_s(self, tag: str):
        assert who_may(Kind.SET_VERSION_TAG, name=tag, value="x") == set()

    @pytest.mark.parametrize(
        ("real", "key"),
        [
            *[("review", one) for one in (
                "Review", "REVIEW", " review", "review ", "review.", "ｒｅｖｉｅｗ", "rеview",
                "rev1ew", "re\u200bview", "ŕeview", "reνiew", "revıew",
            )],
            ("review.reason", "review_reason"), ("review.reason", "review reason"),
            ("clr.verdict", "clr_verdict"), ("clr.verdict", "Clr.Verdict"),
            ("clr.verdict", "c1r.verdict"), ("clr.verdict", "clr.verdict\u2060"),
            ("clr.reviewed_by", "clr/reviewed-by"), ("clr.…", "сlr.x"),
        ],
    )  # fmt: skip
    def test_look_alikes_are_asked_back(self, key: str, real: str):
        for kind in (Kind.SET_VERSION_TAG, Kind.SET_MODEL_TAG, Kind.DELETE_VERSION_TAG):
            assert who_may(kind, name=key, value="approved") == set()
            assert f"Did you mean `{real}`?" in refused("alice", kind, name=key, value="approved")

    @pytest.mark.parametrize(
        "key", ["note", "備考", "ticket:42", "overview", "clear.day", "k" * 250]
    )
    def test_tags_of_one_s_own_are_free(self, key: str):
        for kind in (Kind.SET_VERSION_TAG, Kind.DELETE_VERSION_TAG, Kind.SET_MODEL_TAG):
            assert who_may(kind, name=key, value="<b>5</b>") == WORKERS | {"alice", "bob"}

    @pytest.mark.parametrize("key", ["champion", "Champion", "candidate", "chаmpion"])
    def test_a_tag_that_passes_for_an_alias_is_refused(self, key: str):
        assert who_may(Kind.SET_VERSION_TAG, name=key, value="true") == set()
        assert "alias" in refused("alice", Kind.SET_VERSION_TAG, name=key, value="true")

    def test_what_does_not_fit_is_refused(self):
        values = ("v" * 1_000_000, "a\0b", "\ud800", "\udfff")
        for act in (
            {"name": ""},
            {"name": "k" * 251},
            *({"name": "k", "value": v} for v in values),
        ):
            assert who_may(Kind.SET_VERSION_TAG, **act) == set()

    def test_the_service_writes_what_a_gate_run_anew_found(self):
        for name, value in (
            ("clr.gate_digest", A), ("clr.router_digest", B), ("clr.router_digest", ""),
            ("clr.gate_release", R1), ("clr.promotion", "refused: the gate does not pass"),
        ):  # fmt: skip
            assert who_may(Kind.SET_VERSION_TAG, name=name, value=value) == {"ruth", "all"}
            assert who_may(Kind.DELETE_VERSION_TAG, name=name) == set()
            about = {"model": "clr-release", "name": name, "value": value}
            assert who_may(Kind.SET_VERSION_TAG, **about) == set()

    def test_but_only_about_the_release_that_serves(self):
        for value in ("", R2, R1.upper()):
            assert not allowed("ruth", Kind.SET_VERSION_TAG, name="clr.gate_release", value=value)
        first = State(version=VERSION)
        assert allowed("ruth", Kind.SET_VERSION_TAG, first, name="clr.gate_release", value="")
        assert not allowed("ruth", Kind.SET_VERSION_TAG, name="clr.gate_digest", value="passed")


def test_sentences_never_address_a_user_in_capitals():
    for letter in string.ascii_lowercase[:3]:
        policy = Policy(users={letter: frozenset({"trainer"})})
        about = {"name": "review", "value": "approved"}
        decision = decide(
            Act(Kind.SET_VERSION_TAG, model="clr-animals", version=1, **about),
            policy.principal(letter), NOW, policy,
        )  # fmt: skip
        assert decision.sentence.startswith(f"{letter} may not")
