"""The policy as a table of attempts: models and versions, and what holds for everybody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clr.registry.acts import Act, Decision, Kind, Principal, State
from clr.registry.policy import _RULES, decide
from tests.registry.people import (
    NEXT,
    NOW,
    OTHER,
    PEOPLE,
    POLICY,
    SERVING,
    SOURCE,
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


class TestWhoever:
    def test_without_a_role_nothing_is_open_not_even_reading(self):
        for kind in Kind:
            assert "no role" in refused("nina", kind)
            assert "no role" in decide(Act(kind), Principal(""), NOW, POLICY).sentence

    def test_everybody_with_a_role_reads(self):
        assert who_may(Kind.READ) == set(PEOPLE) - {"nina"}
        assert who_may(Kind.EXPORT) == set(PEOPLE) - {"nina"}

    def test_an_auditor_changes_nothing(self):
        for kind in set(Kind) - {Kind.READ, Kind.EXPORT, Kind.SET_PASSWORD}:
            for name in ("review", "note", "candidate", "champion", "otto"):
                assert not allowed(
                    "otto", kind, name=name, value="approved", path="1/r/artifacts/x"
                )

    def test_roles_add_up_so_an_auditor_who_also_trains_may_train(self):
        assert allowed("odd", Kind.TRACK)

    def test_every_kind_has_a_rule_and_an_unknown_one_is_refused(self):
        assert set(_RULES) == set(Kind)
        act = replace(Act(Kind.READ, endpoint="_new_handler"), kind="invented")
        decision = decide(act, POLICY.principal("all"), NOW, POLICY)
        assert not decision.allowed
        assert "_new_handler" in decision.sentence

    def test_what_nobody_has_thought_about_nobody_may(self):
        assert who_may(Kind.OTHER, endpoint="_delete_everything") == set()
        assert "_delete_everything" in refused("ada", Kind.OTHER, endpoint="_delete_everything")

    def test_nobody_may_anything_about_a_version_that_is_not_there(self):
        nothing = State()
        for name in ("review", "review.reason", "clr.gate_digest", "clr.promotion"):
            assert who_may(Kind.SET_VERSION_TAG, nothing, name=name, value="approved") == set()
        for name in ("candidate", "challenger", "champion", "previous"):
            for model in ("clr-animals", "clr-release"):
                assert who_may(Kind.SET_ALIAS, nothing, name=name, model=model) == set()
        assert who_may(Kind.DELETE_VERSION, nothing) == set()

    def test_hostile_texts_come_back_cut_and_visible(self):
        bad = "<script>\u202e\x00" + "x" * 1_000_000
        for kind in Kind:
            for who in ("all", "alice"):
                ask(who, kind, name=bad, value=bad, path=bad, source=bad, endpoint=bad)
                ask(who, kind, model=bad, tags={bad: bad})


class TestModels:
    def test_a_trainer_makes_the_model_of_a_task_the_service_that_of_the_releases(self):
        assert who_may(Kind.CREATE_MODEL) == {"tess", "carol", "odd", "all"}
        assert who_may(Kind.CREATE_MODEL, model="clr-release") == {"ruth", "all"}

    @pytest.mark.parametrize(
        "name",
        ["animals", "clr-", "clr-Animals", "clr-animals ", " clr-animals", "clr-animals\n", "CLR-x",
         "clr_animals", "clr--x", "clr-a/b", "clr-ａ", "clr-а", "clr-animals\u200b",
         "clr-" + "a" * 64,
         "clr-release.", "clr-Release", "сlr-animals", ""],
    )  # fmt: skip
    def test_other_names_are_nobody_s(self, name: str):
        assert who_may(Kind.CREATE_MODEL, model=name) == set()
        assert who_may(Kind.CREATE_VERSION, model=name, source=SOURCE) == set()
        assert who_may(Kind.SET_ALIAS, model=name, name="champion") == set()
        for kind in (Kind.SET_VERSION_TAG, Kind.DELETE_VERSION_TAG, Kind.SET_MODEL_TAG):
            assert who_may(kind, model=name, name="note") == set()
        assert who_may(Kind.UPDATE_MODEL, model=name) == set()

    @pytest.mark.parametrize(
        "tag", ["review", "clr.verdict", "Review", "mlflow.prompt.is_prompt", "champion", "k" * 251]
    )
    def test_a_model_is_born_without_our_tags_and_gets_none(self, tag: str):
        assert who_may(Kind.CREATE_MODEL, tags={tag: "true"}) == set()
        assert who_may(Kind.SET_MODEL_TAG, name=tag, value="true") == set()
        assert who_may(Kind.DELETE_MODEL_TAG, name=tag) == set()
        assert allowed("tess", Kind.CREATE_MODEL, tags={"team": "vision"})
        assert not allowed("tess", Kind.CREATE_MODEL, tags={"team": "x" * 5001})
        assert not allowed("tess", Kind.SET_MODEL_TAG, name="team", value="x" * 5001)

    def test_those_who_work_describe_it(self):
        for kind in (Kind.UPDATE_MODEL, Kind.SET_MODEL_TAG, Kind.DELETE_MODEL_TAG):
            assert who_may(kind, name="team") == WORKERS | {"alice", "bob"}
        assert "6000 characters" in refused("tess", Kind.UPDATE_MODEL, value="x" * 6000)

    def test_nobody_renames(self):
        assert who_may(Kind.RENAME_MODEL, name="clr-cats") == set()

    def test_an_admin_deletes_what_never_served_and_nobody_reviewed(self):
        fresh = State(model_reviewed=False)
        assert who_may(Kind.DELETE_MODEL, fresh) == {"ada", "all"}
        assert who_may(Kind.DELETE_MODEL, replace(fresh, model_ever_champion=True)) == set()
        assert who_may(Kind.DELETE_MODEL, replace(fresh, model_reviewed=True)) == set()
        assert who_may(Kind.DELETE_MODEL, State()) == set(), "not looked up counts as reviewed"


class TestRegistration:
    BORN = {"clr.adapter_digest": A, "clr.verdict": "passed", "review": "pending", "team": "vision"}
    HERE = State(actual=A)

    def make(self, who: str = "tess", state: State | None = None, **act: object) -> Decision:
        about = {"source": SOURCE, "tags": self.BORN, "version": 0, **act}
        return ask(who, Kind.CREATE_VERSION, state or self.HERE, **about)  # type: ignore[arg-type]

    def test_trainers_register_adapters_and_the_service_releases(self):
        assert {who for who in PEOPLE if self.make(who).allowed} == {"tess", "carol", "odd", "all"}
        release = {"model": "clr-release", "tags": {"clr.release_digest": A}}
        assert {who for who in PEOPLE if self.make(who, **release).allowed} == {"ruth", "all"}

    def test_the_file_must_have_the_digest_that_the_tag_says(self):
        for state in (State(), State(actual=B)):
            assert not self.make(state=state).allowed
        for digest in ("", "sha256:", "a" * 64, A.upper()):
            tags = {**self.BORN, "clr.adapter_digest": digest}
            assert not self.make(state=State(actual=digest), tags=tags).allowed
        assert not self.make("ruth", model="clr-release", tags={"clr.adapter_digest": A}).allowed

    @pytest.mark.parametrize(
        "source",
        ["", "m-1", "runs:/abc/model", "file:///etc/passwd", "s3://bucket/x", "mlflow-artifacts:/1",
         "models:/m-1/", "models:/m-1/..", "models:/m-XY", "models:/m-1\n", "Models:/m-1"],
    )  # fmt: skip
    def test_other_sources_are_not_written_once(self, source: str):
        assert not self.make(source=source).allowed
        assert "Promote model" not in self.make(source=source).sentence

    @pytest.mark.parametrize("source", ["models:/clr-animals/3", "models:/clr-animals@champion"])
    def test_a_copy_by_the_button_is_told_what_to_do_instead(self, source: str):
        for kind in (Kind.CREATE_VERSION, Kind.COPY_VERSION):
            said = refused("alice", kind, source=source, model="production")
            assert "Promote model" in said
            assert "`review` to `approved`" in said
            assert "clr-animals" in said
            assert who_may(kind, source=source) == set()

    @pytest.mark.parametrize(
        "tags",
        [
            {"clr.created_by": "pending"}, {"review.reason": "pending"},
            {"review": "approved"}, {"review": ""}, {"review": "Pending"}, {"Review": "approved"},
            {"ｒｅｖｉｅｗ": "approved"}, {"review.reason": "good"}, {"reviewed_by": "alice"},
            {"clr.created_by": "alice"}, {"clr.reviewed_by": "alice"}, {"clr.reviewed_at": "now"},
            {"clr.approvals": "1 of 1: alice"}, {"clr.promotion": "release 3"},
            {"CLR.created_by": "alice"}, {"clr.created-by": "x"}, {"clr.": "x"}, {"clr .x": "x"},
            {"mlflow.x": "1"}, {"": "x"}, {"k" * 251: "x"}, {"note": "x" * 5001},
        ],
    )  # fmt: skip
    def test_nothing_is_decided_at_birth(self, tags: dict[str, str]):
        assert not self.make("all", tags={**self.BORN, **tags}).allowed

    def test_no_review_tag_or_pending_is_right_and_evidence_may_grow(self):
        for tags in ({"clr.adapter_digest": A}, self.BORN, {**self.BORN, "clr.new_fact": "x"}):
            assert self.make(tags=tags).allowed

    def test_the_card_has_at_most_5000_characters(self):
        assert not self.make(value="x" * 5001).allowed

    def test_the_description_is_the_card_and_stays(self):
        assert who_may(Kind.UPDATE_VERSION, value="Best ever") == set()
        assert "review.reason" in refused("alice", Kind.UPDATE_VERSION)

    def test_stages_decide_nothing(self):
        assert who_may(Kind.STAGE_VERSION, value="Production") == set()
        assert "`review` to `approved`" in refused("alice", Kind.STAGE_VERSION, value="Production")


class TestDeletion:
    def test_an_admin_deletes_what_never_served(self):
        assert who_may(Kind.DELETE_VERSION) == {"ada", "all"}

    def test_a_trainer_takes_back_his_own_double(self):
        double = State(version=replace(VERSION, twin=True))
        assert who_may(Kind.DELETE_VERSION, double) == {"tess", "ada", "all"}
        assert "reviewer sets its tag" in refused("carol", Kind.DELETE_VERSION, double)
        lost_the_role = State(version=replace(VERSION, twin=True, creator="alice"))
        assert not allowed("alice", Kind.DELETE_VERSION, lost_the_role)

    @pytest.mark.parametrize(
        "state",
        [
            State(version=replace(VERSION, twin=True, ever_champion=True)),
            State(version=replace(VERSION, twin=True, reviews=(approve("alice"),))),
            State(version=replace(VERSION, twin=True, reviews=(approve("x", source=OTHER),))),
            State(version=replace(VERSION, twin=True), aliases={"candidate": 1}),
        ],
    )
    def test_what_was_reviewed_or_served_or_is_pointed_at_stays(self, state: State):
        assert who_may(Kind.DELETE_VERSION, state) == set()

    def test_releases_that_served_stay(self):
        about = {"model": "clr-release"}
        mine = replace(VERSION, model="clr-release", creator="ruth", twin=True)
        assert who_may(Kind.DELETE_VERSION, State(mine), **about) == set()
        assert who_may(Kind.DELETE_VERSION, State(mine, target=SERVING), **about) == set()
        unserved = State(mine, target=replace(NEXT, number=1))
        assert who_may(Kind.DELETE_VERSION, unserved, **about) == {"ruth", "ada", "all"}
