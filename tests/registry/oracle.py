"""What must hold in every registry that anybody can reach, told without the policy's own code.

`broken_by` looks at an act that was allowed, just before it is done; `broken` at what is
stored afterwards. Both return what is wrong, empty where nothing is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from clr.registry.acts import Act, Kind
from tests.registry.small_registry import ADAPTER, RELEASE, RELEASES, Registry, Stored

NEVER = {
    Kind.RENAME_MODEL, Kind.COPY_VERSION, Kind.UPDATE_VERSION, Kind.STAGE_VERSION,
    Kind.WEBHOOK, Kind.OTHER,
}  # fmt: skip
TAGGING = {
    Kind.SET_VERSION_TAG, Kind.DELETE_VERSION_TAG, Kind.SET_MODEL_TAG, Kind.DELETE_MODEL_TAG,
}  # fmt: skip
REGATED = {"clr.gate_digest", "clr.gate_release", "clr.router_digest", "clr.promotion", "clr.trial"}
FORGED = {
    "clr.created_by", "clr.reviewed_by", "clr.reviewed_at", "clr.approvals", "clr.promotion",
    "clr.trial",
}  # fmt: skip
PLAIN = re.compile(r"[0-9]+/models/m-[0-9a-f]+/artifacts/[a-z]+")
MODEL = re.compile(r"clr-[a-z0-9][a-z0-9-]*")


def kept(tag: str) -> bool:
    """Say whether a tag is one of ours, or spelt to look like one."""
    plain = tag.strip().lower()
    return plain.startswith(("review", "clr.", "mlflow.", "rеview", "ｒｅｖｉｅｗ", "clr_"))


def broken_by(registry: Registry, act: Act, who: str) -> str:
    """Return what is wrong with letting `who` do `act` now."""
    return next(_by(registry, act, who, registry.policy.roles(who)), "")


def _by(registry: Registry, act: Act, who: str, roles: frozenset[str]) -> Iterator[str]:
    if act.kind in NEVER:
        yield f"{act.kind} was done"
    if act.kind is Kind.EXPORT:
        if not roles:
            yield f"{who} exported something without a role"
    elif act.kind is not Kind.SET_PASSWORD and not roles - {"auditor"}:
        yield f"{who} changed something without a role to"
    found = registry.stored(act.model, act.version)
    if act.kind in TAGGING:
        yield from _tag(registry, act, who, roles, found)
    if act.kind is Kind.CREATE_VERSION:
        yield from _birth(registry, act, roles)
    if act.kind is Kind.CREATE_MODEL and any(map(kept, act.tags)):
        yield "a model was born with a tag of ours"
    if act.kind in (Kind.SET_ALIAS, Kind.DELETE_ALIAS):
        yield from _alias(registry, act, who, roles, found)
    if act.kind in (Kind.WRITE_FILE, Kind.DELETE_FILE) and not PLAIN.fullmatch(act.path):
        yield f"the path {act.path} was followed"
    if act.kind in (Kind.TRACK, Kind.DELETE_TRACKED) and registry.state(act).registered:
        yield "the run of a registered version was changed"
    if act.kind is Kind.DELETE_MODEL and "admin" not in roles:
        yield f"{who} deleted a model"
    if act.kind is Kind.DELETE_VERSION and found is not None:
        double = found.creator == who and registry.state(act).version.twin  # type: ignore[union-attr]
        if "admin" not in roles and not double:
            yield f"{who} deleted a version"
        if registry.reviews(act.model, act.version):
            yield "a reviewed version was deleted"
        if act.version in registry.aliases.get(act.model, {}).values():
            yield "a version was deleted that an alias points at"
    if act.kind is Kind.MANAGE_USER and (
        "admin" not in roles or registry.policy.roles(act.name) or "user" not in act.endpoint
    ):
        yield f"the account {act.name} was changed"
    strange = "admin" not in roles or registry.policy.roles(act.name)
    if act.kind is Kind.SET_PASSWORD and act.name != who and strange:
        yield f"{who} set the password of {act.name}"


def _tag(
    registry: Registry, act: Act, who: str, roles: frozenset[str], found: Stored | None
) -> Iterator[str]:
    ours = kept(act.name)
    if ours and act.kind is not Kind.SET_VERSION_TAG:
        yield f"the tag {act.name} was set or removed"
    elif act.name in REGATED:
        if "release" not in roles or act.model == RELEASES:
            yield f"{who} wrote {act.name}"
        serving = registry.serving()
        if act.name == "clr.gate_release" and act.value != (serving.digest if serving else ""):
            yield "a gate was noted against a release that does not serve"
        if act.name == "clr.trial" and found is not None:
            if _against(registry, act.model, act.version, found) or not _passed(found):
                yield "what failed or was rejected was put on trial"
            if json.loads(act.value)["share"] > registry.policy.max_share:
                yield "a trial got a greater share than the policy gives"
    elif act.name in ("review", "review.reason") and found is not None:
        if "reviewer" not in roles or not _listed(registry, act.model, who):
            yield f"{who} reviewed"
        if registry.policy.four_eyes and who == found.creator:
            yield f"{who} reviewed his own work"
        if act.model == RELEASES:
            yield "a release was reviewed"
        if act.name == "review" and act.value.strip() not in (
            "Approved",
            "approved",
            "rejected",
            "承認",
        ):
            yield f"the word {act.value!r} was taken"
        if act.name == "review" and act.value != "rejected":
            if _against(registry, act.model, act.version, found):
                yield "a rejected version was approved"
            if registry.files.get(found.source) != found.tags.get(ADAPTER):
                yield "a version whose file was changed was approved"
    elif ours:
        yield f"{who} wrote {act.name}"
    if len(act.value) > 5000 and act.kind is Kind.SET_VERSION_TAG:
        yield "a value was too long"


def _listed(registry: Registry, model: str, who: str) -> bool:
    exception = registry.policy.tasks.get(model.removeprefix("clr-"))
    listed = (exception.reviewers if exception else None) or registry.policy.reviewers
    return not listed or who in listed


def _birth(registry: Registry, act: Act, roles: frozenset[str]) -> Iterator[str]:
    role, tag = ("release", RELEASE) if act.model == RELEASES else ("trainer", ADAPTER)
    if role not in roles:
        yield f"a version of {act.model} was registered without the role {role}"
    if act.tags.get(tag) != registry.files.get(act.source) or act.source not in registry.files:
        yield "a version was registered with another digest than its file has"
    for name, value in act.tags.items():
        evidence = name.startswith("clr.") and name not in FORGED
        if kept(name) and not evidence and (name, value) != ("review", "pending"):
            yield f"a version was born with {name}"


def _alias(
    registry: Registry, act: Act, who: str, roles: frozenset[str], found: Stored | None
) -> Iterator[str]:
    if act.name == "candidate":
        if not roles & {"trainer", "release"}:
            yield f"{who} moved the candidate"
        given = act.kind is Kind.SET_ALIAS and found is not None
        if given and (not _passed(found) or _against(registry, act.model, act.version, found)):
            yield "a candidate that failed or was rejected"
    elif act.name in ("champion", "previous", "challenger") and "release" not in roles:
        yield f"{who} moved {act.name}"
    if act.kind is Kind.DELETE_ALIAS:
        serving = registry.serving()
        named = serving is not None and act.model.removeprefix("clr-") in serving.tasks
        if act.name == "champion" and (named or act.model == RELEASES):
            yield "what serves lost its alias"
    elif act.name == "challenger" and found is not None:
        if not _passed(found) or _against(registry, act.model, act.version, found):
            yield "a challenger that failed or was rejected"
        if registry.files.get(found.source) != found.tags.get(ADAPTER):
            yield "a challenger whose file was changed"
        if registry.aliases.get(act.model, {}).get("challenger", act.version) != act.version:
            yield "a second challenger"
    elif (act.model, act.name) == (RELEASES, "champion") and found is not None:
        yield from _serve(registry, act.version, found)
    elif act.name == "champion" and found is not None:
        serving = registry.serving()
        named = serving.tasks.get(act.model.removeprefix("clr-")) if serving else None
        if named is None or named[0] != act.version:
            yield "champion is not what the release that serves says"


def _passed(found: Stored) -> bool:
    return found.tags.get("clr.verdict") == "passed"


def _against(registry: Registry, model: str, number: int, found: Stored) -> bool:
    reviews = registry.reviews(model, number)
    return any(one.decision == "rejected" and one.source == found.source for one in reviews)


def _serve(registry: Registry, number: int, found: Stored) -> Iterator[str]:
    """The one moment: what must hold when a release begins to serve."""
    digest, before = registry.files.get(found.source, ""), registry.serving()
    if digest != found.tags.get(RELEASE) or digest not in registry.manifests:
        yield "a release with other bytes serves"
        return
    if before is not None and before.number == number:
        return
    says, names = registry.manifests[digest], dict(before.tasks) if before else {}
    joining = {task: ref for task, ref in says.tasks.items() if names.get(task) != ref}
    back = registry.served.get(number) == found.source
    if not back:
        if says.previous != (before.digest if before else ""):
            yield "a release serves that does not follow the one before"
        if before is not None and says.backbone != before.backbone:
            yield "the backbone was changed"
        if len(joining) + bool(set(names) - set(says.tasks)) != 1:
            yield "a release does none or more than one thing"
    for task, (version, adapter) in joining.items():
        newcomer = registry.stored(f"clr-{task}", version)
        if newcomer is None or registry.files.get(newcomer.source) != adapter:
            yield "a release serves bytes that are not there"
            return
        if _against(registry, f"clr-{task}", version, newcomer):
            yield "a rejected version serves"
        if not back:
            yield from _unreviewed(registry, f"clr-{task}", version, newcomer)
            if newcomer.tags.get("clr.gate_release", "") != (before.digest if before else ""):
                yield "a version serves whose gate is stale"


def _unreviewed(registry: Registry, model: str, number: int, found: Stored) -> Iterator[str]:
    policy, task = registry.policy, model.removeprefix("clr-")
    bytes_now = registry.files.get(found.source)
    people = set()
    for one in registry.reviews(model, number):
        same = (one.adapter, one.source) == (bytes_now, found.source)
        if one.source == found.source and one.decision == "rejected":
            yield "a rejected version serves"
        if one.decision != "approved" or not same or "reviewer" not in policy.roles(one.reviewer):
            continue
        if _listed(registry, model, one.reviewer):
            people.add(one.reviewer)
    if policy.four_eyes:
        people.discard(found.creator)
    exception = policy.tasks.get(task)
    if len(people) < ((exception.quorum if exception else None) or policy.quorum):
        yield f"a version serves that {len(people)} people approved"
    if found.tags.get("clr.verdict") != "passed":
        yield "a version serves whose gate failed"


def broken(registry: Registry, written: dict[str, str]) -> str:
    """Return what is wrong with what is stored.

    Args:
        registry: as it is now.
        written: digest of the file of every source that was ever registered, when it was.
    """
    return next(_stored(registry, written), "")


def _stored(registry: Registry, written: dict[str, str]) -> Iterator[str]:
    for (model, number), source in registry.ever.items():
        found = registry.stored(model, number)
        if found is None or found.source != source:
            yield f"{model}/{number} served and is gone"
    for model, aliases in registry.aliases.items():
        champion = aliases.get("champion")
        if champion is not None and model != RELEASES and (model, champion) not in registry.ever:
            yield f"{model}/{champion} is champion, and no release that served names it"
        if not set(aliases) <= {"candidate", "challenger", "champion", "previous"}:
            yield f"{model} has an alias of another name"
    if any(not MODEL.fullmatch(model) for model in registry.models):
        yield "a model of another name was made"
    if registry.served and "champion" not in registry.aliases.get(RELEASES, {}):
        yield "nothing serves any more"
    for number, source in registry.served.items():
        found = registry.stored(RELEASES, number)
        if found is None or found.source != source:
            yield f"release {number} served and is gone"
    for source, digest in written.items():
        if registry.registered(source) and registry.files.get(source) != digest:
            yield f"the file of {source} was changed after it was registered"
