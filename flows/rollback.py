"""Take something back: an earlier release serves again, or a task leaves the release.

Somebody orders it, so the ledger is written first; then the aliases move together. Killed at
any point, the same command (or the release service) completes the order and adds no second.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clr.errors import IntegrityBroken, ReviewRefused, UsageError
from flows import output, provenance
from flows.activation import (
    RETIRED,
    ROLLBACK,
    carry_out,
    complete,
    moves,
    record,
    require_role,
)
from flows.session import GATE_FILE, Session

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.registry.release import ChampionRef, Release

LOG = logging.getLogger("clr")
Result = dict[str, Any]


def run_rollback(session: Session, to: int | None, reason: str) -> Result:
    """Make an earlier release serve again, its champions with it.

    Args:
        session: the workspace.
        to: number of a release that served before; by default the one before the present one,
            or, where a rollback was interrupted, the one it was ordered to.
        reason: why, kept in the ledger.

    Returns:
        {release, release_digest, from, tasks, reason, already}.

    Raises:
        UsageError: there is no such release, it never served, or nothing serves yet.
        IntegrityBroken: an adapter of that release is not as recorded; nothing has changed.
        ReviewRefused: this user has not the role release, or the release has a version that was
            rejected since.
        ServiceUnavailable: the registry cannot be used.
    """
    from clr.registry.releases import serving_version, settle

    output.log_to_stderr()
    require_role(session)
    with session.lock("promote"):
        serving = serving_version(session.registry)
        if serving is None:
            raise UsageError(
                "There is no release yet, so there is nothing to take back.",
                fix="`clr status` shows what is there.",
            )
        order = moves(session).order
        target = _target(session, serving[2], to, order)
        order = order if order is not None and _orders(order, target) else None
        if order is None and target.version == serving[0]:
            settle(session.registry, target, everything=True)
            record(session, target)
            return _told(target, 0, reason, already=True)
        _check(session, target)
        _check_reviews(session, target, serving[1])
        if order is None:
            facts = {"release": target.digest, "from": serving[1], "from_version": serving[0]}
            order = _order(session, ROLLBACK, f"clr-release/{target.version}", facts, reason)
        carry_out(session, order)
        LOG.info("rollback  release %d serves in place of %d", target.version, serving[0])
        return _told(target, order.payload["from_version"], order.payload["reason"])


def _target(session: Session, before: str, to: int | None, order: Entry | None) -> Release:
    from clr.registry.releases import find_release, get_release

    if to is not None:
        return _served(session, get_release(session.registry, to))
    if order is not None and order.action == ROLLBACK:
        before = str(order.payload["release"])
    found = find_release(session.registry, before) if before else None
    if found is None:
        raise UsageError(
            "There is no release before the one that serves.",
            fix="Name one with --to, or take a task out with `clr retire`.",
        )
    return _served(session, found)


def _served(session: Session, release: Release) -> Release:
    """Return a release that was in force once; one that was only written never is a target."""
    subject = f"clr-release/{release.version}"
    for entry in session.ledger.entries(subject=subject):
        if entry.payload.get("release") == release.digest:
            return release
    raise UsageError(
        f"Release {release.version} never served.",
        fix="`clr audit` and the ledger tell which did; approve a version to make a new one.",
    )


def _orders(order: Entry, target: Release) -> bool:
    return order.action == ROLLBACK and order.payload.get("release") == target.digest


def _check(session: Session, target: Release) -> None:
    """See that everything the release needs is there, byte by byte, before it serves."""
    from clr.core.files import sha256_file
    from clr.registry.fetch import fetch_adapter
    from clr.registry.local import scratch

    session.backbone.check()
    if target.backbone != session.backbone.digest:
        raise IntegrityBroken(
            f"Release {target.version} needs the backbone {target.backbone}, not "
            f"{session.backbone.digest}.",
            fix="Set CLR_BACKBONE to the one it was made with.",
        )
    for task, champion in sorted(target.tasks.items()):
        with scratch(session.registry) as folder:
            path = fetch_adapter(session.registry, task, champion.version, folder)
            if sha256_file(path) != champion.adapter_digest:
                raise IntegrityBroken(
                    f"Release {target.version} cannot serve: the adapter of {task} version "
                    f"{champion.version} has been changed.",
                    fix="Restore it from a backup, or roll back to another release.",
                    task=task,
                )


def _check_reviews(session: Session, target: Release, serving: str) -> None:
    """See that nobody rejected what begins to serve again; a guarded registry looks itself."""
    from clr.registry.releases import find_release
    from clr.registry.reviews import rejected
    from clr.registry.versions import get_version
    from flows.standing import facts

    try:
        now = find_release(session.registry, serving)
    except IntegrityBroken:
        now = None  # damaged: that is why one goes back
    serves = now.tasks if now else {}
    for task, champion in sorted(target.tasks.items()):
        if serves.get(task) == champion:
            continue
        closed = rejected(facts(session, get_version(session.registry, task, champion.version)))
        if closed:
            raise ReviewRefused(
                f"Release {target.version} has {task} version {champion.version}, which "
                f"{closed[0].reviewer} rejected: {closed[0].reason or 'no reason given'}.",
                fix="Champions are unchanged. Roll back to another release, or retire the task.",
            )


def run_retire(session: Session, task: str, reason: str) -> Result:
    """Take a task out of what serves: a new release without it.

    Args:
        session: the workspace.
        task: task name.
        reason: why, kept in the ledger.

    Returns:
        {release, release_digest, from, tasks, reason, already}.

    Raises:
        UsageError: no such task.
        IntegrityBroken: the release in force is not as recorded.
        ReviewRefused: this user has not the role release.
        ServiceUnavailable: the registry cannot be used.
    """
    from clr.data.folder import task_name

    output.log_to_stderr()
    require_role(session)
    with session.lock("promote"):
        now = complete(session)
        champion = now.tasks.get(task_name(task)) if now is not None else None
        if now is None or champion is None:
            return _retired_already(session, task, now, reason)
        written = _write_without(session, now, champion)
        facts = {
            "release": written.digest,
            "from": now.digest,
            "from_version": now.version,
            "adapter": champion.adapter_digest,
        }
        subject = f"clr-{task}/{champion.version}"
        carry_out(session, _order(session, RETIRED, subject, facts, reason))
        LOG.info("retire    %s serves no more; release %d", task, written.version)
        return _told(written, now.version, reason)


def _retired_already(session: Session, task: str, now: Release | None, reason: str) -> Result:
    was = [one for one in session.ledger.entries(action=RETIRED) if _about(one, task)]
    if now is None or not was:
        raise UsageError(
            f"Task {task} is not in the release that serves.",
            fix=f"Tasks in it: {', '.join(sorted(now.tasks)) if now else 'none'}.",
        )
    return _told(now, 0, str(was[-1].payload["reason"]) or reason, already=True)


def _about(entry: Entry, task: str) -> bool:
    return entry.subject.rpartition("/")[0] == f"clr-{task}"


def _write_without(session: Session, now: Release, champion: ChampionRef) -> Release:
    """Write the release without a task: it was admitted by the same gate report as before.

    Nothing that stays can get worse by it: adapters know nothing of each other, and a router
    with one task less sends no image away from its own.
    """
    from clr.core.files import canonical_json
    from clr.core.routing import Router
    from clr.registry.release import Release
    from clr.registry.releases import write_release

    tasks = {name: ref for name, ref in now.tasks.items() if name != champion.task}
    described = {name: session.evidence(ref).described for name, ref in tasks.items()}
    report = canonical_json(session.gate_report(now))
    release = Release(now.backbone, tasks, Router(described).digest, now.gate, now.digest)
    return write_release(session.registry, release, {GATE_FILE: report})


def _order(
    session: Session, action: str, subject: str, facts: dict[str, Any], reason: str
) -> Entry:
    """Write an order into the ledger: who, from which machine account, to what, why."""
    return session.record(
        action,
        subject,
        {**facts, "reason": reason, "os_user": provenance.local_user()},
        f"{action}:{facts['release']}:{moves(session).seq}",
    )


def _told(release: Release, before: int, reason: str, *, already: bool = False) -> Result:
    return {
        "release": release.version,
        "release_digest": release.digest,
        "from": before or None,
        "tasks": len(release.tasks),
        "reason": reason,
        "already": already,
    }
