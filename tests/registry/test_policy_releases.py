"""The policy as a table of attempts: who moves which alias, and what may serve."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clr.registry.acts import Kind, ReleaseFacts, State, VersionFacts
from clr.registry.policy_releases import moving, unready
from clr.registry.roles import Policy, TaskReview
from tests.registry.people import (
    NEXT,
    NOW,
    OTHER,
    PEOPLE,
    POLICY,
    R1,
    R2,
    SERVING,
    SOURCE,
    VERSION,
    A,
    B,
    C,
    allowed,
    approve,
    refused,
    who_may,
)

READY = replace(VERSION, gate_release=R1, reviews=(approve("alice"),))
PROMOTION = State(serving=SERVING, target=NEXT, joining={"animals": READY})
TO_SERVE = {"model": "clr-release", "version": 2, "name": "champion"}


def alias(name: str, state: State = NOW, **act: object) -> set[str]:
    return who_may(Kind.SET_ALIAS, state, name=name, **act)


class TestByHand:
    @pytest.mark.parametrize("who", ["ada", "alice", "tess", "carol"])
    @pytest.mark.parametrize("name", ["champion", "previous"])
    def test_nobody_but_the_service_moves_them_and_is_told_the_way(self, who: str, name: str):
        said = refused(who, Kind.SET_ALIAS, name=name, version=3)
        assert f"`{name}` of clr-animals is moved by the release service alone" in said
        assert "To promote version 3" in said
        assert "`review` to `approved`" in said

    @pytest.mark.parametrize("who", ["ada", "alice", "tess", "carol"])
    def test_nor_what_is_on_trial(self, who: str):
        said = refused(who, Kind.SET_ALIAS, name="challenger", version=3)
        assert "`challenger` of clr-animals is moved by the release service alone" in said
        assert "`clr ab start animals 3`" in said

    def test_nor_what_serves(self):
        said = refused("ada", Kind.SET_ALIAS, PROMOTION, **TO_SERVE)
        assert "decides what serves" in said
        assert "clr rollback" in said

    @pytest.mark.parametrize(
        "name",
        ["Champion", "CHAMPION", "champion ", "chаmpion", "ｃｈａｍｐｉｏｎ", "champ1on",
         "champion\n", "cham\u200bpion", "Candidate", "Previous", "challenger."],
    )  # fmt: skip
    def test_case_tricks_and_look_alikes_are_asked_back(self, name: str):
        for model in ("clr-animals", "clr-release"):
            assert alias(name, PROMOTION, model=model) == set()
            assert "Did you mean" in refused("ruth", Kind.SET_ALIAS, name=name, model=model)

    @pytest.mark.parametrize("name", ["production", "latest", "v1", "", "x" * 100_000])
    def test_other_aliases_are_not_in_use(self, name: str):
        assert alias(name) == set()


class TestOfATask:
    def test_candidate_is_set_by_the_pipeline_for_what_passed_and_is_open(self):
        workers = {"tess", "carol", "odd", "ruth", "all"}
        assert alias("candidate") == workers
        assert alias("candidate", model="clr-release") == set()
        rejected = (approve("bob", decision="rejected"),)
        for facts in ({"verdict": "refused"}, {"reviews": rejected}):
            assert alias("candidate", State(version=replace(VERSION, **facts))) == set()
        assert who_may(Kind.DELETE_ALIAS, name="candidate") == workers

    def test_challenger_is_tried_by_the_role_release_if_it_passed_and_nobody_rejected_it(self):
        assert alias("challenger", State(version=VERSION)) == {"ruth", "all"}
        rejected = (approve("bob", decision="rejected"),)
        for facts in ({"actual": B}, {"verdict": "refused"}, {"reviews": rejected}):
            assert alias("challenger", State(version=replace(VERSION, **facts))) == set()
        serves = State(VERSION, serving=replace(SERVING, tasks={"animals": (1, A)}))
        assert alias("challenger", serves) == set(), "against itself"
        tried = State(VERSION, {"challenger": 2}, SERVING)
        assert alias("challenger", tried) == set(), "a task has one trial at a time"
        assert "clr ab stop animals" in refused("ruth", Kind.SET_ALIAS, tried, name="challenger")
        again = State(VERSION, {"challenger": 1}, SERVING)
        assert alias("challenger", again) == {"ruth", "all"}
        assert who_may(Kind.DELETE_ALIAS, name="challenger") == {"ruth", "all"}

    def test_champion_repeats_the_release_that_serves(self):
        serves = replace(SERVING, tasks={"animals": (1, A)})
        assert alias("champion", State(VERSION, serving=serves)) == {"ruth", "all"}
        for tasks in ({"animals": (2, A)}, {"animals": (1, B)}, {"vehicles": (1, A)}, {}):
            wrong = State(VERSION, serving=replace(SERVING, tasks=tasks))
            assert alias("champion", wrong) == set()
        assert alias("champion", State(VERSION)) == set(), "nothing serves"
        blank = replace(serves, tasks={"animals": (1, "")})
        assert alias("champion", State(replace(VERSION, adapter=""), serving=blank)) == set()
        assert alias("champion", State(replace(VERSION, number=2), serving=serves)) == set()

    def test_and_is_removed_only_where_the_release_names_the_task_no_more(self):
        serves = State(VERSION, serving=replace(SERVING, tasks={"animals": (2, A)}))
        assert who_may(Kind.DELETE_ALIAS, serves, name="champion") == set()
        assert "clr retire" in refused("ruth", Kind.DELETE_ALIAS, serves, name="champion")
        for retired in (NOW, State(VERSION)):
            assert who_may(Kind.DELETE_ALIAS, retired, name="champion") == {"ruth", "all"}
        assert who_may(Kind.DELETE_ALIAS, serves, name="previous") == {"ruth", "all"}

    def test_previous_is_a_version_that_served(self):
        assert alias("previous") == set()
        served = State(version=replace(VERSION, ever_champion=True))
        assert alias("previous", served) == {"ruth", "all"}
        assert who_may(Kind.DELETE_ALIAS, served, name="previous") == {"ruth", "all"}

    def test_what_has_no_meaning_here_an_admin_may_clear_away(self):
        assert who_may(Kind.DELETE_ALIAS, name="Champion") == {"ada", "all"}


class TestOfTheReleases:
    def test_their_aliases_are_moved_and_never_removed(self):
        for name in ("champion", "previous", "candidate", "challenger"):
            assert who_may(Kind.DELETE_ALIAS, PROMOTION, model="clr-release", name=name) == set()

    def test_previous_is_what_serves_until_the_next_one_does(self):
        about = {"model": "clr-release", "state": PROMOTION}
        assert alias("previous", version=1, **about) == {"ruth", "all"}
        assert alias("previous", version=2, **about) == set()
        assert alias("previous", State(target=NEXT), model="clr-release", version=2) == set()

    def test_a_release_is_no_candidate_and_no_challenger(self):
        for name in ("candidate", "challenger"):
            assert alias(name, PROMOTION, model="clr-release", version=2) == set()


def newcomer(**facts: object) -> State:
    return replace(PROMOTION, joining={"animals": replace(READY, **facts)})  # type: ignore[arg-type]


def release(**facts: object) -> State:
    return replace(PROMOTION, target=replace(NEXT, **facts))  # type: ignore[arg-type]


class TestPromotion:
    def test_one_reviewed_newcomer_on_top_of_what_serves(self):
        assert who_may(Kind.SET_ALIAS, PROMOTION, **TO_SERVE) == {"ruth", "all"}

    def test_the_first_release_follows_nothing(self):
        first = replace(NEXT, number=2, previous="", tasks={"animals": (1, A)})
        state = State(target=first, joining={"animals": replace(READY, gate_release="")})
        assert allowed("ruth", Kind.SET_ALIAS, state, **TO_SERVE)
        assert not moving(2, state, POLICY)
        assert moving(2, replace(state, target=replace(first, previous=R1)), POLICY)
        assert "judged against another" in moving(
            2, replace(state, joining={"animals": READY}), POLICY
        )

    def test_told_again_after_a_crash_it_is_no_second_move(self):
        again = State(serving=SERVING, target=SERVING)
        assert moving(1, again, POLICY) == ""

    @pytest.mark.parametrize(
        "facts",
        [
            {"verdict": "refused"}, {"verdict": ""},
            {"adapter": B}, {"actual": B}, {"actual": ""}, {"adapter": B, "actual": B},
            {"adapter": "", "actual": ""}, {"source": OTHER}, {"source": ""},
            {"gate_release": ""}, {"gate_release": R2},
            {"creator": "alice"}, {"creator": ""},
            {"number": 2}, {"model": "clr-vehicles"}, {"model": "animals"},
            {"reviews": ()},
            {"reviews": (approve("tess"),)}, {"reviews": (approve("ada"),)},
            {"reviews": (approve("gone"),)}, {"reviews": (approve("clr-release"),)},
            {"reviews": (approve("alice", adapter=B),)},
            {"reviews": (approve("alice", source=OTHER),)},
            {"reviews": (replace(approve("alice"), authentication="local-os-user"),)},
            {"reviews": (replace(approve("alice"), decision="Approved"),)},
            {"reviews": (approve("alice"), approve("bob", decision="rejected"))},
            {"reviews": (approve("bob", decision="rejected"), approve("alice"))},
            {"reviews": (approve("alice"), approve("gone", decision="rejected"))},
            {"reviews": (approve("alice"), approve("bob", B, decision="rejected"))},
        ],
    )  # fmt: skip
    def test_nothing_less(self, facts: dict[str, object]):
        assert who_may(Kind.SET_ALIAS, newcomer(**facts), **TO_SERVE) == set()

    def test_a_version_that_is_not_there_does_not_serve(self):
        for joining in ({}, {"animals": None}, {"vehicles": READY}):
            state = replace(PROMOTION, joining=joining)
            assert who_may(Kind.SET_ALIAS, state, **TO_SERVE) == set()

    @pytest.mark.parametrize(
        ("facts", "why"),
        [
            ({"actual": B}, "bytes"), ({"digest": ""}, "bytes"),
            ({"digest": "", "actual": ""}, "bytes"),
            ({"number": 3}, "no release 2"),
            ({"previous": ""}, "another promotion"), ({"previous": R2}, "another promotion"),
            ({"tasks": {"vehicles": (1, C), "animals": (1, B)}}, "other adapter bytes"),
            ({"tasks": {"vehicles": (1, C), "animals": (2, A)}}, "not there"),
            ({"tasks": {"animals": (1, A)}}, "drops vehicles at once"),
            ({"tasks": {"vehicles": (1, C), "animals": (1, A), "caps": (1, B)}}, "one after"),
            ({"tasks": {"vehicles": (1, C)}}, "nothing"),
            ({"tasks": {"vehicles": (1, B)}}, "not there"),
            ({"backbone": B}, "backbone"),
        ],
    )  # fmt: skip
    def test_on_top_of_what_serves_and_in_one_step(self, facts: dict[str, object], why: str):
        assert who_may(Kind.SET_ALIAS, release(**facts), **TO_SERVE) == set()
        assert why in refused("ruth", Kind.SET_ALIAS, release(**facts), **TO_SERVE)

    def test_nothing_is_built_on_a_release_whose_bytes_changed(self):
        state = replace(PROMOTION, serving=replace(SERVING, actual=B))
        assert "Roll back first" in refused("ruth", Kind.SET_ALIAS, state, **TO_SERVE)

    def test_a_new_version_replaces_the_one_that_serves(self):
        serving = replace(SERVING, tasks={"vehicles": (1, C), "animals": (4, B)})
        assert not moving(2, replace(PROMOTION, serving=serving), POLICY)

    def test_an_older_version_comes_back_only_by_review_and_fresh_gate(self):
        serving = replace(SERVING, tasks={"vehicles": (1, C), "animals": (2, B)})
        stale = replace(newcomer(gate_release=R2, ever_champion=True), serving=serving)
        assert moving(2, stale, POLICY)
        assert not moving(2, replace(stale, joining={"animals": READY}), POLICY)


class TestQuorum:
    TWO = replace(POLICY, quorum=2)

    def missing(self, policy: Policy, *who: str, creator: str = "tess") -> str:
        reviews = tuple(approve(one) for one in who)
        return moving(2, newcomer(reviews=reviews, creator=creator), policy)

    def test_different_people_make_it(self):
        assert "0 of the 2" in self.missing(self.TWO)
        assert "1 (alice) of the 2" in self.missing(self.TWO, "alice")
        assert self.missing(self.TWO, "alice", "alice")
        assert not self.missing(self.TWO, "alice", "bob")

    def test_the_creator_is_none_of_them(self):
        assert self.missing(self.TWO, "alice", "carol", creator="carol")
        assert not self.missing(self.TWO, "alice", "bob", "carol", creator="carol")
        alone = replace(self.TWO, four_eyes=False)
        assert not self.missing(alone, "alice", "carol", creator="carol")

    def test_who_lost_the_role_since_counts_no_more(self):
        users = {name: frozenset(roles) for name, roles in PEOPLE.items() if name != "alice"}
        assert self.missing(replace(self.TWO, users=users), "alice", "bob")
        retrained = {**POLICY.users, "alice": frozenset({"trainer"})}
        assert self.missing(replace(self.TWO, users=retrained), "alice", "bob")

    def test_a_task_may_ask_for_more_and_for_certain_people(self):
        strict = replace(POLICY, tasks={"animals": TaskReview(2, frozenset({"bob", "carol"}))})
        assert self.missing(strict, "alice", "bob")
        assert not self.missing(strict, "carol", "bob")

    def test_unready_says_so_before_there_is_a_release(self):
        assert unready(VERSION, POLICY)
        assert not unready(READY, POLICY)


class TestBack:
    SERVED = ReleaseFacts(2, R2, R2, "", {"animals": (1, A)}, served=True, backbone=B)

    def back(self, joining: VersionFacts | None, **facts: object) -> str:
        state = State(serving=SERVING, target=self.SERVED, joining={"animals": joining})
        return moving(2, replace(state, **facts), POLICY)  # type: ignore[arg-type]

    def test_what_served_serves_again_whatever_gate_and_quorum_say_now(self):
        before = replace(READY, reviews=(), gate_release="", creator="", verdict="")
        assert not self.back(before)
        assert not self.back(before, serving=replace(SERVING, actual="", tasks={}))
        assert not self.back(before, serving=None)

    def test_but_not_with_other_bytes_nor_what_was_rejected_since(self):
        assert "bytes" in self.back(replace(READY, actual=B))
        assert "bytes" in self.back(replace(READY, adapter=B, actual=B))
        assert "rejected" in self.back(
            replace(READY, reviews=(approve("bob", decision="rejected"),))
        )
        nothing = replace(READY, adapter="", actual="")
        empty = replace(self.SERVED, tasks={"animals": (1, "")})
        assert "bytes" in self.back(nothing, target=empty)
        assert "not there" in self.back(None)
        assert "bytes" in self.back(READY, target=replace(self.SERVED, actual=A))

    def test_a_release_that_never_served_is_no_way_back(self):
        assert self.back(replace(READY, reviews=()), target=replace(self.SERVED, served=False))

    def test_tasks_are_retired_by_a_release_without_them(self):
        serving = replace(SERVING, tasks={"vehicles": (1, C), "animals": (1, A)})
        retired = State(serving=serving, target=replace(NEXT, tasks={"vehicles": (1, C)}))
        assert who_may(Kind.SET_ALIAS, retired, **TO_SERVE) == {"ruth", "all"}
        assert not moving(2, replace(retired, target=replace(NEXT, tasks={})), POLICY)
        changed = replace(retired, target=replace(NEXT, tasks={"vehicles": (1, B)}))
        assert moving(2, changed, POLICY)


def test_the_facts_of_these_specifications_are_what_they_seem():
    assert SOURCE == VERSION.source != OTHER
    assert {A, B, C}.isdisjoint({R1, R2})
