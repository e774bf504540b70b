"""What anybody may do on the registry server: a decision from facts alone (pure).

Default deny: what no line below allows is refused, and what the facts do not show counts
against the act. Roles add up: who has two may do what either may. A refusal is a sentence
that says why and what to do instead; MLflow shows it in its own error box.

====================  ===================  =================================================
act                   who                  allowed if
====================  ===================  =================================================
read                  any role             always; without a role nothing, reading included
audit export: note    any role             always: who asked what, under the name signed in as
model: create         trainer              ``clr-<task>``; no tag that begins with review,
                                           clr. or mlflow.
..                    release              ``clr-release``, likewise
model: describe, tag  trainer, release,    a model of ours; a tag of one's own
                      admin, reviewer
model: rename         nobody
model: delete         admin                no version of it ever served or was reviewed
version: create       trainer              ``clr-<task>``, from a logged model whose adapter
                                           file has the digest in ``clr.adapter_digest``;
                                           ``review`` absent or ``pending``; none of the
                                           tags that server, reviewers or release write
..                    release              ``clr-release``; the same with ``release.json``
                                           and ``clr.release_digest``
version: copy,        nobody               (**Promote model** copies; the description is the
describe, stage                            model card; stages decide nothing)
version: delete       admin                never served, no alias, no review
..                    trainer, release     likewise, and a double that this user registered
``review``            reviewer             on the task's list where there is one; not the
``review.reason``                          creator (four eyes); and for the word
..  approved          ..                   gate passed, nobody rejected it, the bytes are
                                           those registered, the creator is known
..  rejected          ..                   it does not serve now
``clr.gate_release``  release              the release that serves
``clr.gate_digest``,  release              a digest
``clr.router_digest``
``clr.promotion``     release              always: what became of a promotion
other ``clr.*``,      nobody               (evidence; and MLflow's own switches)
review*, mlflow.*
other tags            trainer, reviewer,   no look-alike of one of ours (Review, rеview);
                      admin, release       key up to 250, value up to 5000 characters
alias ``candidate``   trainer, release     gate passed, nobody rejected it; removal always
``clr.trial``         release              share within the policy's ``max_share``; gate passed,
                                           nobody rejected it
alias ``challenger``  release              gate passed, nobody rejected it, the bytes are those
                                           registered, it does not serve, no other is on trial;
                                           removal always
alias ``champion``    release              what the release that serves says: set on the
of a task                                  version it names, removed where it names none
alias ``previous``    release              a version that once served
of a task
``champion`` of       release              see `clr.registry.policy_releases.moving`: one
``clr-release``                            reviewed newcomer, or retired tasks, on top of
                                           what serves; or back to what served
``previous`` of       release              the release that serves
``clr-release``
any other alias       nobody               (an admin may remove one)
runs, experiments,    trainer, release,    nothing of a registered version is touched; the
logged models, files  admin                path of a file is plain, and in the folder of a
                                           run or a logged model
run: end              the same             always
webhooks              nobody               (mlflow/webhooks.yaml)
accounts              admin                of a name without a role in policy.yaml
MLflow's own rights   nobody               (mlflow/policy.yaml)
password              oneself, not the     always
                      services
..                    admin                of a name without a role
anything else         nobody               (an endpoint that nobody has thought about)
====================  ===================  =================================================

Who a user is, is the server's business; that one person has one account is the house's. Two
things are taken on trust from a trainer, and looked at again by the release service before it
promotes: that the gate's report says what ``clr.verdict`` says, and that it is about this
adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from clr.registry import policy_aliases as aliases
from clr.registry import policy_users as users
from clr.registry import policy_versions as versions
from clr.registry.acts import Act, Decision, Kind, Principal, State
from clr.registry.names import belongs, shown, unsafe_path
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
from clr.registry.roles import ADMIN, RELEASE, REVIEWER, TRAINER, Policy
from clr.registry.store import RELEASE_MODEL

Rule = Callable[[Act, Principal, State, Policy], str]

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
        return Decision(False, sentence)
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
    if problem := lacks(
        who, (role,), f"create {shown(act.model)}", f"To promote a version, {TO_PROMOTE}."
    ) or foreign(act.model):
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
    if problem := lacks(
        who, (ADMIN,), "delete a registered model", "To take a task out of service: `clr retire`."
    ):
        return problem
    if not state.model_ever_champion and state.model_reviewed is False:
        return ""
    why = "served" if state.model_ever_champion else "was reviewed"
    return (
        f"A version of {shown(act.model)} {why} once, so the model stays, to be audited later. "
        "To take its task out of service, use `clr retire`."
    )


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
    if act.kind is Kind.WRITE_FILE and not (act.name or belongs(act.path)):
        return (
            f"The path {shown(act.path, 120)} lies in the folder of no run and no logged model. "
            "Log files to a run, or to a logged model."
        )
    return _written(act, state)


_RULES: Mapping[Kind, Rule] = MappingProxyType(
    {
        Kind.READ: _read,
        Kind.EXPORT: _read,
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
        Kind.SET_ALIAS: aliases.set_alias,
        Kind.DELETE_ALIAS: aliases.delete_alias,
        Kind.TRACK: _track,
        Kind.FINISH_RUN: _finish_run,
        Kind.DELETE_TRACKED: _track,
        Kind.WRITE_FILE: _file,
        Kind.DELETE_FILE: _file,
        Kind.WEBHOOK: users.webhook,
        Kind.MANAGE_USER: users.manage,
        Kind.SET_PASSWORD: users.set_password,
        Kind.OTHER: _unknown,
    }
)
