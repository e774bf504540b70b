"""The policy as a table of attempts: models, versions, runs, files and users."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clr.registry.acts import Act, Decision, Kind, Principal, State
from clr.registry.names import unsafe_path
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

    def test_an_auditor_changes_nothing(self):
        for kind in set(Kind) - {Kind.READ, Kind.SET_PASSWORD}:
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
        assert who_may(Kind.SET_VERSION_TAG, model=name, name="note") == set()

    @pytest.mark.parametrize("tag", ["review", "clr.verdict", "Review", "mlflow.prompt.is_prompt"])
    def test_a_model_is_born_without_our_tags_and_gets_none(self, tag: str):
        assert who_may(Kind.CREATE_MODEL, tags={tag: "true"}) == set()
        assert who_may(Kind.SET_MODEL_TAG, name=tag, value="true") == set()
        assert who_may(Kind.DELETE_MODEL_TAG, name=tag) == set()
        assert allowed("tess", Kind.CREATE_MODEL, tags={"team": "vision"})

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

    def test_no_review_tag_or_pending_is_right(self):
        for tags in ({"clr.adapter_digest": A}, self.BORN):
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


RUN = "0123456789abcdef" * 2


class TestTracking:
    def test_those_who_run_write(self):
        for kind in (Kind.TRACK, Kind.DELETE_TRACKED, Kind.FINISH_RUN):
            assert who_may(kind) == WORKERS
        for kind in (Kind.WRITE_FILE, Kind.DELETE_FILE):
            assert who_may(kind, path=f"1/{RUN}/artifacts/gate/gate.json") == WORKERS
        assert who_may(Kind.WRITE_FILE, path=f"1/models/m-{RUN}/artifacts/MLmodel") == WORKERS
        assert who_may(Kind.WRITE_FILE, path="artifacts/x", name=f"m-{RUN}") == WORKERS

    @pytest.mark.parametrize(
        "path", ["1", "1/models", "x/page.html", f"1/{RUN}", f"m-{RUN}", f"1/{RUN[:31]}/x"]
    )
    def test_files_belong_to_a_run_or_a_logged_model(self, path: str):
        assert who_may(Kind.WRITE_FILE, path=path) == set()

    def test_what_a_registered_version_stands_on_is_written_once(self):
        registered = State(registered=True)
        for kind in (Kind.TRACK, Kind.DELETE_TRACKED, Kind.WRITE_FILE, Kind.DELETE_FILE):
            assert who_may(kind, registered, path="1/run/artifacts/x") == set()
        assert who_may(Kind.FINISH_RUN, registered) == WORKERS

    @pytest.mark.parametrize(
        "path",
        ["", "/", "/etc/passwd", "..", "1/../2/x", "1//x", "1/x/", "./x", "1/./x", "1\\..\\x",
         "1/x\x00",
         "1/%2e%2e/x", "1/%2E./x", "1%2fx", "1/%252e%252e/x", "1/%5c..", "1/\u2025/x", "1/．．/x",
         "1／..／x", "1/ .. /x", "1/x\n", "1/\u202ex", "1/\ud800", "x" * 1001, "1/＼x"],
    )  # fmt: skip
    def test_a_path_that_could_lead_elsewhere_is_nobody_s(self, path: str):
        for kind in (Kind.WRITE_FILE, Kind.DELETE_FILE):
            assert who_may(kind, path=path) == set()

    @pytest.mark.parametrize(
        "path",
        ["1/a/artifacts/x.json", "0/models/m-1/artifacts/MLmodel", "1/画像/猫.png", "1/50%", "1/…"],
    )
    def test_a_plain_path_is_plain(self, path: str):
        assert not unsafe_path(path)


class TestUsers:
    def test_webhooks_and_rights_come_from_files(self):
        assert who_may(Kind.WEBHOOK) == set()
        for endpoint in (
            "update_user_admin",
            "grant_user_permission",
            "create_role",
            "<lambda>",
            "",
        ):
            assert who_may(Kind.MANAGE_USER, endpoint=endpoint, name="new") == set()

    def test_an_admin_keeps_accounts_that_have_no_role(self):
        for endpoint in ("create_user", "delete_user"):
            assert who_may(Kind.MANAGE_USER, endpoint=endpoint, name="new") == {"ada", "all"}
            for name in ("alice", "ada", "admin", "clr-release", ""):
                assert who_may(Kind.MANAGE_USER, endpoint=endpoint, name=name) == set()
            has = State(user_roles=frozenset({"reviewer"}))
            assert who_may(Kind.MANAGE_USER, has, endpoint=endpoint, name="new") == set()

    @pytest.mark.parametrize("name", ["Alice", "a b", "аlice", "alice\n", "-a", "a" * 64])
    def test_an_account_cannot_be_named_like_somebody_else(self, name: str):
        assert who_may(Kind.MANAGE_USER, endpoint="create_user", name=name) == set()
        assert who_may(Kind.MANAGE_USER, endpoint="delete_user", name=name) == {"ada", "all"}

    def test_everybody_sets_his_own_password_and_nobody_another_s(self):
        for who in set(PEOPLE) - {"nina"}:
            assert who_may(Kind.SET_PASSWORD, name=who) == {who}
        assert who_may(Kind.SET_PASSWORD, name="nina") == {"ada", "all"}
        assert who_may(Kind.SET_PASSWORD, name="") == set()

    def test_the_password_of_a_service_is_set_on_the_machine(self):
        for who in ("clr-trainer", "clr-release"):
            assert "clr users passwd" in refused(who, Kind.SET_PASSWORD, name=who)
        assert allowed("admin", Kind.SET_PASSWORD, name="admin")
