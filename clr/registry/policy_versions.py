"""Rules about versions: how they come, what may be written to them, who reviews them (pure).

Each rule returns a sentence of refusal, empty where it has nothing against the act.
"""

from __future__ import annotations

import re

from clr.errors import UsageError
from clr.registry.acts import Act, Principal, State, VersionFacts
from clr.registry.names import (
    DIGEST_TAGS,
    GATE_RELEASE,
    PROMOTION,
    REASON,
    RELEASE_TAGS,
    REVIEW,
    SERVER_TAGS,
    TRIAL,
    reserved,
    shown,
    task_of,
)
from clr.registry.policy_releases import PASSED, called, closed
from clr.registry.refusals import (
    TO_PROMOTE,
    copied,
    foreign,
    kept_tag,
    lacks,
    long_value,
    lookalike,
    nothing_there,
)
from clr.registry.reviews import REJECTED, rejected, word
from clr.registry.roles import ADMIN, RELEASE, REVIEWER, TRAINER, Policy
from clr.registry.store import RELEASE_MODEL
from clr.registry.trial import parse_trial, percent

PIPELINE = "The release service fills it; your own words go into `review.reason`."
TO_CLOSE = "a reviewer sets its tag `review` to `rejected`, which closes it"
_SOURCE = re.compile(r"models:/m-[0-9a-f]{1,64}")
_SHA = re.compile(r"sha256:[0-9a-f]{64}")


def create(act: Act, who: Principal, state: State, policy: Policy) -> str:
    """Registration of a version: the right role, whole bytes, honest tags."""
    if act.source.startswith("models:/") and not act.source.startswith("models:/m-"):
        return copied(act.source)
    of_release = act.model == RELEASE_MODEL
    role, digest = (
        (RELEASE, "clr.release_digest") if of_release else (TRAINER, "clr.adapter_digest")
    )
    what = "write releases" if of_release else "register versions; `clr onboard` does it"
    return (
        foreign(act.model)
        or lacks(who, (role,), what)
        or _origin(act)
        or _bytes(act, state, digest)
        or _birth_tags(act)
        or long_value("description", act.value)
    )


def _origin(act: Act) -> str:
    if _SOURCE.fullmatch(act.source):
        return ""
    return (
        f"A version comes from a logged model, models:/m-…, not from {shown(act.source)}: only "
        "such files are written once. Register with `clr onboard`."
    )


def _bytes(act: Act, state: State, tag: str) -> str:
    claimed = act.tags.get(tag, "")
    if not _SHA.fullmatch(claimed):
        return (
            f"A version of {act.model} says in its tag `{tag}` which bytes it is, as "
            "sha256:<64 hex>. Register with `clr onboard`."
        )
    if state.actual != claimed:
        found = f"has {state.actual}" if state.actual else "is not there"
        return (
            f"The tag `{tag}` says {claimed}, but the file in {shown(act.source)} {found}. "
            "Upload the file again under a new logged model, and register that."
        )
    return ""


def _birth_tags(act: Act) -> str:
    for key, value in act.tags.items():
        if problem := lookalike(key) or long_value(key, value):
            return problem
        born = key == REVIEW and value == "pending"
        evidence = key.startswith("clr.") and key not in SERVER_TAGS | {PROMOTION, TRIAL}
        if reserved(key) and not (born or evidence):
            return (
                f"The tag {shown(key)} cannot be given at registration: a version is born with "
                f"`review: pending`, and people decide afterwards. Leave it out; {TO_PROMOTE}."
            )
    return ""


def delete(act: Act, who: Principal, state: State, policy: Policy) -> str:
    """Deletion: what never served and nobody reviewed; of one's own only a double."""
    version, role = state.version, RELEASE if act.model == RELEASE_MODEL else TRAINER
    own = version is not None and version.twin and version.creator == who.name
    if not (own and role in who.roles) and (
        problem := lacks(who, (ADMIN,), "delete a version", f"Leave it, or: {TO_CLOSE}.")
    ):
        return problem
    if version is None or (act.model == RELEASE_MODEL and state.target is None):
        return nothing_there(act)
    served = version.ever_champion or (state.target is not None and state.target.served)
    if served or version.reviews or act.version in state.aliases.values():
        why = "has served" if served else "has reviews" if version.reviews else "has an alias"
        return (
            f"Version {act.version} of {act.model} {why} and stays, to be audited later. "
            "What serves is taken out by `clr rollback` or `clr retire`; what does not serve does "
            "no harm."
        )
    return ""


def set_tag(act: Act, who: Principal, state: State, policy: Policy) -> str:
    """A tag: a review, a word of the release service, or somebody's own."""
    if problem := foreign(act.model) or lookalike(act.name) or long_value(act.name, act.value):
        return problem
    if act.name in (REVIEW, REASON):
        return review(act, who, state, policy)
    if act.name in RELEASE_TAGS:
        return _release_tag(act, who, state, policy)
    return kept_tag(act.name) or free_tag(who)


def delete_tag(act: Act, who: Principal, state: State, policy: Policy) -> str:
    """A tag that is not free stays."""
    if problem := foreign(act.model) or lookalike(act.name):
        return problem
    if act.name in (REVIEW, REASON):
        return (
            f"The tag `{act.name}` cannot be removed: a decision stays on record. To decide "
            "otherwise, set `review` to `rejected`, or write into `review.reason`."
        )
    return kept_tag(act.name) or free_tag(who)


def free_tag(who: Principal) -> str:
    """Tags of one's own are open to everybody who works here."""
    return lacks(who, (TRAINER, REVIEWER, ADMIN, RELEASE), "write tags")


def _release_tag(act: Act, who: Principal, state: State, policy: Policy) -> str:
    if not task_of(act.model):
        return kept_tag(act.name)
    if problem := lacks(who, (RELEASE,), f"write the tag `{act.name}`", PIPELINE):
        return problem
    if state.version is None:
        return nothing_there(act)
    if act.name == TRIAL:
        return trial(act, state.version, policy)
    serving = state.serving.digest if state.serving else ""
    if act.name == GATE_RELEASE and act.value != serving:
        return (
            f"`{GATE_RELEASE}` says against which release the gate ran: {shown(act.value, 80)} is "
            "not the one that serves now. Run the gate again, against that one."
        )
    if act.name in DIGEST_TAGS and act.value and not _SHA.fullmatch(act.value):
        return f"`{act.name}` takes sha256:<64 hex>, not {shown(act.value)}. Give the digest."
    return ""


def trial(act: Act, version: VersionFacts, policy: Policy) -> str:
    """What is on trial: a version that passed and nobody rejected, within the policy's share."""
    if version.verdict != PASSED:
        return (
            f"{called(version)} did not pass the retention gate, so there is nothing to try. "
            "Read its gate report, then run `clr onboard` again."
        )
    if problem := closed(version):
        return problem
    try:
        wanted = parse_trial(act.value)
    except UsageError as error:
        return f"{error.message} {error.fix}"
    if wanted.share > policy.max_share:
        return (
            f"A challenger may answer {percent(policy.max_share)} of a task's items at most, not "
            f"{percent(wanted.share)} (trials: max_share in policy.yaml). Ask for a smaller share."
        )
    return ""


def review(act: Act, who: Principal, state: State, policy: Policy) -> str:
    """A person's decision, or the reason for it."""
    task, version = task_of(act.model), state.version
    if not task:
        return (
            "A release is not reviewed; the versions in it were. To undo a release, use "
            "`clr rollback`; to review, open the page of the task's version."
        )
    if version is None:
        return nothing_there(act)
    if problem := _reviewer(act, who, version, policy, task):
        return problem
    if act.name == REASON:
        return ""
    decision = word(act.value)
    if decision is None:
        return _wrong_word(act.value)
    if decision == REJECTED:
        return _rejecting(act, state, task)
    return _approving(act, version, policy)


def _reviewer(act: Act, who: Principal, version: VersionFacts, policy: Policy, task: str) -> str:
    able = [name for name in policy.reviewers_of(task) if name != version.creator]
    ask = f"Ask {' or '.join(able[:5])}." if able else "An administrator names one in policy.yaml."
    if not policy.may_review(who.name, task) or REVIEWER not in who.roles:
        return f"{who.name} may not review versions of {task}: that is for its reviewers. {ask}"
    if policy.four_eyes and who.name == version.creator:
        return (
            f"{who.name} registered version {act.version} of {act.model}, and nobody decides on "
            f"his own work here (four eyes). {ask}"
        )
    return ""


def _wrong_word(value: str) -> str:
    if value.strip().casefold() == "pending":
        return (
            "`review` goes back to `pending` by the server alone. Set it to `approved` or "
            "`rejected`, or leave it."
        )
    return (
        f"The tag `review` takes `approved` or `rejected` (承認, 却下), and {shown(value)} is "
        "neither. Set one of them; what you want to say goes into the tag `review.reason`."
    )


def _rejecting(act: Act, state: State, task: str) -> str:
    serves = state.serving is not None and state.serving.tasks.get(task, (0, ""))[0] == act.version
    if serves or state.aliases.get("champion") == act.version:
        return (
            f"Version {act.version} of {act.model} is the champion and serves now. Replace it by "
            "approving another version, or use `clr rollback` or `clr retire`; then reject it."
        )
    return ""


def _approving(act: Act, version: VersionFacts, policy: Policy) -> str:
    what = f"Version {act.version} of {act.model}"
    if closed := rejected(version):
        said = f": {shown(closed[0].reason, 200)}" if closed[0].reason else ""
        return (
            f"{what} was rejected by {closed[0].reviewer}{said}. A rejected version stays "
            "rejected; `clr onboard` of the same data makes a new one."
        )
    if version.verdict != PASSED:
        return (
            f"{what} did not pass the retention gate ({shown(version.verdict or 'no verdict')}); "
            "only what passed can be approved. Read its gate report, then reject it."
        )
    if policy.four_eyes and not version.creator:
        return (
            f"{what}: nobody knows who registered it, so four eyes cannot be kept. Set `review` to "
            "`rejected`, and run `clr onboard` again, which registers it anew."
        )
    if not version.adapter or version.actual != version.adapter or not version.source:
        return (
            f"{what} has another adapter file than the one that was registered. Approve nothing "
            "whose files were touched: reject it, and tell the administrator."
        )
    return ""
