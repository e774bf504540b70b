"""Is the chain of one version intact, and which link is broken first?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from clr.audit.claims import BrokenLink, compare, in_order, remarks
from flows.audit.claimed import claims
from flows.audit.gather import Found
from flows.audit.history import set_back
from flows.verify_registered import row_findings, unfinished

if TYPE_CHECKING:
    from clr.registry.roles import Policy

Note = tuple[str, str]
CLAIMED = "See who could change it, and when; the ledger's entries are the yardstick."


def judge(found: Found, policy: Policy) -> tuple[list[BrokenLink], list[Note]]:
    """Return the problems of a version's chain, the first broken link first, and the notes.

    Args:
        found: all that is known of it.
        policy: the review policy in force.
    """
    reviewed, stated = list(_reviews(found, policy)), list(claims(found))
    findings = [
        *found.told.problems,
        *_registration(found),
        *found.data.findings,
        *compare(found.subject, stated),
        *(one for one in reviewed if isinstance(one, BrokenLink)),
    ]
    notes = [
        *_chosen(found),
        *((found.subject, one) for one in set_back(found.history)),
        *found.data.notes,
        *_unrecorded(found),
        *((found.subject, one) for one in remarks(stated)),
        *(one for one in reviewed if not isinstance(one, BrokenLink)),
    ]
    return in_order(findings), notes


def sentence(found: Found, problems: list[BrokenLink]) -> str:
    """Return the first line that a reader sees."""
    if problems:
        first, more = problems[0], len(problems) - 1
        others = f" ({more} more problem{'s' if more > 1 else ''})" if more else ""
        return f"BROKEN at {first.link}: {first.message}{others}"
    count = len(found.told.entries)
    where = f"the ledger's {count} {'entry' if count == 1 else 'entries'}"
    if found.data.same_bytes is None:
        return (
            f"Intact as far as it can be seen from here: what is here of {found.subject} was "
            f"hashed and agrees with {where}; its images are not on this machine."
        )
    return f"Intact: everything about {found.subject} was hashed and agrees with {where}."


def _registration(found: Found) -> Iterator[BrokenLink]:
    if not found.registered and not _deleted(found):
        message = (
            f"{found.subject} is no longer in the registry, and the ledger does not say who "
            "deleted it."
        )
        yield BrokenLink("registration", found.subject, "missing", message)
    releases = [one.release for one in found.admitted.values() if one.release is not None]
    if found.registered:
        for one in row_findings(found.version, found.told.records, releases):
            told = one.as_dict()
            about = _about(one.subject, one.message)
            yield BrokenLink("registration", one.subject, one.kind, about, told["fix"])


def _deleted(found: Found) -> bool:
    """Say whether the ledger saw the version, or its model, deleted after its registration."""
    records = found.told.records
    model = found.subject.partition("/")[0]
    last = max(records.deleted.get(found.subject, 0), records.deleted.get(model, 0))
    return last > records.registered[found.subject].seq


def _reviews(found: Found, policy: Policy) -> Iterator[BrokenLink | Note]:
    """Yield what is wrong with approvals and tags, by the same rules as `clr verify`."""
    from clr.registry.overview import Overview
    from flows.verify_reviews import champion_findings, tag_problems

    if not found.registered:
        return
    version, records = found.version, found.told.records
    for subject, message in tag_problems(version, records, policy.quorum_for(version.task)):
        yield BrokenLink("reviews", subject, "differs", _about(subject, message), CLAIMED)
    there = Overview({}, {version.task: (version,)}, {}, ())
    for one in found.admitted.values():
        if one.release is None or version.task not in one.release.tasks:
            continue
        alone = replace(one.release, tasks={version.task: one.release.tasks[version.task]})
        for wrong, subject, message in champion_findings(alone, there, records, policy):
            about = _about(subject, message)
            yield BrokenLink("reviews", subject, "review", about, CLAIMED) if wrong else (
                subject, message,
            )  # fmt: skip
        return


def _about(subject: str, message: str) -> str:
    return f"{subject} {message}." if not message.startswith("its ") else f"{subject}: {message}."


def _chosen(found: Found) -> Iterator[Note]:
    task, number = found.version.task, found.version.version
    said = {
        "serving": f"version {number} is shown, which serves",
        "newest": f"none of {task} serves: version {number} is shown, the newest",
    }
    if found.chosen in said:
        yield found.subject, said[found.chosen]
    if unfinished(found.version, found.told.records):
        yield found.subject, "its registration was cut off: the same `clr onboard` completes it"
    if not found.registered and _deleted(found):
        yield found.subject, "was deleted from the registry, as the ledger recorded"


def _unrecorded(found: Found) -> Iterator[Note]:
    """Yield what nobody recorded, so that nobody can tell whether it was changed."""
    missing = [name for name in ("manifest", "validation", "code") if name not in found.recorded]
    if missing:
        yield (
            found.subject,
            f"registered before the ledger kept the digests of {', '.join(missing)}: "
            "they rest on the registry alone",
        )
    if found.recorded.get("dirty"):
        commit = found.recorded.get("commit")
        yield (
            found.subject,
            f"tracked files differed from the commit {commit} when it was made"
            if commit
            else "the workspace had no git commit when it was made",
        )
