"""Find what nobody carried out: decisions whose webhook was lost, promotions that were killed.

Looking costs a few queries of the ledger and two calls of the registry, so it is a plain
function; flow runs are started only for what is found.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clr.errors import UsageError
from clr.registry.names import ACTIVATED
from clr.registry.reviews import APPROVED
from flows.activation import complete, last_moves, moves
from flows.promote import (
    CLOSED,
    REFUSED,
    close_rejected,
    close_superseded,
    promote_version,
    superseded_by,
)
from flows.session import Session
from flows.standing import QuorumOpen, facts, tally

if TYPE_CHECKING:
    from clr.registry.release import Release
    from clr.registry.versions import Version

LOG = logging.getLogger("clr")
Result = dict[str, Any]
Named = tuple[str, str]
"""``clr-<task>/<number>`` of a version, and its source."""


@dataclass(frozen=True)
class Found:
    """What is left to do; false where that is nothing.

    Attributes:
        decided: (task, version) of decisions to carry out, the earliest first.
        unrecorded: whether the ledger and the registry differ about which release serves.
        behind: tasks whose aliases do not say what the release says.
    """

    decided: tuple[tuple[str, int], ...] = ()
    unrecorded: bool = False
    behind: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.decided or self.unrecorded or self.behind)


def look(session: Session) -> Found:
    """Return what is left to do; changes nothing.

    Raises:
        ServiceUnavailable: registry or ledger cannot be reached.
        IntegrityBroken: the release in force is not as recorded.
    """
    from clr.registry.releases import current_release

    release, known = current_release(session.registry), moves(session)
    unrecorded = known.order is not None or (release is not None and not known.serves(release))
    return Found(_decided(session, release), unrecorded, _behind(session, release))


def _behind(session: Session, release: Release | None) -> tuple[str, ...]:
    from clr.registry.versions import CHAMPION, tasks

    champions = {task: one.version for task, one in release.tasks.items()} if release else {}
    told = {task: aliases.get(CHAMPION) for task, aliases in tasks(session.registry).items()}
    names = sorted(champions.keys() | told.keys())
    return tuple(task for task in names if champions.get(task) != told.get(task))


def _decided(session: Session, release: Release | None) -> tuple[tuple[str, int], ...]:
    """Return the versions with a decision that is due, the earliest decision first."""
    approved, rejected = (_named(session, f"review.{one}") for one in ("approved", "rejected"))
    over = _carried_out(session, approved, release) | _named(session, REFUSED).keys()
    closed = _named(session, CLOSED)
    due = {key: seq for key, seq in approved.items() if key not in over} | rejected
    found = dict[tuple[str, int], None]()
    for subject, source in sorted(due.keys() - closed.keys(), key=lambda key: due[key]):
        model, _, number = subject.rpartition("/")
        decision = model.removeprefix("clr-"), int(number)
        if decision not in found and _is_due(session, *decision, source):
            found[decision] = None
    return tuple(found)


def _named(session: Session, action: str) -> dict[Named, int]:
    """Return the versions that entries of this kind are about, with the newest entry's number."""
    entries = session.ledger.entries(action=action)
    return {(one.subject, str(one.payload.get("source", ""))): one.seq for one in entries}


def _carried_out(
    session: Session, approved: Mapping[Named, int], release: Release | None
) -> set[Named]:
    """Return the versions that joined a release and whose approvals have had their effect.

    They serve, or were taken back and stay out until somebody approves them again or promotes
    them by name.
    """
    activations = list(session.ledger.entries(action=ACTIVATED))
    moved = last_moves(session, activations)
    joined = {
        (f"clr-{one['task']}/{one['version']}", str(one["source"])): moved(one["task"])
        for entry in activations
        for one in entry.payload.get("joined", ())
    }
    serving = _serving(release)
    return {key for key, seq in joined.items() if key[0] in serving or approved.get(key, 0) < seq}


def _serving(release: Release | None) -> set[str]:
    tasks = release.tasks if release else {}
    return {f"clr-{task}/{one.version}" for task, one in tasks.items()}


def waits_for_approval(session: Session, version: Version) -> bool:
    """Say whether a version was taken back, and nobody has approved it since.

    Its former approvals count on, but do not bring it back by themselves.

    Raises:
        ServiceUnavailable: registry or ledger cannot be reached.
        IntegrityBroken: the release in force is not as recorded.
    """
    from clr.registry.releases import current_release

    release = current_release(session.registry)
    key = f"clr-{version.task}/{version.version}", version.source
    if key[0] in _serving(release):
        return False
    return key in _carried_out(session, _named(session, f"review.{APPROVED}"), release)


def _is_due(session: Session, task: str, number: int, source: str) -> bool:
    from clr.registry.versions import get_version

    if not source:
        return False  # written before sources were: nothing says what it was about
    try:
        version = get_version(session.registry, task, number)
    except UsageError:
        return False  # deleted since
    if version.source != source:
        return False
    counted = tally(session, facts(session, version))
    return bool(counted.rejections) or counted.reached


def follow(session: Session, task: str, number: int) -> Result:
    """Carry out what people decided about a version: promote it, or close it.

    Returns:
        what `promote_version` or `close_rejected` says, or {task, version, waiting} while more
        people have to approve, or somebody again.

    Raises:
        ClrError: see `promote_version`; ReviewRefused also where a newer version was promoted
            since.
    """
    from clr.registry.versions import get_version

    version = get_version(session.registry, task, number)
    if tally(session, facts(session, version)).rejections:
        return close_rejected(session, task, number)
    if newer := superseded_by(session, version):
        close_superseded(session, version, newer)
    if waits_for_approval(session, version):
        waiting = "it was taken back: somebody has to approve it again"
        return {"task": task, "version": number, "waiting": waiting}
    try:
        return promote_version(session, task, number)
    except QuorumOpen as error:
        LOG.info("promote   %s", error.message)
        return {"task": task, "version": number, "waiting": str(error)}


def repair(session: Session) -> None:
    """Make ledger and aliases say which release serves.

    Raises:
        ClrError: see `flows.activation.complete`.
    """
    from clr.registry.releases import settle

    with session.lock("promote"):
        release = complete(session)
        if release is not None:
            for task in settle(session.registry, release, everything=True):
                LOG.warning("reconcile the aliases of %s were not those of the release", task)


def can_pass(error: BaseException) -> bool:
    """Say whether a failure may pass by itself, so that trying again helps."""
    from clr.errors import DataRefused, GateRefused, IntegrityBroken, ReviewRefused
    from clr.registry.releases import StaleGate

    final = UsageError | DataRefused | GateRefused | ReviewRefused | IntegrityBroken
    return isinstance(error, StaleGate) or not isinstance(error, final)
