"""Does the registry say what the ledger says? Rows, releases, aliases, approvals, tags.

The ledger is chained and signed, the registry's database is not: who writes to it behind the
server's back is found here. Evidence that is weaker than a server's, and what only a policy
that was changed later would object to, are notes and no problems.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clr.errors import ClrError, IntegrityBroken
from flows.findings import Finding
from flows.recorded import Records, read_records
from flows.verify_registered import (
    candidate_findings,
    pinned_findings,
    row_findings,
    unfinished,
)
from flows.verify_releases import alias_problems, completed, release_problems, serving_release
from flows.verify_reviews import champion_findings, tag_problems

if TYPE_CHECKING:
    from clr.registry.overview import Overview
    from clr.registry.release import Release
    from clr.registry.roles import Policy
    from flows.session import Session

Note = tuple[str, str]
Known = dict[tuple[int, str], "Release"]
"""Releases that were read, by number and digest: what has a digest never changes."""

LOOKS, PAUSE_SECONDS = 3, 1.0


@dataclass(frozen=True)
class Agreement:
    """What was compared.

    Attributes:
        problems: where registry and ledger differ.
        notes: (subject, message) of what is worth knowing.
        releases: releases whose file was read.
        reviews: versions whose reviews were compared.
    """

    problems: tuple[Finding, ...]
    notes: tuple[Note, ...]
    releases: int
    reviews: int


def compare(session: Session, known: Known) -> Agreement:
    """Compare registry and ledger.

    Who reviews or promotes meanwhile writes one after the other: a difference counts if it is
    still there a moment later.

    Args:
        session: the workspace.
        known: releases that were read; those that are read here are added.

    Raises:
        UsageError: the review policy is not one.
        ServiceUnavailable: registry or ledger cannot be reached.
        IntegrityBroken: the ledger is damaged.
    """
    found = _look(session, known)
    for _ in range(LOOKS - 1):
        if not found.problems:
            break
        time.sleep(PAUSE_SECONDS)
        again = _look(session, known)
        lasting = tuple(one for one in again.problems if one in found.problems)
        found = Agreement(lasting, again.notes, again.releases, again.reviews)
    return found


def _look(session: Session, known: Known) -> Agreement:
    from clr.registry.overview import overview
    from flows.standing import policy_of

    policy, there = policy_of(session), overview(session.registry)
    records = read_records(session.ledger.entries())
    releases, problems = _read_releases(session, there, known)
    moves, on_their_way = completed(there, releases, records.moves)
    problems += release_problems(there, releases, moves)
    problems += (
        one
        for one in alias_problems(there, releases, moves)
        if one.subject.removeprefix("clr-") not in on_their_way
    )
    problems += candidate_findings(there, records)
    problems += _gone(there, records)
    problems += _pinned(session, there, records)
    notes = list(_policy(policy, records))
    if len(moves) > len(records.moves):
        message = "its promotion was cut off: the next `clr promote` or `clr up` completes it"
        notes.append((moves[-1].subject, message))
    for task, versions in there.versions.items():
        for version in versions:
            problems += row_findings(version, records, releases.values())
            for subject, message in tag_problems(version, records, policy.quorum_for(task)):
                problems.append(Finding(subject, "tag-edited", message))
            if unfinished(version, records):
                message = "its registration was cut off: the same `clr onboard` completes it"
                notes.append((f"clr-{task}/{version.version}", message))
    serving = serving_release(there, releases)
    if serving is not None:
        problems += _gate(session, serving, releases.get(serving.previous))
        findings = champion_findings(serving, there, records, policy, releases)
        for wrong, subject, message in findings:
            if wrong:
                problems.append(Finding(subject, "champion-unapproved", message))
            else:
                notes.append((subject, message))
    count = sum(len(versions) for versions in there.versions.values())
    return Agreement(tuple(problems), tuple(notes), len(there.releases), count)


def _read_releases(
    session: Session, there: Overview, known: Known
) -> tuple[dict[str, Release], list[Finding]]:
    """Return the releases that are whole, by digest, and what is wrong with the others."""
    from clr.registry.releases import get_release

    whole: dict[str, Release] = {}
    broken: list[Finding] = []
    for one in there.releases:
        try:
            release = known.get((one.version, one.tags.get("clr.release_digest", "")))
            if release is None:
                release = get_release(session.registry, one.version)
                known[one.version, release.digest] = release
            whole.setdefault(release.digest, release)
        except ClrError as error:
            broken.append(Finding(f"clr-release/{one.version}", "release-changed", error.message))
    return whole, broken


def _gate(session: Session, serving: Release, before: Release | None) -> Iterator[Finding]:
    """See that the gate report of the serving release is about what joined, and against what."""
    from clr.gate.admission import why_not_admitted

    was = before.tasks if before else {}
    joined = [one for task, one in serving.tasks.items() if was.get(task) != one]
    if not joined:
        return  # a task was taken out
    try:
        report = session.gate_report(serving)
    except ClrError:
        return  # told by verify itself
    wrong = "is about another adapter"
    if len(joined) == 1:
        (new,) = joined
        wrong = why_not_admitted(report, new.task, new.adapter_digest, serving.previous, was)
    if wrong:
        yield Finding(f"clr-release/{serving.version}", "gate-mismatch", f"its gate report {wrong}")


def _gone(there: Overview, records: Records) -> Iterator[Finding]:
    """Yield versions that the ledger saw registered and nobody deleted, but are not there."""
    known = {
        f"clr-{task}/{one.version}" for task, versions in there.versions.items() for one in versions
    }
    for name, entry in records.registered.items():
        deleted = (records.deleted.get(name, 0), records.deleted.get(name.split("/")[0], 0))
        if name not in known and max(deleted) < entry.seq:
            message = f"was registered (entry {entry.seq}), but is no longer in the registry"
            yield Finding(name, "version-missing", message)


def _pinned(session: Session, there: Overview, records: Records) -> Iterator[Finding]:
    from clr.data.check import task_digests

    try:
        pinned = task_digests(session.settings.workspace.absolute())
    except IntegrityBroken:
        return  # told by verify itself
    yield from pinned_findings(pinned, there, records)


def _policy(policy: Policy, records: Records) -> Iterator[Note]:
    """Tell of a policy file that no server has loaded, once a server has recorded one."""
    if records.policy and policy.digest != records.policy:
        yield (
            "mlflow/policy.yaml",
            f"has {policy.digest}; the last one that a server loaded had {records.policy}",
        )
