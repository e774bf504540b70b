"""Approve or reject a version on the command line; an approval promotes it to champion.

Where a guarded server keeps the registry, the decision goes there just as from its page, and
the release service promotes (flows/review_server.py). Without one, the reviewer is the user
of the operating system, and this process promotes: weaker evidence, marked as such in the
ledger, which the policy can forbid (``embedded_review: false``).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clr.errors import ReviewRefused
from clr.registry.versions import champion_of
from flows import output, provenance
from flows.promote import close_rejected, promote_version, tell_review
from flows.session import Session
from flows.standing import QuorumOpen, policy_of, require_decidable, require_embedded_review

if TYPE_CHECKING:
    from clr.registry.versions import Version

LOG = logging.getLogger("clr")
Result = dict[str, Any]


def run_review(task: str, number: int, decision: str, reason: str, session: Session) -> Result:
    """Record a person's decision; ``approve`` makes the version the task's champion.

    Args:
        task: task name.
        number: version of its adapter.
        decision: ``approve`` or ``reject``.
        reason: the person's words.
        session: the workspace.

    Returns:
        {task, version, decision, reason, reviewer} and, for an approval, {release,
        release_digest, already}, or {waiting} while more people have to approve.

    Raises:
        UsageError: no such version.
        ReviewRefused: it was decided the other way, its gate did not pass, or this person
            may not decide.
        GateRefused: against the release that serves now, its gate does not pass.
        IntegrityBroken: its bytes or its evidence have been changed.
    """
    from clr.data.folder import task_name
    from clr.registry.versions import get_version

    output.log_to_stderr()
    version = get_version(session.registry, task_name(task), number)
    if session.registry.guarded:
        from flows.review_server import review_on_server

        return review_on_server(session, version, decision, reason)
    require_embedded_review(session)
    return (_approve if decision == "approve" else _reject)(session, version, reason)


def _approve(session: Session, version: Version, reason: str) -> Result:
    with session.lock("promote"):
        if not _serves(session, version):
            require_decidable(session, version)
            _decide(session, version, "approved", reason)
    told: Result
    try:
        told = promote_version(session, version.task, version.version)
    except QuorumOpen as error:
        told = {"waiting": str(error)}
    return {**_about(session, version, "approve"), **told}


def _reject(session: Session, version: Version, reason: str) -> Result:
    with session.lock("promote"):
        if _serves(session, version):
            raise ReviewRefused(
                f"{version.task} version {version.version} is the champion.",
                fix="A champion is replaced by approving another version, or taken back with "
                "`clr rollback`.",
            )
        _decide(session, version, "rejected", reason)
    close_rejected(session, version.task, version.version)
    return _about(session, version, "reject")


def _serves(session: Session, version: Version) -> bool:
    from clr.registry.releases import current_release

    release = current_release(session.registry)
    return release is not None and release.tasks.get(version.task) == champion_of(version)


def _about(session: Session, version: Version, decision: str) -> Result:
    from clr.registry.versions import get_version

    tags = get_version(session.registry, version.task, version.version).tags
    return {
        "task": version.task,
        "version": version.version,
        "decision": decision,
        "reason": tags.get("review.reason", ""),
        "reviewer": tags.get("clr.reviewed_by", provenance.local_user()),
    }


def _decide(session: Session, version: Version, decision: str, reason: str) -> None:
    """Record the decision: the ledger first, then what people see."""
    from clr.registry.acts import LOCAL
    from clr.registry.reviews import record_review
    from clr.registry.store import model_name

    record_review(
        session.ledger,
        model=model_name(version.task),
        number=version.version,
        adapter=version.adapter_digest,
        source=version.source,
        decision=decision,
        reason=reason,
        actor=provenance.local_user(),
        authentication=LOCAL,
        four_eyes=False,  # who registered a version is not known by password either
        policy=policy_of(session).digest,
    )
    tell_review(session, version)
