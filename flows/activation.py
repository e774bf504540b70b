"""Which release serves, in registry and ledger alike; what a killed process left is completed.

The ledger tells how the release in force came to be. ``release.rollback`` and ``task.retired``
are written before the alias ``champion`` of ``clr-release`` moves, since somebody orders them;
``release.activated`` follows every move, and ``order.refused`` an order that cannot be carried
out. So an order that nothing followed is still to be carried out, and a serving release that
is not the last one activated is still to be recorded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError, IntegrityBroken, ReviewRefused, UsageError
from clr.registry.names import ACTIVATED
from flows import provenance
from flows.session import Session

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.registry.release import Release

ROLLBACK, RETIRED, ORDER_REFUSED = "release.rollback", "task.retired", "order.refused"


@dataclass(frozen=True)
class Moves:
    """What the ledger says about which release serves.

    Attributes:
        activated: newest entry of a release that began to serve.
        order: rollback or retirement that was ordered and is not carried out yet.
        seq: number of the newest entry about any of this; 0 before the first.
    """

    activated: Entry | None
    order: Entry | None
    seq: int

    def serves(self, release: Release) -> bool:
        """Say whether `release` is recorded as the one that serves."""
        return self.activated is not None and self.activated.payload["release"] == release.digest

    def ordered(self, release: Release) -> bool:
        """Say whether it is `release` that was ordered."""
        return self.order is not None and self.order.payload["release"] == release.digest


def moves(session: Session) -> Moves:
    """Read from the ledger which release serves, and what was ordered since."""
    newest = {action: _newest(session, action) for action in (ACTIVATED, ORDER_REFUSED)}
    orders = [one for one in (_newest(session, ROLLBACK), _newest(session, RETIRED)) if one]
    order = max(orders, key=lambda one: one.seq, default=None)
    done = max((one.seq for one in newest.values() if one), default=0)
    seq = max(done, order.seq if order else 0)
    if order is not None and (order.seq < done or not may_order(session, order.actor)):
        order = None
    return Moves(newest[ACTIVATED], order, seq)


def _newest(session: Session, action: str) -> Entry | None:
    newest = deque(session.ledger.entries(action=action), maxlen=1)
    return newest[0] if newest else None


def last_moves(session: Session, activations: Iterable[Entry]) -> Callable[[str], int]:
    """Return what gives for a task the entry that last changed which version of it may serve.

    That is of a version that joined, of its retirement, or of any rollback; 0 before the first.

    Args:
        session: the workspace.
        activations: the entries of releases that began to serve, oldest first.
    """
    found: dict[str, int] = {}
    for entry in activations:
        found |= {one["task"]: entry.seq for one in entry.payload.get("joined", ())}
    for entry in session.ledger.entries(action=RETIRED):
        task = entry.subject.rpartition("/")[0].removeprefix("clr-")
        found[task] = max(found.get(task, 0), entry.seq)
    back = _newest(session, ROLLBACK)
    return lambda task: max(found.get(task, 0), back.seq if back else 0)


def may_order(session: Session, actor: str) -> bool:
    """Say whether somebody may order a rollback or a retirement.

    A server's policy gives that to the role ``release``; without one it is whoever uses the
    workspace.
    """
    from clr.registry.roles import RELEASE
    from flows.standing import policy_of

    return not session.registry.guarded or RELEASE in policy_of(session).roles(actor)


def require_role(session: Session) -> None:
    """See that whoever acts here may change what serves.

    Raises:
        ReviewRefused: a guarded server keeps the registry, and this user lacks the role.
    """
    actor, _ = provenance.identity(session.registry)
    if not may_order(session, actor):
        raise ReviewRefused(
            f"{actor} may not change what serves: that takes the role release.",
            fix="On the server's machine, leave MLFLOW_TRACKING_USERNAME unset; or ask who has it.",
        )


def complete(session: Session) -> Release | None:
    """Finish what a killed process left half done; return the release in force.

    Hold the lock ``promote``. Where nothing is left to do, nothing changes.

    Raises:
        IntegrityBroken: the release in force, or the one that was ordered, is not as recorded.
        ReviewRefused: the registry refuses what was ordered; the next call leaves it alone.
    """
    from clr.registry.releases import current_release, settle

    order = moves(session).order
    if order is not None:
        return carry_out(session, order)
    release = current_release(session.registry)
    if release is not None:
        settle(session.registry, release)
        record(session, release)
    return release


def carry_out(session: Session, order: Entry) -> Release:
    """Make the release serve that an entry orders, and record that it does.

    Raises:
        IntegrityBroken: it is not as recorded, or gone.
        ReviewRefused: the registry's policy refuses it.
    """
    from clr.registry.denial import denial
    from clr.registry.releases import activate

    try:
        release = _ordered_release(session, order)
        activate(session.registry, release, everything=True)
    except ClrError as error:
        sentence = denial(error)
        if sentence is None and not isinstance(error, IntegrityBroken):
            raise
        _refuse(session, order, sentence or error.message)
        if sentence is None:
            raise
        raise ReviewRefused(sentence, fix="Champions are unchanged.") from error
    record(session, release)
    return release


def _ordered_release(session: Session, order: Entry) -> Release:
    from clr.registry.releases import find_release

    release = find_release(session.registry, str(order.payload["release"]))
    if release is None:
        raise IntegrityBroken(
            f"The release that entry {order.seq} of the ledger orders is not in the registry.",
            fix="Restore the registry from a backup, or `clr rollback --to` another release.",
        )
    return release


def _refuse(session: Session, order: Entry, sentence: str) -> None:
    session.record(
        ORDER_REFUSED,
        order.subject,
        {"order": order.seq, "sentence": sentence},
        f"{ORDER_REFUSED}:{order.seq}",
    )


def record(session: Session, release: Release) -> Entry:
    """Write into the ledger that `release` serves, unless its newest entry says so."""
    known = moves(session)
    if known.activated is not None and known.serves(release) and known.order is None:
        return known.activated
    joined = [] if known.ordered(release) else _joined(session, release)
    return session.record(
        ACTIVATED,
        f"clr-release/{release.version}",
        {
            "release": release.digest,
            "previous": release.previous,
            "backbone": release.backbone,
            "router": release.router,
            "gate": release.gate,
            "tasks": len(release.tasks),
            "joined": joined,
            "reviewers": [one for newcomer in joined for one in newcomer["reviewers"]],
        },
        f"release:{release.digest}:{known.seq}",
    )


def _joined(session: Session, release: Release) -> list[dict[str, Any]]:
    """Return the versions that `release` has and the one before it had not, with who approved."""
    from clr.registry.releases import find_release
    from clr.registry.versions import get_version
    from flows.standing import facts, tally

    try:
        before = find_release(session.registry, release.previous) if release.previous else None
    except IntegrityBroken:
        before = None  # a damaged former release must not keep this one from being recorded
    found = []
    for task, champion in sorted(release.tasks.items()):
        if before is not None and before.tasks.get(task) == champion:
            continue
        known = {"task": task, "version": champion.version, "adapter": champion.adapter_digest}
        try:
            version = get_version(session.registry, task, champion.version)
        except UsageError:
            found.append({**known, "source": "", "reviewers": []})
            continue
        about = facts(session, version)
        counted = tally(session, about)
        reviewers = {
            (one.reviewer, one.authentication)
            for one in about.reviews
            if one.reviewer in counted.approvals and one.source == version.source
        }
        told = [
            {"reviewer": name, "authentication": authentication}
            for name, authentication in sorted(reviewers)
        ]
        found.append(
            {**known, "source": version.source, "reviewers": told, "needed": counted.needed}
        )
    return found
