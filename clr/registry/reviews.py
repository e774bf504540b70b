"""Reviews: what people decided about a version, read from the ledger, and what it amounts to.

The tags in MLflow only repeat a review for people; what counts is the ledger's
entry. An approval is bound to the digest of the adapter and to the version's source
(``models:/m-…``), which MLflow gives out once: approving version 1 says nothing about
version 2, nor about a version 1 of a model that was deleted and made again.

An approval counts while its reviewer may review. Who lost the role, or is taken off
the task's list, no longer counts towards the quorum of what is still to be promoted.
A rejection counts for good, whoever gave it: a rejected version stays rejected.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import merge
from types import MappingProxyType
from typing import Any

from clr.audit.chain import ACTOR, Entry
from clr.audit.ledger import Ledger
from clr.errors import UsageError
from clr.registry.acts import AUTHENTICATED, Review, VersionFacts
from clr.registry.names import ACTIVATED
from clr.registry.roles import Policy

APPROVED, REJECTED = "approved", "rejected"

WORDS: Mapping[str, str] = MappingProxyType({
    "approved": APPROVED, "approve": APPROVED, "承認": APPROVED, "承認済み": APPROVED,
    "rejected": REJECTED, "reject": REJECTED, "却下": REJECTED, "否認": REJECTED,
})  # fmt: skip
"""What a person may write in the tag ``review``, in any case, width and with spaces around."""

_AROUND = " \t\r\n\"'“”‘’.!。、"


def word(text: str) -> str | None:
    """Return ``approved`` or ``rejected`` for what a person wrote, None where it is neither."""
    if len(text) > 100:
        return None
    plain = unicodedata.normalize("NFKC", text).strip(_AROUND).casefold()
    return WORDS.get(plain)


def read_reviews(ledger: Ledger, model: str, number: int) -> tuple[Review, ...]:
    """Return the decisions about version `number` of `model`, oldest first.

    Decisions about an earlier model of the same name are among them; `standing` tells.

    Raises:
        ServiceUnavailable: the ledger cannot be reached.
        IntegrityBroken: it is damaged.
    """
    return tuple(
        _review(entry)
        for entry in ledger.entries(subject=f"{model}/{number}")
        if entry.action in (f"review.{APPROVED}", f"review.{REJECTED}")
    )


def registrar(ledger: Ledger, model: str, number: int, adapter: str) -> str:
    """Return who registered a version before there was a server; empty where that is unknown.

    The server writes it into the tag ``clr.created_by``. Four eyes asks for it either way.

    Raises:
        ServiceUnavailable: the ledger cannot be reached.
        IntegrityBroken: it is damaged.
    """
    for entry in ledger.entries(subject=f"{model}/{number}", action="adapter.registered"):
        if adapter and entry.payload.get("adapter") == adapter:
            return entry.actor
    return ""


def every_review(ledger: Ledger) -> dict[str, tuple[Review, ...]]:
    """Return all decisions by what they are about (``clr-<task>/<number>``), oldest first.

    Raises:
        ServiceUnavailable: the ledger cannot be reached.
        IntegrityBroken: it is damaged.
    """
    found: dict[str, tuple[Review, ...]] = {}
    kinds = (ledger.entries(action=f"review.{decision}") for decision in (APPROVED, REJECTED))
    for entry in merge(*kinds, key=lambda one: one.seq):
        found[entry.subject] = (*found.get(entry.subject, ()), _review(entry))
    return found


def _review(entry: Entry) -> Review:
    def text(name: str) -> str:
        value = entry.payload.get(name)
        return value if isinstance(value, str) else ""

    return Review(
        reviewer=entry.actor,
        decision=entry.action.removeprefix("review."),
        adapter=text("adapter"),
        source=text("source"),
        reason=text("reason"),
        time=entry.time,
        authentication=entry.authentication,
    )


def record_review(
    ledger: Ledger,
    *,
    model: str,
    number: int,
    adapter: str,
    source: str,
    decision: str,
    reason: str,
    actor: str,
    authentication: str,
    four_eyes: bool = True,
    **facts: Any,
) -> Entry:
    """Write a decision into the ledger, once per person, version, decision and serving release.

    What is decided again after another release began to serve is another act: an approval may
    bring back what was taken back meanwhile, and has its own moment and words.

    Args:
        ledger: opened ledger.
        model: ``clr-<task>``.
        number: of the version.
        adapter: digest of the adapter's bytes that were looked at.
        source: ``models:/m-…`` of the version.
        decision: ``approved`` or ``rejected``.
        reason: the person's words.
        actor: authenticated user.
        authentication: `AUTHENTICATED` or `LOCAL`.
        four_eyes: whether the policy kept the creator from approving.
        facts: more for the entry, JSON values only.

    Returns:
        the entry; the first one where the same was decided before.

    Raises:
        UsageError: another decision, or a text is hostile or too long.
        IntegrityBroken: the ledger lost or changed its newest entries.
        ServiceUnavailable: it cannot be written.
    """
    if decision not in (APPROVED, REJECTED):
        raise UsageError(
            f"{decision[:80]!r} is no decision about a version.", fix="Give approved or rejected."
        )
    since = max((one.seq for one in ledger.entries(action=ACTIVATED)), default=0)
    payload = {
        **facts,
        "adapter": adapter,
        "source": source,
        "reason": reason,
        "decision": decision,
        "four_eyes": four_eyes,
    }
    return ledger.append(
        f"review.{decision}",
        f"{model}/{number}",
        payload,
        actor=actor,
        authentication=authentication,
        key=f"review:{model}/{number}:{source}:{ACTOR}:{decision}:{since}",
    )


def standing(reviews: Iterable[Review], adapter: str, source: str) -> tuple[Review, ...]:
    """Return the reviews that were given for exactly these bytes and this source."""
    if not adapter or not source:
        return ()
    return tuple(one for one in reviews if (one.adapter, one.source) == (adapter, source))


def rejected(version: VersionFacts) -> tuple[Review, ...]:
    """Return the rejections of `version`, oldest first; any one closes it for good.

    Bytes that changed since do not lift one. A rejection that names no source, as
    older entries do, counts for the same bytes.
    """
    return tuple(
        one
        for one in version.reviews
        if one.decision == REJECTED
        and (one.source == version.source or (not one.source and one.adapter == version.adapter))
    )


def approvals(
    version: VersionFacts, policy: Policy, *, authentication: str = AUTHENTICATED
) -> tuple[str, ...]:
    """Return who approved `version` in a way that counts now, in the order of approving.

    Different people, who may review under `policy`, authenticated in this way, none of
    them the creator under four eyes, each for the bytes and the source that are there.
    """
    if policy.four_eyes and not version.creator:
        return ()  # nobody knows whose approval would be his own
    task = version.model.removeprefix("clr-")
    names = (
        one.reviewer
        for one in standing(version.reviews, version.adapter, version.source)
        if one.decision == APPROVED
        and one.authentication == authentication
        and policy.may_review(one.reviewer, task)
        and not (policy.four_eyes and one.reviewer == version.creator)
    )
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class Tally:
    """How far the review of a version is.

    Attributes:
        approvals: who approved in a way that counts.
        needed: the quorum.
        rejections: the rejections, any of which closes the version.
    """

    approvals: tuple[str, ...]
    needed: int
    rejections: tuple[Review, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether enough approved and nobody rejected."""
        return not self.rejections and len(self.approvals) >= self.needed

    def __str__(self) -> str:
        """The tag ``clr.approvals``: ``1 of 2: alice``."""
        names = f": {', '.join(self.approvals)}" if self.approvals else ""
        return f"{len(self.approvals)} of {self.needed}{names}"


def tally(version: VersionFacts, policy: Policy) -> Tally:
    """Count the reviews of `version` as the server does."""
    task = version.model.removeprefix("clr-")
    return Tally(approvals(version, policy), policy.quorum_for(task), rejected(version))
