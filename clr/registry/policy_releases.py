"""Rules about releases: what may serve (pure).

One alias decides what serves: ``champion`` of ``clr-release``. `moving` is the rule of that
moment, and `unready` says what a version still lacks before it. Both return a sentence of
refusal, empty where nothing stands against it.
"""

from __future__ import annotations

from clr.registry.acts import ReleaseFacts, State, VersionFacts
from clr.registry.names import task_of
from clr.registry.reviews import rejected, tally
from clr.registry.roles import Policy

PASSED = "passed"
"""The value of ``clr.verdict`` of a version that its gate let through."""


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
        if problem := other_bytes(facts, digest) or closed(facts):
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
            f"{called(version)} did not pass the retention gate. "
            "Read its gate report, then run `clr onboard` again."
        )
    if problem := other_bytes(version, version.adapter) or closed(version):
        return problem
    count = tally(version, policy)
    if not count.reached:
        names = f" ({', '.join(count.approvals)})" if count.approvals else ""
        return (
            f"{called(version)} has {len(count.approvals)}{names} of the {count.needed} approvals "
            "that it needs, of people who may review it now and did not register it. Another "
            "reviewer sets its tag `review` to `approved`."
        )
    return ""


def _stale(version: VersionFacts, against: str) -> str:
    if version.gate_release == against:
        return ""
    return (
        f"{called(version)} was judged against another release than the one that serves now. "
        "Run its gate again: `clr promote` does so by itself."
    )


def closed(version: VersionFacts) -> str:
    """Object to a version that somebody rejected."""
    against = rejected(version)
    if not against:
        return ""
    return (
        f"{called(version)} was rejected by {against[0].reviewer}, and stays rejected. "
        "`clr onboard` of the same data makes a new version."
    )


def other_bytes(version: VersionFacts, digest: str) -> str:
    """Object unless tag, file and `digest` are the same."""
    if digest and version.adapter == digest == version.actual:
        return ""
    return (
        f"{called(version)} has other adapter bytes than those that were registered and named. "
        "Restore the file from a backup, or run `clr onboard` again; see `clr verify`."
    )


def called(version: VersionFacts) -> str:
    """Return how a sentence about the version begins."""
    return f"Version {version.number} of {version.model}"
