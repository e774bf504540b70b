"""Rules about aliases: they repeat what serves, and the pipeline alone moves them (pure).

Each rule returns a sentence of refusal, empty where it has nothing against the act.
"""

from __future__ import annotations

from clr.registry.acts import Act, Kind, Principal, State, VersionFacts
from clr.registry.names import ALIASES, meant_alias, shown, task_of
from clr.registry.policy_releases import PASSED, called, closed, moving, other_bytes
from clr.registry.refusals import TO_PROMOTE, foreign, lacks, nothing_there
from clr.registry.roles import ADMIN, RELEASE, TRAINER, Policy
from clr.registry.store import RELEASE_MODEL

CANDIDATE, CHALLENGER, CHAMPION, PREVIOUS = ALIASES


def set_alias(act: Act, who: Principal, state: State, policy: Policy) -> str:
    """An alias: by the release service alone, but for ``candidate``."""
    if problem := foreign(act.model) or _alias(act.name) or _by_hand(act, who):
        return problem
    if act.model == RELEASE_MODEL:
        return _release_alias(act, who, state, policy)
    if state.version is None or state.version.number != act.version:
        return nothing_there(act)
    rules = {
        CANDIDATE: _candidate,
        CHALLENGER: _challenger,
        CHAMPION: _champion,
        PREVIOUS: _previous,
    }
    return rules[act.name](act, state.version, state, policy)


def delete_alias(act: Act, who: Principal, state: State, policy: Policy) -> str:
    """Taking an alias away: as setting it; never from what serves."""
    if problem := foreign(act.model):
        return problem
    if act.name not in ALIASES:
        return lacks(who, (ADMIN,), f"remove the alias {shown(act.name)}", "Ask an admin.")
    if problem := _by_hand(act, who):
        return problem
    if act.model == RELEASE_MODEL:
        return (
            "The aliases of clr-release are moved, never removed: without `champion` nothing "
            "would serve. Use `clr rollback`, or `clr retire` for a single task."
        )
    if act.name == CHAMPION and state.serving and task_of(act.model) in state.serving.tasks:
        return (
            f"The release that serves names {task_of(act.model)}, so the alias `champion` stays. "
            "To take the task out of service, use `clr retire`."
        )
    return ""


def _alias(alias: str) -> str:
    if alias in ALIASES:
        return ""
    if real := meant_alias(alias):
        return (
            f"The alias {shown(alias)} looks like `{real}` and is not the same. Did you mean "
            f"`{real}`? That one is set by the pipeline, not by hand. To promote, {TO_PROMOTE}."
        )
    return (
        f"The alias {shown(alias)} is not in use here; there are {', '.join(ALIASES)}. "
        "Mark the version with a tag of your own instead."
    )


def _by_hand(act: Act, who: Principal) -> str:
    if RELEASE in who.roles or (
        act.name == CANDIDATE and act.model != RELEASE_MODEL and TRAINER in who.roles
    ):
        return ""
    where = f"`{act.name}` of {act.model}"
    if act.kind is Kind.DELETE_ALIAS:
        return (
            f"The alias {where} is moved by the pipeline alone, and {who.name} cannot remove it. "
            "To close a candidate, a reviewer sets its tag `review` to `rejected`; to take a task "
            "out of service, the role release uses `clr retire`."
        )
    if act.model == RELEASE_MODEL:
        return (
            f"The alias {where} decides what serves, and {who.name} cannot move it by hand. To "
            f"promote a task's version, {TO_PROMOTE}. To go back, the role release uses "
            "`clr rollback`."
        )
    if act.name == CANDIDATE:
        return (
            f"The alias {where} is set when `clr onboard` registers what passed its gate, "
            f"and {who.name} cannot set it by hand. To promote version {act.version}, {TO_PROMOTE}."
        )
    if act.name == CHALLENGER:
        return (
            f"The alias {where} is moved by the release service alone, for a trial, and {who.name} "
            "cannot set it by hand. Who has the role release starts one: "
            f"`clr ab start {task_of(act.model)} {act.version}`."
        )
    return (
        f"The alias {where} is moved by the release service alone, once gate and review are "
        f"complete, and {who.name} cannot set it by hand. To promote version {act.version}, "
        f"{TO_PROMOTE}."
    )


def _candidate(act: Act, version: VersionFacts, state: State, policy: Policy) -> str:
    if version.verdict != PASSED:
        return (
            f"{called(version)} did not pass the retention gate, so it is no {act.name}. "
            "Read its gate report, then run `clr onboard` again."
        )
    return closed(version)


def _challenger(act: Act, version: VersionFacts, state: State, policy: Policy) -> str:
    # what it answers reaches people before a review, within the policy's share (clr.trial)
    if problem := _candidate(act, version, state, policy) or other_bytes(version, version.adapter):
        return problem
    if state.serving and state.serving.tasks.get(task_of(act.model), (0, ""))[0] == act.version:
        return (
            f"{called(version)} is the champion, and cannot be tried against itself. "
            "Try another version: `clr ab start TASK VERSION`."
        )
    other = state.aliases.get(CHALLENGER, act.version)
    if other != act.version:
        return (
            f"Version {other} of {act.model} is on trial already, and a task has one trial at a "
            f"time. End it first: `clr ab stop {task_of(act.model)}`."
        )
    return ""


def _champion(act: Act, version: VersionFacts, state: State, policy: Policy) -> str:
    task = task_of(act.model)
    number, digest = (0, "") if state.serving is None else state.serving.tasks.get(task, (0, ""))
    if number != act.version or digest != version.adapter or not digest:
        says = f"version {number} of {task}" if number else f"no version of {task}"
        return (
            f"The release that serves names {says}, and the alias `champion` repeats that. "
            f"Promote version {act.version} with a release of its own: {TO_PROMOTE}."
        )
    return ""


def _previous(act: Act, version: VersionFacts, state: State, policy: Policy) -> str:
    if version.ever_champion:
        return ""
    return (
        f"{called(version)} never served, so it is no `previous` champion. "
        "The alias follows promotions and rollbacks by itself."
    )


def _release_alias(act: Act, who: Principal, state: State, policy: Policy) -> str:
    if act.name == CHAMPION:
        return moving(act.version, state, policy)
    serving = state.serving
    if act.name == PREVIOUS and serving is not None and serving.number == act.version:
        return ""
    if act.name == PREVIOUS:
        return (
            f"`previous` of clr-release is the release that serves until the next one does; "
            f"release {act.version} does not serve. Use `clr rollback` to change what serves."
        )
    return f"A release has no `{act.name}`: that is an alias of tasks. Set it on a task's model."
