"""Promote a version: reviews, bytes, a fresh gate, then a new release that serves.

Every step can be repeated, and the whole is called by everybody who promotes: `clr review`,
`clr promote`, the release service. In this order:

1. the quorum stands, for these bytes and this source (flows/standing.py);
2. the registered bytes are the recorded ones, and the gate passed against the release that
   serves now, or passes when it is run anew (flows/recheck.py);
3. the new release is written; nothing serves it yet;
4. the aliases ``previous`` and ``champion`` of ``clr-release`` move: **here it happens**;
5. the tasks' aliases repeat it, the ledger and the tag ``clr.promotion`` tell it.

A process killed before 4 leaves the old release serving, after it the new one, each whole.
The next call, for this or another version, completes what is missing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError, GateRefused, IntegrityBroken, ReviewRefused
from clr.registry.names import ACTIVATED, PROMOTION
from clr.registry.versions import champion_of
from flows.activation import complete, record, require_role
from flows.recheck import admit
from flows.session import GATE_FILE, Session
from flows.standing import facts, require_standing, tally

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.registry.release import Release
    from clr.registry.versions import Version

LOG = logging.getLogger("clr")
Result = dict[str, Any]
REFUSED, CLOSED = "promotion.refused", "candidate.closed"
_TAG_LIMIT = 1000


def promote_version(session: Session, task: str, number: int) -> Result:
    """Make an approved version the champion of its task, in a new release.

    Args:
        session: the workspace.
        task: task name.
        number: version of its adapter.

    Returns:
        {task, version, reviewers, release, release_digest, already}.

    Raises:
        UsageError: no such version.
        QuorumOpen: more people have to approve it; nothing has changed.
        ReviewRefused: it was rejected, its gate did not pass, the registry's policy says no, or
            this user lacks the role release.
        GateRefused: against the release that serves now, its gate does not pass.
        IntegrityBroken: bytes are not those that were recorded.
        ServiceUnavailable: registry, ledger or disk cannot be used; call again.
    """
    from clr.registry.releases import StaleGate, promote
    from clr.registry.versions import get_version

    require_role(session)
    with session.lock("promote"):
        version = get_version(session.registry, task, number)
        release, champion = complete(session), champion_of(version)
        if release is not None and release.tasks.get(task) == champion:
            return _promoted(session, version, release, already=True)
        require_standing(session, version)
        tell_review(session, version)
        try:
            admission = admit(session, version, release)
            made = promote(
                session.registry,
                champion,
                gate_release=admission.release,
                backbone=session.backbone.digest,
                router=admission.router,
                gate=admission.gate,
                files={GATE_FILE: admission.report},
            )
        except StaleGate:
            raise  # another machine was faster: the same call runs the gate anew
        except ClrError as error:
            refusal = _as_refusal(error)
            if refusal is None:
                raise
            if isinstance(refusal, ReviewRefused):
                _require_serving(session, version, release)
            _refuse(session, version, release, refusal)
            raise refusal from error
        return _promoted(session, version, made, already=False)


def _as_refusal(error: ClrError) -> ClrError | None:
    """Return what no repetition will change; None for what may pass by itself."""
    from clr.registry.denial import denial

    if isinstance(error, GateRefused | IntegrityBroken):
        return error
    sentence = denial(error)
    if sentence is None:
        return None
    return ReviewRefused(sentence, fix="The policy of the registry decides; see docs/review.md.")


def _require_serving(session: Session, version: Version, release: Release | None) -> None:
    """See that a denial is not about a release that was replaced while it was sent.

    Machines do not wait for one another everywhere, and the server says no to the slower one.

    Raises:
        StaleGate: another release serves than the one that the gate was run against.
    """
    from clr.registry.releases import StaleGate, serving_version

    now = serving_version(session.registry)
    if (now[1] if now else "") != (release.digest if release else ""):
        raise StaleGate(
            f"Another promotion came first while {version.task} version {version.version} was "
            "promoted.",
            fix="Promote it again: the gate runs against the release that serves now.",
            task=version.task,
        )


def _refuse(session: Session, version: Version, release: Release | None, error: ClrError) -> None:
    """Tell a refusal where people look; the ledger comes last, since it ends all repetition."""
    from clr.registry.versions import drop_candidate

    tell(session, version, f"refused: {error}")
    if isinstance(error, GateRefused):
        drop_candidate(session.registry, version)
    serving = release.digest if release else ""
    subject = f"clr-{version.task}/{version.version}"
    session.record(
        REFUSED,
        subject,
        {
            "adapter": version.adapter_digest,
            "source": version.source,
            "release": serving,
            "error": type(error).__name__,
            "sentence": error.message,
            "failed": list(error.data.get("failed", ())),
        },
        f"{REFUSED}:{subject}:{version.source}:{serving}:{type(error).__name__}",
    )


def entries_about(session: Session, version: Version, action: str) -> list[Entry]:
    """Return the entries of one kind about a version, the newest last.

    Those about another version that had its number before are not among them.

    Raises:
        ServiceUnavailable: the ledger cannot be reached.
        IntegrityBroken: it is damaged.
    """
    subject = f"clr-{version.task}/{version.version}"
    entries = session.ledger.entries(subject=subject, action=action)
    return [one for one in entries if one.payload.get("source") == version.source]


def refusal(entry: Entry) -> ClrError:
    """Return the error that an entry `REFUSED` is about."""
    kinds = {one.__name__: one for one in (GateRefused, IntegrityBroken)}
    kind = kinds.get(str(entry.payload["error"]), ReviewRefused)
    return kind(str(entry.payload["sentence"]), fix="Champions are unchanged.")


def superseded_by(session: Session, version: Version) -> int:
    """Return a higher version of the task that joined a release after this one's approval, or 0.

    What people approved last is what they want: an approval that was not carried out in time
    takes nothing newer away.
    """
    from clr.registry.reviews import APPROVED

    approvals = entries_about(session, version, f"review.{APPROVED}")
    approved = approvals[-1].seq if approvals else 0
    joined = [
        one["version"]
        for entry in session.ledger.entries(action=ACTIVATED)
        if approved and entry.seq > approved
        for one in entry.payload.get("joined", ())
        if one["task"] == version.task
    ]
    return max((one for one in joined if one > version.version), default=0)


def close_superseded(session: Session, version: Version, newer: int) -> None:
    """Leave an approved version as it is, since a newer one serves or served; raise why.

    Raises:
        ReviewRefused: always.
    """
    task, number = version.task, version.version
    error = ReviewRefused(
        f"{task} version {number} was approved before version {newer} was promoted.",
        fix=f"If it shall serve all the same: clr promote {task} {number}",
    )
    with session.lock("promote"):
        tell_review(session, version)
        _refuse(session, version, complete(session), error)
    raise error


def close_rejected(session: Session, task: str, number: int) -> Result:
    """Close a version that somebody rejected: it is no candidate any more, its reason is kept.

    Returns:
        {task, version, decision, reason, reviewer}.

    Raises:
        UsageError: no such version.
        ReviewRefused: nobody rejected it.
        ServiceUnavailable: registry or ledger cannot be used; call again.
    """
    from clr.registry.reviews import rejected
    from clr.registry.versions import drop_candidate, get_version

    with session.lock("promote"):
        version = get_version(session.registry, task, number)
        found = rejected(facts(session, version))
        if not found:
            raise ReviewRefused(f"Nobody has rejected {task} version {number}.")
        first = found[0]
        tell_review(session, version)
        drop_candidate(session.registry, version)
        tell(session, version, f"rejected by {first.reviewer}: {first.reason or 'no reason given'}")
        subject = f"clr-{task}/{number}"
        session.record(
            CLOSED,
            subject,
            {
                "adapter": version.adapter_digest,
                "source": version.source,
                "reviewer": first.reviewer,
                "reason": first.reason,
            },
            f"{CLOSED}:{subject}:{version.source}",
        )
    return {
        "task": task,
        "version": number,
        "decision": "reject",
        "reason": first.reason,
        "reviewer": first.reviewer,
    }


def tell_review(session: Session, version: Version) -> None:
    """Repeat the last decision about a version in its tags, where people look.

    A guarded server does that itself. Without one it is done by who decided and, since that
    process may have been killed in between, by who carries the decision out.
    """
    from clr.registry.versions import set_version_tags

    if session.registry.guarded:
        return
    reviews = [one for one in facts(session, version).reviews if one.source == version.source]
    if not reviews:
        return
    last = reviews[-1]
    tags = {
        "review": last.decision,
        "review.reason": last.reason,
        "clr.reviewed_by": last.reviewer,
        "clr.reviewed_at": last.time,
    }
    if any(version.tags.get(name, "") != value for name, value in tags.items()):
        set_version_tags(session.registry, version, tags)


def tell(session: Session, version: Version, sentence: str) -> None:
    """Write what became of a version's approval where people look: its tag ``clr.promotion``."""
    from clr.registry.versions import set_version_tags

    text = sentence if len(sentence) <= _TAG_LIMIT else sentence[: _TAG_LIMIT - 1] + "…"
    if version.tags.get(PROMOTION) != text:
        set_version_tags(session.registry, version, {PROMOTION: text})


def _promoted(session: Session, version: Version, release: Release, *, already: bool) -> Result:
    record(session, release)
    entry = _joining(session, version)
    if entry is not None:
        number = entry.subject.partition("/")[2]
        tell(session, version, f"release {number}, {entry.time}")
    approved = tally(session, facts(session, version)).approvals
    LOG.info(
        "promote   %s version %d is champion of release %d",
        version.task, version.version, release.version,
    )  # fmt: skip
    return {
        "task": version.task,
        "version": version.version,
        "reviewers": list(approved),
        "release": release.version,
        "release_digest": release.digest,
        "already": already,
    }


def _joining(session: Session, version: Version) -> Entry | None:
    """Return the newest entry of a release that this version joined."""
    found = None
    for entry in session.ledger.entries(action=ACTIVATED):
        for one in entry.payload.get("joined", ()):
            if (one["task"], one["version"]) == (version.task, version.version):
                found = entry
    return found
