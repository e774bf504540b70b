"""What is where: tasks, champions, candidates, the release in force, business cases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from clr.errors import UsageError
from flows.session import Session

if TYPE_CHECKING:
    from clr.registry.versions import Version

Result = dict[str, Any]


def read_status(session: Session) -> Result:
    """Return tasks, release and services: what ``clr status --json`` prints."""
    from clr.registry.releases import current_release
    from clr.registry.versions import tasks, versions

    if not _has_registry(session):
        return {"tasks": [], "release": None, "services": _services(session)}
    registry = session.registry
    release = current_release(registry)
    champions = release.tasks if release else {}
    rows = [
        _task(name, aliases, versions(registry, name), champions.get(name))
        for name, aliases in tasks(registry).items()
    ]
    return {
        "tasks": rows,
        "release": release
        and {
            "version": release.version,
            "digest": release.digest,
            "backbone": session.settings.backbone,
            "backbone_digest": release.backbone,
            "tasks": len(release.tasks),
            "gate": release.gate,
            "router": release.router,
        },
        "services": _services(session),
    }


def _task(name: str, aliases: dict[str, int], known: list[Version], champion: Any) -> Result:
    serving = champion.version if champion else None
    by_number = {one.version: one for one in known}
    last = known[-1] if known else None
    shown = by_number.get(serving) if serving else last
    return {
        "name": name,
        "champion": serving,
        "candidate": aliases.get("candidate"),
        "versions": len(known),
        "accuracy": _accuracy(shown),
        "verdict": last.tags.get("clr.verdict") if last else None,
        "review": last.review if last else None,
    }


def _accuracy(version: Version | None) -> float | None:
    text = version.tags.get("clr.accuracy", "") if version else ""
    return float(text.split()[0]) if text else None


def _has_registry(session: Session) -> bool:
    return bool(session.settings.registry) or (session.settings.state / "mlflow.db").exists()


def _services(session: Session) -> Result:
    url = session.settings.registry
    return {"registry": url or f"embedded, {session.settings.state / 'mlflow.db'}"}


def read_roi(session: Session, task: str | None) -> Result:
    """Return the business case of a task, or of every task: what ``clr roi --json`` prints.

    Raises:
        UsageError: no such task.
    """
    from clr.data.folder import task_name
    from clr.registry.local import scratch
    from clr.registry.runs import fetch
    from clr.registry.versions import get_version, tasks, versions

    cases: Result = {}
    if task is None and not _has_registry(session):
        return {"tasks": cases}
    names = [task_name(task)] if task else list(tasks(session.registry))
    for name in names:
        found = versions(session.registry, name)
        if not found:
            raise UsageError(
                f"Task {name} has never been onboarded here.",
                fix=f"Onboarded: {', '.join(tasks(session.registry)) or 'none'}.",
            )
        aliases = {alias: one.version for one in found for alias in one.aliases}
        number = aliases.get("champion") or found[-1].version
        version = get_version(session.registry, name, number)
        with scratch(session.registry) as folder:
            path = fetch(session.registry, version.run_id, "roi.json", folder)
            cases[name] = {"version": version.version, "roi": json.loads(path.read_bytes())}
    return {"tasks": cases}
