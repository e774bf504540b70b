"""Rules about aliases and releases: what may serve, and who moves it (pure).

One alias decides what serves: ``champion`` of ``clr-release``. `moving` is the rule of
that moment; the aliases on the tasks' models only repeat what the release says. Each rule
returns a sentence of refusal, empty where it has nothing against the act.
"""

from __future__ import annotations

from clr.registry.acts import Act, Principal, ReleaseFacts, State, VersionFacts
from clr.registry.names import ALIASES, meant_alias, shown, task_of
from clr.registry.policy_versions import PASSED
from clr.registry.refusals import TO_PROMOTE, foreign, lacks, nothing_there
from clr.registry.reviews import rejected, tally
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
        return lacks(who, (ADMIN,), f"remove the alias {shown(act.name)}")
    if act.name == CANDIDATE and act.model != RELEASE_MODEL:
        return lacks(who, (RELEASE, TRAINER), "take the alias `candidate` away")
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
            f"`{real}`? That one is moved by the release service: {TO_PROMOTE}."
        )
    return (
        f"The alias {shown(alias)} is not in use here; there are {', '.join(ALIASES)}. "
        "Mark the version with a tag of your own instead."
    )


def _by_hand(act: Act, who: Principal) -> str:
    if RELEASE in who.roles or (act.name == CANDIDATE and TRAINER in who.roles):
        return ""
    if act.name == CANDIDATE:
        return lacks(who, (TRAINER, RELEASE), "move `candidate`; `clr onboard` does it")
    if act.model == RELEASE_MODEL:
        return (
            f"What serves changes by promotion, `clr rollback` or `clr retire`; {who.name} cannot "
            f"move `{act.name}` of clr-release by hand. To promote a task's version, {TO_PROMOTE}."
        )
    return (
        f"The alias `{act.name}` is moved by the release service alone, once gate and review are "
        f"complete; {who.name} cannot set it by hand. To promote version {act.version} of "
        f"{act.model}, {TO_PROMOTE}."
    )


def _candidate(act: Act, version: VersionFacts, state: State, policy: Policy) -> str:
    if version.verdict != PASSED:
        return (
            f"{_name(version)} did not pass the retention gate, so it is no candidate. "
            "Read its gate report, then run `clr onboard` again."
        )
    return _closed(version)


def _challenger(act: Act, version: VersionFacts, state: State, policy: Policy) -> str:
    # what it answers reaches people, so it is reviewed as a champion is
    return unready(version, policy)


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
        f"{_name(version)} never served, so it is no `previous` champion. "
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


def moving(number: int, state: State, policy: Policy) -> str:
    """Object to making release `number` the one that serves.

    Args:
        number: of the version of ``clr-release``.
        state: `serving`, `target`, and `joining` for every version that the target names
            and the release in force does not.
        policy: in force.
    """
    target, serving = state.target, state.serving
    if target is None or target.number != number:
        return f"There is no release {number}. `clr status` lists the releases."
    if not target.digest or target.actual != target.digest:
        return (
            f"The bytes of release {number} are not what its digest says. "
            "Roll back to another release, or restore the file from a backup."
        )
    if serving is not None and (serving.number, serving.digest) == (number, target.digest):
        return ""  # it serves already: told again after a crash
    joining = {
        task: ref
        for task, ref in target.tasks.items()
        if serving is None or serving.tasks.get(task) != ref
    }
    if not target.served and (
        problem := _follows(target, serving) or _one_step(target, serving, joining)
    ):
        return problem
    against = serving.digest if serving is not None else ""
    for task, (version, digest) in sorted(joining.items()):
        facts = state.joining.get(task)
        if facts is None or (task_of(facts.model), facts.number) != (task, version):
            return (
                f"Release {number} names version {version} of {task}, which is not there. "
                "Promote a version that is registered."
            )
        if problem := _other_bytes(facts, digest) or _closed(facts):
            return problem
        if not target.served and (problem := unready(facts, policy) or _stale(facts, against)):
            return problem
    return ""


def _follows(target: ReleaseFacts, serving: ReleaseFacts | None) -> str:
    if serving is None:
        if not target.previous:
            return ""
        return (
            f"Release {target.number} follows a release, but none serves. "
            "Roll back to one that served, then promote again."
        )
    if serving.actual != serving.digest:
        return (
            f"The bytes of release {serving.number}, which serves, are not what its digest says, "
            "so nothing is built on it. Roll back first: `clr rollback --to RELEASE`."
        )
    if target.previous != serving.digest:
        return (
            f"Release {target.number} follows another release than {serving.number}, which serves "
            "now: another promotion came first. Run the gate again and write a new release."
        )
    if target.backbone != serving.backbone:
        return (
            f"Release {target.number} has another backbone than the one that serves, under which "
            "no adapter has been judged. Keep the backbone, or start another registry."
        )
    return ""


def _one_step(
    target: ReleaseFacts, serving: ReleaseFacts | None, joining: dict[str, tuple[int, str]]
) -> str:
    leaving = set(serving.tasks if serving else ()) - set(target.tasks)
    if joining and leaving:
        return (
            f"Release {target.number} adds {', '.join(sorted(joining))} and drops "
            f"{', '.join(sorted(leaving))} at once. Promote in one release, retire in another."
        )
    if len(joining) > 1:
        return (
            f"Release {target.number} adds {', '.join(sorted(joining))} at once, but a gate judges "
            "one newcomer against what serves. Promote them one after another."
        )
    if not joining and not leaving:
        return (
            f"Release {target.number} names the same versions as the one that serves; there is "
            "nothing that a gate or a person decided on. Promote or retire something."
        )
    return ""


def unready(version: VersionFacts, policy: Policy) -> str:
    """Say what still stands between a version and promotion, freshness of its gate aside.

    Verdict, whole bytes, nobody's rejection, and the quorum of reviewers who count.
    """
    if version.verdict != PASSED:
        return (
            f"{_name(version)} did not pass the retention gate. "
            "Read its gate report, then run `clr onboard` again."
        )
    if problem := _other_bytes(version, version.adapter) or _closed(version):
        return problem
    count = tally(version, policy)
    if not count.reached:
        return (
            f"{_name(version)} has {count} of the approvals that count (four eyes: "
            f"{'on' if policy.four_eyes else 'off'}). Further reviewers set its tag `review` to "
            "`approved`."
        )
    return ""


def _stale(version: VersionFacts, against: str) -> str:
    if version.gate_release == against:
        return ""
    return (
        f"The gate of {_name(version)} ran against another release than the one that serves now. "
        "Run it again: `clr promote` does so by itself."
    )


def _closed(version: VersionFacts) -> str:
    closed = rejected(version)
    if not closed:
        return ""
    return (
        f"{_name(version)} was rejected by {closed[0].reviewer}, and stays rejected. "
        "`clr onboard` of the same data makes a new version."
    )


def _other_bytes(version: VersionFacts, digest: str) -> str:
    if digest and version.adapter == digest == version.actual:
        return ""
    return (
        f"The adapter file of {_name(version)} is not the one that was reviewed. "
        "Restore it from a backup, or run `clr onboard` again; `clr verify` says what changed."
    )


def _name(version: VersionFacts) -> str:
    return f"version {version.number} of {version.model}"
