"""Which release serves, in registry and ledger alike; what a killed process left is completed.

Three kinds of ledger entries tell how the release in force came to be. ``release.rollback`` and
``task.retired`` are written before the alias ``champion`` of ``clr-release`` moves, since
somebody orders them; ``release.activated`` follows every move. So an order without an
activation after it is still to be carried out, and a serving release without an activation is
still to be recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clr.errors import IntegrityBroken, UsageError
from flows import provenance
from flows.session import Session

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.audit.ledger import Ledger
    from clr.registry.release import Release

ACTIVATED, ROLLBACK, RETIRED = "release.activated", "release.rollback", "task.retired"


def last_move(ledger: Ledger) -> Entry | None:
    """Return the newest entry about which release serves; None before the first."""
    entries = (
        one for action in (ACTIVATED, ROLLBACK, RETIRED) for one in ledger.entries(action=action)
    )
    return max(entries, key=lambda one: one.seq, default=None)


def ordered(last: Entry | None) -> Entry | None:
    """Return the rollback or retirement that was ordered and not carried out yet."""
    return last if last is not None and last.action != ACTIVATED else None


def complete(session: Session) -> Release | None:
    """Finish what a killed process left half done; return the release in force.

    Hold the lock ``promote``. Where nothing is left to do, nothing changes.

    Raises:
        IntegrityBroken: the release in force, or the one that was ordered, is not as recorded.
    """
    from clr.registry.releases import current_release, settle

    order = ordered(last_move(session.ledger))
    if order is not None:
        carry_out(session, order)
    release = current_release(session.registry)
    if release is not None:
        settle(session.registry, release)
        record(session, release)
    return release


def carry_out(session: Session, order: Entry) -> Release:
    """Make the release serve that an entry orders, and record that it does.

    Raises:
        IntegrityBroken: it is not as recorded, or gone.
    """
    from clr.registry.releases import activate, find_release

    release = find_release(session.registry, str(order.payload["release"]))
    if release is None:
        raise IntegrityBroken(
            f"{order.subject}, which entry {order.seq} of the ledger orders, is not in the "
            "registry.",
            fix="Restore the registry from a backup, or `clr rollback --to` another release.",
        )
    activate(session.registry, release, everything=True)
    record(session, release)
    return release


def record(session: Session, release: Release) -> Entry:
    """Write into the ledger that `release` serves, unless its newest entry says so."""
    last = last_move(session.ledger)
    if last is not None and last.action == ACTIVATED and _names(last, release):
        return last
    moved_back = ordered(last) is not None and _names(last, release)
    joined = [] if moved_back else _joined(session, release)
    actor, authentication = provenance.identity(session.registry)
    return session.ledger.append(
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
        actor=actor,
        authentication=authentication,
        key=f"release:{release.digest}:{last.seq if last else 0}",
    )


def _names(entry: Entry | None, release: Release) -> bool:
    return entry is not None and entry.payload.get("release") == release.digest


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
        approved = set(tally(session, about).approvals)
        reviewers = {
            (one.reviewer, one.authentication)
            for one in about.reviews
            if one.reviewer in approved and one.source == version.source
        }
        told = [
            {"reviewer": name, "authentication": authentication}
            for name, authentication in sorted(reviewers)
        ]
        found.append({**known, "source": version.source, "reviewers": told})
    return found
