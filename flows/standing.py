"""How far the review of a version is: who approved, who is missing, whether it was closed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from clr.errors import ReviewRefused
from flows.session import Session

if TYPE_CHECKING:
    from clr.registry.acts import Review, VersionFacts
    from clr.registry.reviews import Tally
    from clr.registry.roles import Policy
    from clr.registry.versions import Version


class QuorumOpen(ReviewRefused):
    """More people have to approve the version before it can be promoted."""


def policy_of(session: Session) -> Policy:
    """Return the review policy of the workspace that the registry belongs to.

    Raises:
        UsageError: its file is not one.
    """
    from clr.registry.roles import load_policy, policy_path
    from clr.registry.served import ServedLedger

    if isinstance(session.ledger, ServedLedger):
        return session.ledger.policy
    return load_policy(policy_path(session.settings.workspace))


def facts(session: Session, version: Version) -> VersionFacts:
    """Return what decides about a version: its tags, and its reviews from the ledger."""
    from clr.registry.reviews import read_reviews, registrar
    from clr.registry.store import model_name

    model, number = model_name(version.task), version.version
    found = with_reviews(version, read_reviews(session.ledger, model, number))
    if found.creator:
        return found
    creator = registrar(session.ledger, model, number, version.adapter_digest)
    return replace(found, creator=creator)


def with_reviews(version: Version, reviews: tuple[Review, ...]) -> VersionFacts:
    """Return what decides about a version, its reviews given."""
    from clr.registry.acts import VersionFacts
    from clr.registry.store import model_name

    return VersionFacts(
        model=model_name(version.task),
        number=version.version,
        creator=version.tags.get("clr.created_by", ""),
        verdict=version.tags.get("clr.verdict", ""),
        adapter=version.adapter_digest,
        source=version.source,
        gate_release=version.tags.get("clr.gate_release", ""),
        reviews=reviews,
    )


def tally(session: Session, about: VersionFacts, policy: Policy | None = None) -> Tally:
    """Count the reviews of a version, by default under the policy that is in the file now.

    On a guarded server only what its password check vouches for counts. Without one the
    reviewers are users of the operating system, of whom no policy knows anything: there
    different names are counted, and four eyes cannot be asked for.
    """
    from clr.registry import reviews

    policy, task = policy or policy_of(session), about.model.removeprefix("clr-")
    if session.registry.guarded:
        return reviews.tally(about, policy)
    standing = reviews.standing(about.reviews, about.adapter, about.source)
    approved = (one.reviewer for one in standing if one.decision == reviews.APPROVED)
    return reviews.Tally(
        tuple(dict.fromkeys(approved)), policy.quorum_for(task), reviews.rejected(about)
    )


def require_standing(session: Session, version: Version) -> Tally:
    """Return who approved a version that may be promoted as far as reviews go.

    Raises:
        QuorumOpen: more people have to approve it.
        ReviewRefused: it was rejected, its gate did not pass, or reviews without a server
            are forbidden.
    """
    require_decidable(session, version)
    counted = tally(session, facts(session, version))
    if not counted.reached:
        missing = counted.needed - len(counted.approvals)
        raise QuorumOpen(
            f"{version.task} version {version.version} has {counted} approvals: {missing} more "
            f"{'is' if missing == 1 else 'are'} needed.",
            fix=_who_may(session, version, counted),
            approvals=list(counted.approvals),
            needed=counted.needed,
        )
    return counted


def _who_may(session: Session, version: Version, counted: Tally) -> str:
    if not session.registry.guarded:
        return f"Somebody else runs: clr review {version.task} {version.version} approve"
    policy, creator = policy_of(session), version.tags.get("clr.created_by", "")
    able = [
        name
        for name in policy.reviewers_of(version.task)
        if name not in counted.approvals and not (policy.four_eyes and name == creator)
    ]
    if not able:
        return "Nobody is left who may approve it: add a reviewer with `clr users add`."
    return f"Who may approve it: {', '.join(able)}."


def require_decidable(session: Session, version: Version) -> None:
    """See that a version can still be approved.

    Raises:
        ReviewRefused: it was rejected, its gate did not pass, or reviews without a server
            are forbidden.
    """
    from clr.registry import reviews

    require_embedded_review(session)
    said = f"{version.task} version {version.version}"
    closed = reviews.rejected(facts(session, version))
    if closed or reviews.word(version.review) == reviews.REJECTED:
        reason = closed[0].reason if closed else version.tags.get("review.reason", "")
        raise ReviewRefused(
            f"{said} was rejected: {reason or 'no reason given'}.",
            fix="Onboard the task again; a rejected version stays rejected.",
        )
    if version.tags.get("clr.verdict") != "passed":
        raise ReviewRefused(
            f"{said} has not passed the retention gate ({version.tags.get('clr.verdict')}).",
            fix="Read its gate report; only what passed can be approved.",
        )


def require_embedded_review(session: Session) -> None:
    """See that the policy lets a review be given that no server vouches for.

    Raises:
        ReviewRefused: it does not, and no guarded server is in use.
    """
    if not session.registry.guarded and not policy_of(session).embedded_review:
        raise ReviewRefused(
            "The policy of this workspace accepts no review without a server "
            "(embedded_review: false in mlflow/policy.yaml).",
            fix="Start it with `clr up registry`, and approve in its page.",
        )
