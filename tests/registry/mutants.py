"""Policies that are wrong in one way each: told something else than what is so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from clr.registry.acts import Act, Decision, Kind, Principal, ReleaseFacts, State, VersionFacts
from clr.registry.policy import decide
from clr.registry.reviews import word
from clr.registry.roles import ROLES, Policy, TaskReview

Decide = Callable[[Act, Principal, State, Policy], Decision]
Told = Callable[[Act, Principal, State, Policy], dict[str, Any]]

CHANGES = frozenset(Kind) - {Kind.READ, Kind.EXPORT, Kind.FINISH_RUN, Kind.UPDATE_MODEL}
"""Kinds of act with which something can be broken."""


def lets(kind: Kind) -> Decide:
    """A policy that lets everybody who works here do one kind of act."""

    def judge(act: Act, who: Principal, state: State, policy: Policy) -> Decision:
        right = decide(act, who, state, policy)
        if act.kind is not kind or right.allowed or not who.roles - {"auditor"}:
            return right
        return Decision(True, value=(word(act.value) or "") if act.name == "review" else "")

    return judge


def told(change: Told, *kinds: Kind) -> Decide:
    """The policy, told what `change` says; for acts of these kinds only, if any are given."""

    def judge(act: Act, who: Principal, state: State, policy: Policy) -> Decision:
        so = {"act": act, "who": who, "state": state, "policy": policy}
        if not kinds or act.kind in kinds:
            so |= change(act, who, state, policy)
        return decide(**so)  # type: ignore[arg-type]

    return judge


def policy(change: Callable[[Policy], Policy]) -> Decide:
    return told(lambda act, who, state, rules: {"policy": change(rules)})


def facts(*kinds: Kind, **change: Any) -> Decide:
    """The policy, told other facts about the thing that the act is about."""
    return told(lambda act, who, state, rules: {"state": replace(state, **change)}, *kinds)


def versions(change: Callable[[VersionFacts, State], dict[str, Any]], *kinds: Kind) -> Decide:
    """The policy, told other facts about every version."""

    def other(one: VersionFacts | None, state: State) -> VersionFacts | None:
        return one and replace(one, **change(one, state))

    def say(act: Act, who: Principal, state: State, rules: Policy) -> dict[str, Any]:
        joining = {task: other(one, state) for task, one in state.joining.items()}
        version = other(state.version, state)
        return {"state": replace(state, version=version, joining=joining)}

    return told(say, *kinds)


def releases(change: Callable[[ReleaseFacts, State], dict[str, Any]], *kinds: Kind) -> Decide:
    """The policy, told other facts about the release that the act is about."""

    def say(act: Act, who: Principal, state: State, rules: Policy) -> dict[str, Any]:
        one = state.target
        return {"state": replace(state, target=one and replace(one, **change(one, state)))}

    return told(say, *kinds)


def _serving(state: State) -> ReleaseFacts:
    return state.serving or ReleaseFacts(0, "", "", "", {})


def _twice(version: VersionFacts, state: State) -> dict[str, Any]:
    """Take a person's second approval for another person's."""
    seen: list[str] = []
    reviews = []
    for one in version.reviews:
        others = [name for name in ("alice", "bob", "carol", "max") if name not in seen]
        name = one.reviewer if one.reviewer not in seen else (others or [one.reviewer])[0]
        seen.append(name)
        reviews.append(replace(one, reviewer=name))
    return {"reviews": tuple(reviews)}


def _not_rejected(version: VersionFacts, state: State) -> dict[str, Any]:
    return {"reviews": tuple(one for one in version.reviews if one.decision != "rejected")}


def _first_newcomer(act: Act, who: Principal, state: State, rules: Policy) -> dict[str, Any]:
    """Look at one newcomer of a release only."""
    if state.target is None or state.serving is None:
        return {}
    first = min(state.joining, default="")
    known = {task: ref for task, ref in state.target.tasks.items() if task != first}
    tasks = {**state.serving.tasks, **known}
    return {"state": replace(state, serving=replace(state.serving, tasks=tasks))}


def _any_champion(act: Act, who: Principal, state: State, rules: Policy) -> dict[str, Any]:
    """Believe of every version of a task that the release in force names it."""
    if state.version is None or act.model == "clr-release":
        return {}
    named = {act.model.removeprefix("clr-"): (act.version, state.version.adapter)}
    return {"state": replace(state, serving=replace(_serving(state), tasks=named))}


def _plain_name(act: Act, who: Principal, state: State, rules: Policy) -> dict[str, Any]:
    alike = {
        "ｒｅｖｉｅｗ": "review",
        "rеview": "review",
        "clr_verdict": "note",
        "chаmpion": "champion",
    }
    return {"act": replace(act, name=alike.get(act.name, act.name.lower()))}


def _unlisted(rules: Policy) -> Policy:
    tasks = {task: TaskReview(one.quorum) for task, one in rules.tasks.items()}
    return replace(rules, tasks=tasks)


def _one(rules: Policy) -> Policy:
    tasks = {task: replace(one, quorum=1) for task, one in rules.tasks.items()}
    return replace(rules, quorum=1, tasks=tasks)


def everybody_still(users: dict[str, frozenset[str]]) -> Decide:
    """A policy that counts approvals of people who lost the role since."""
    return policy(lambda rules: replace(rules, users=users))


MUTANTS: dict[str, Decide] = {
    "does not ask for roles": told(
        lambda act, who, state, rules: {"who": replace(who, roles=frozenset(ROLES))}
    ),
    "forgets four eyes": policy(lambda rules: replace(rules, four_eyes=False)),
    "takes one approval for enough": policy(_one),
    "does not know a task's own reviewers": policy(_unlisted),
    "counts one person twice": versions(_twice),
    "does not hash the adapter": versions(lambda one, state: {"actual": one.adapter}),
    "does not hash what is registered": told(
        lambda act, who, state, rules: {
            "state": replace(state, actual=next(iter(act.tags.values()), ""))
        },
        Kind.CREATE_VERSION,
    ),
    "does not bind an approval to bytes": versions(
        lambda one, state: {"reviews": tuple(replace(r, adapter=one.adapter) for r in one.reviews)}
    ),
    "does not bind an approval to its version": versions(
        lambda one, state: {"reviews": tuple(replace(r, source=one.source) for r in one.reviews)}
    ),
    "does not read the gate's verdict": versions(lambda one, state: {"verdict": "passed"}),
    "takes every gate for fresh": versions(
        lambda one, state: {"gate_release": _serving(state).digest}
    ),
    "does not hear a rejection": versions(_not_rejected),
    "does not look what a release follows": releases(
        lambda one, state: {"previous": _serving(state).digest}
    ),
    "does not hash a release": releases(lambda one, state: {"actual": one.digest}),
    "does not look at the backbone": releases(
        lambda one, state: {"backbone": _serving(state).backbone}
    ),
    "takes every release for one that served": releases(lambda one, state: {"served": True}),
    "does not see what a release drops": releases(
        lambda one, state: {"tasks": {**_serving(state).tasks, **one.tasks}}
    ),
    "looks at one newcomer only": told(_first_newcomer, Kind.SET_ALIAS),
    "takes any version for champion": told(_any_champion, Kind.SET_ALIAS),
    "forgets that a release served": told(
        lambda act, who, state, rules: {
            "state": replace(
                state,
                target=state.target and replace(state.target, served=False),
                version=state.version and replace(state.version, ever_champion=False),
                aliases={},
            )
        },
        Kind.DELETE_VERSION,
    ),
    "forgets reviews when it deletes": versions(
        lambda one, state: {"reviews": (), "ever_champion": False}, Kind.DELETE_VERSION
    ),
    "forgets that a model served": facts(model_ever_champion=False, model_reviewed=False),
    "deletes what an alias points at": facts(Kind.DELETE_VERSION, aliases={}),
    "takes every version for a double": versions(lambda one, state: {"twin": True}),
    "writes over registered files": facts(registered=False),
    "compares names without case": told(_plain_name),
    "does not know who has a role": told(
        lambda act, who, state, rules: {
            "policy": replace(rules, users={}),
            "state": replace(state, user_roles=frozenset()),
        },
        Kind.MANAGE_USER,
        Kind.SET_PASSWORD,
    ),
}
