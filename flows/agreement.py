"""Does the registry say what the ledger says? Releases, aliases, approvals, tags of reviews.

The ledger is chained and signed, the registry's database is not: who writes to it behind the
server's back is found here. Evidence that is weaker than a server's, and what only a policy
that was changed later would object to, are notes and no problems.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clr.errors import ClrError
from flows.recorded import Records, read_records
from flows.verify_releases import alias_problems, release_problems, serving_release
from flows.verify_reviews import champion_findings, tag_problems

if TYPE_CHECKING:
    from clr.registry.overview import Overview
    from clr.registry.release import Release
    from flows.session import Session

Finding = tuple[str, str]
LOOKS, PAUSE_SECONDS = 3, 1.0


@dataclass(frozen=True)
class Agreement:
    """What was compared.

    Attributes:
        problems: (subject, message) where registry and ledger differ.
        notes: (subject, message) of what is worth knowing.
        releases: releases whose file was read.
        reviews: versions whose reviews were compared.
    """

    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    releases: int
    reviews: int


def compare(session: Session) -> Agreement:
    """Compare registry and ledger.

    Who reviews or promotes meanwhile writes one after the other: a difference counts if it is
    still there a moment later.

    Raises:
        UsageError: the review policy is not one.
        ServiceUnavailable: registry or ledger cannot be reached.
        IntegrityBroken: the ledger is damaged.
    """
    found = _look(session)
    for _ in range(LOOKS - 1):
        if not found.problems:
            break
        time.sleep(PAUSE_SECONDS)
        again = _look(session)
        lasting = tuple(one for one in again.problems if one in found.problems)
        found = Agreement(lasting, again.notes, again.releases, again.reviews)
    return found


def _look(session: Session) -> Agreement:
    from clr.registry.overview import overview
    from flows.standing import policy_of

    policy, there = policy_of(session), overview(session.registry)
    records = read_records(session.ledger.entries())
    releases, broken = _read_releases(session, there)
    problems = [
        *broken,
        *release_problems(there, releases, records.moves),
        *alias_problems(there, releases, records.moves),
        *_gone(there, records),
    ]
    for task, versions in there.versions.items():
        for version in versions:
            problems += tag_problems(version, records, policy.quorum_for(task))
    notes: list[Finding] = []
    serving = serving_release(there, releases)
    if serving is not None:
        problems += _gate(session, serving, releases.get(serving.previous))
        for wrong, subject, message in champion_findings(serving, there, records, policy):
            (problems if wrong else notes).append((subject, message))
    count = sum(len(versions) for versions in there.versions.values())
    return Agreement(tuple(problems), tuple(notes), len(there.releases), count)


def _read_releases(session: Session, there: Overview) -> tuple[dict[str, Release], list[Finding]]:
    """Return the releases that are whole, by digest, and what is wrong with the others."""
    from clr.registry.releases import get_release

    whole: dict[str, Release] = {}
    broken: list[Finding] = []
    for one in there.releases:
        try:
            release = get_release(session.registry, one.version)
            whole.setdefault(release.digest, release)
        except ClrError as error:
            if one.version != there.release_aliases.get("champion"):  # else told by verify itself
                broken.append((f"clr-release/{one.version}", error.message))
    return whole, broken


def _gate(session: Session, serving: Release, before: Release | None) -> Iterator[Finding]:
    """See that the gate report of the serving release is about what joined, and against what."""
    was = before.tasks if before else {}
    joined = [one.adapter_digest for task, one in serving.tasks.items() if was.get(task) != one]
    try:
        report = session.gate_report(serving)
    except ClrError:
        return  # told by verify itself
    if joined and "adapter" in report and [report["adapter"]] != joined:
        yield f"clr-release/{serving.version}", "its gate report is about another adapter"
    if joined and report.get("release", serving.previous) != serving.previous:
        yield f"clr-release/{serving.version}", "its gate was run against another release"


def _gone(there: Overview, records: Records) -> Iterator[Finding]:
    """Yield versions that the ledger saw registered and nobody deleted, but are not there."""
    known = {
        f"clr-{task}/{one.version}" for task, versions in there.versions.items() for one in versions
    }
    for name, entry in records.registered.items():
        deleted = (records.deleted.get(name, 0), records.deleted.get(name.split("/")[0], 0))
        if name not in known and max(deleted) < entry.seq:
            yield name, f"was registered (entry {entry.seq}), but is no longer in the registry"
