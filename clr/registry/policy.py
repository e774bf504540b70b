"""What anybody may do on the registry server, decided from facts alone (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from clr.registry import policy_releases as releases
from clr.registry import policy_versions as versions
from clr.registry.acts import Act, Decision, Kind, Principal, State
from clr.registry.names import shown, unsafe_path
from clr.registry.refusals import (
    TO_PROMOTE,
    copied,
    foreign,
    kept_tag,
    lacks,
    long_value,
    lookalike,
)
from clr.registry.reviews import word
from clr.registry.roles import ADMIN, RELEASE, REVIEWER, SERVICES, TRAINER, Policy
from clr.registry.store import RELEASE_MODEL

Rule = Callable[[Act, Principal, State, Policy], str]

ACCOUNTS = frozenset({"create_user", "create_user_ui", "delete_user"})
"""MLflow's handlers that make and remove accounts; its other acts on users give rights."""

_WORKERS = (TRAINER, RELEASE, ADMIN)


def decide(act: Act, who: Principal, state: State, policy: Policy) -> Decision:
    """Decide whether `who` may do `act`.

    Args:
        act: what is asked.
        who: authenticated user with the roles of `policy`.
        state: what is known about the things it is about. What is missing counts against.
        policy: in force.

    Returns:
        allowed, for a review with the word as it is stored; or the sentence of refusal.
    """
    if not who.roles:
        return Decision(False, _stranger(who))
    sentence = _RULES.get(act.kind, _unknown)(act, who, state, policy)
    if sentence:
        return Decision(False, sentence[0].upper() + sentence[1:])
    if act.kind is Kind.SET_VERSION_TAG and act.name == "review":
        return Decision(True, value=word(act.value) or "")
    return Decision(True)


def _stranger(who: Principal) -> str:
    return (
        f"{shown(who.name)} has no role in this registry, so nothing is open to this user, reading "
        "included. An administrator gives one on the server's machine: "
        "`clr users add NAME --role ROLE`."
    )


def _read(act: Act, who: Principal, state: State, policy: Policy) -> str:
    return ""


def _unknown(act: Act, who: Principal, state: State, policy: Policy) -> str:
    return (
        f"{shown(act.endpoint or act.kind)} is nothing this registry allows; what it does not know "
        "it refuses. Use the pages and commands of the registry, or ask the administrator."
    )


def _create_model(act: Act, who: Principal, state: State, policy: Policy) -> str:
    role = RELEASE if act.model == RELEASE_MODEL else TRAINER
    if problem := foreign(act.model) or lacks(
        who, (role,), f"create {act.model}", f"To promote a version, {TO_PROMOTE}."
    ):
        return problem
    for key, value in act.tags.items():
        if problem := lookalike(key) or long_value(key, value) or kept_tag(key):
            return problem
    return long_value("description", act.value)


def _update_model(act: Act, who: Principal, state: State, policy: Policy) -> str:
    return (
        foreign(act.model)
        or lacks(who, (*_WORKERS, REVIEWER), "describe a model")
        or long_value("description", act.value)
    )


def _rename_model(act: Act, who: Principal, state: State, policy: Policy) -> str:
    return (
        "A registered model keeps its name: releases, reviews and the ledger refer to it. "
        "For another name, onboard the data as another task."
    )


def _delete_model(act: Act, who: Principal, state: State, policy: Policy) -> str:
    if state.model_ever_champion or state.model_reviewed is not False:
        why = "has served" if state.model_ever_champion else "has reviews"
        return (
            f"A version of {shown(act.model)} {why}, so the model stays, to be audited later. "
            "To take its task out of service, use `clr retire`."
        )
    return lacks(who, (ADMIN,), "delete a registered model", "Ask the administrator.")


def _model_tag(act: Act, who: Principal, state: State, policy: Policy) -> str:
    return (
        foreign(act.model)
        or lookalike(act.name)
        or long_value(act.name, act.value)
        or kept_tag(act.name)
        or versions.free_tag(who)
    )


def _copy_version(act: Act, who: Principal, state: State, policy: Policy) -> str:
    return copied(act.source)


def _update_version(act: Act, who: Principal, state: State, policy: Policy) -> str:
    return (
        "The description of a version is the model card that it was registered with, and stays. "
        "Write your words into the tag `review.reason`, or into a tag of your own."
    )


def _stage_version(act: Act, who: Principal, state: State, policy: Policy) -> str:
    return (
        "Stages decide nothing here and are not used. "
        f"To promote version {act.version} of {shown(act.model)}, {TO_PROMOTE}."
    )


def _track(act: Act, who: Principal, state: State, policy: Policy) -> str:
    return lacks(who, _WORKERS, "write runs, experiments and files") or _written(act, state)


def _written(act: Act, state: State) -> str:
    if not state.registered:
        return ""
    return (
        f"{shown(act.subject, 120)} belongs to a registered version, whose run and files are "
        "written once, so that what was reviewed is what serves. Use a new run, or onboard again."
    )


def _finish_run(act: Act, who: Principal, state: State, policy: Policy) -> str:
    return lacks(who, _WORKERS, "end runs")


def _file(act: Act, who: Principal, state: State, policy: Policy) -> str:
    if problem := lacks(who, _WORKERS, "write or delete files"):
        return problem
    if unsafe_path(act.path):
        return (
            f"The path {shown(act.path, 120)} could lead to another file than it says. "
            "Name the file plainly, without .., //, backslashes or percent signs."
        )
    return _written(act, state)


def _webhook(act: Act, who: Principal, state: State, policy: Policy) -> str:
    return (
        "Webhooks are listed in mlflow/webhooks.yaml and set up when the server starts; nobody "
        "changes them through the server. Edit that file, then start the server again."
    )


def _manage_user(act: Act, who: Principal, state: State, policy: Policy) -> str:
    if act.endpoint not in ACCOUNTS:
        return (
            "Rights are given in mlflow/policy.yaml alone; MLflow's own roles, grants and admin "
            "flag decide nothing here. On the server's machine: `clr users add NAME --role ROLE`."
        )
    if problem := lacks(who, (ADMIN,), "make or remove accounts"):
        return problem
    return _with_role(act, state, policy)


def _with_role(act: Act, state: State, policy: Policy) -> str:
    if act.name and not (state.user_roles or policy.roles(act.name)):
        return ""
    return (
        f"The account {shown(act.name)} has a role in policy.yaml, and who could replace it could "
        "act in its name. Use `clr users` on the server's machine."
    )


def _set_password(act: Act, who: Principal, state: State, policy: Policy) -> str:
    if act.name in SERVICES and act.name != ADMIN:
        return (
            f"{act.name} is used by the commands, which read its password from a file. "
            "Use `clr users passwd` on the server's machine."
        )
    if act.name == who.name:
        return ""
    return lacks(who, (ADMIN,), "set another user's password") or _with_role(act, state, policy)


_RULES: Mapping[Kind, Rule] = MappingProxyType(
    {
        Kind.READ: _read,
        Kind.CREATE_MODEL: _create_model,
        Kind.UPDATE_MODEL: _update_model,
        Kind.RENAME_MODEL: _rename_model,
        Kind.DELETE_MODEL: _delete_model,
        Kind.SET_MODEL_TAG: _model_tag,
        Kind.DELETE_MODEL_TAG: _model_tag,
        Kind.CREATE_VERSION: versions.create,
        Kind.COPY_VERSION: _copy_version,
        Kind.UPDATE_VERSION: _update_version,
        Kind.STAGE_VERSION: _stage_version,
        Kind.DELETE_VERSION: versions.delete,
        Kind.SET_VERSION_TAG: versions.set_tag,
        Kind.DELETE_VERSION_TAG: versions.delete_tag,
        Kind.SET_ALIAS: releases.set_alias,
        Kind.DELETE_ALIAS: releases.delete_alias,
        Kind.TRACK: _track,
        Kind.FINISH_RUN: _finish_run,
        Kind.DELETE_TRACKED: _track,
        Kind.WRITE_FILE: _file,
        Kind.DELETE_FILE: _file,
        Kind.WEBHOOK: _webhook,
        Kind.MANAGE_USER: _manage_user,
        Kind.SET_PASSWORD: _set_password,
        Kind.OTHER: _unknown,
    }
)
