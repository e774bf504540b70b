"""Which version of a task is asked about: a named one, the serving one, or that of a moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clr.audit.chain import utc_now
from clr.errors import UsageError
from flows.audit import history

if TYPE_CHECKING:
    from clr.registry.versions import Version
    from flows.audit.history import Period
    from flows.recorded import Records
    from flows.session import Session


@dataclass(frozen=True)
class Asked:
    """Which version is asked about.

    Attributes:
        task: task name.
        version: its number; None: the one that serves (at the moment `at`, if that is given).
        at: a moment, in the ledger's own form; empty: now.
    """

    task: str
    version: int | None = None
    at: str = ""


def choose(
    session: Session, asked: Asked, records: Records, times: tuple[Period, ...]
) -> tuple[Version, bool, str]:
    """Return the version, whether the registry has it, and why this one.

    Raises:
        UsageError: no such task or version, or none of it served then.
        ServiceUnavailable: the registry cannot be reached.
    """
    from clr.registry.versions import versions

    there = {one.version: one for one in versions(session.registry, asked.task)}
    gone = {
        int(subject.rpartition("/")[2])
        for subject in records.registered
        if subject.rpartition("/")[0] == f"clr-{asked.task}"
    }
    known = sorted(there.keys() | gone)
    if not known:
        raise unknown(asked.task)
    number, chosen = _number(asked, known, times)
    if number not in known:
        raise UsageError(
            f"Task {asked.task} has no version {number}.",
            fix=f"Versions: {', '.join(map(str, known))}.",
        )
    if number in there:
        return there[number], True, chosen
    return _as_recorded(asked.task, number, records), False, chosen


def unknown(task: str) -> UsageError:
    """Return the error about a task that never had a version."""
    return UsageError(
        f"No version of a task {task} was ever registered.",
        fix="`clr status` shows the tasks there are.",
    )


def _number(asked: Asked, known: list[int], times: tuple[Period, ...]) -> tuple[int, str]:
    if asked.version is not None:
        return asked.version, "named"
    if asked.at:
        return _at(asked, times), "at"
    if times and times[-1].version is not None:
        return times[-1].version, "serving"
    return known[-1], "newest"


def refuse_future(moment: str) -> None:
    """Refuse a moment, in the ledger's own form, that is still to come.

    Raises:
        UsageError: it is.
    """
    if moment > utc_now():
        raise UsageError(
            f"{moment} is in the future: nobody knows what will serve then.",
            fix="Leave --at out for what serves now.",
        )


def _at(asked: Asked, times: tuple[Period, ...]) -> int:
    refuse_future(asked.at)
    period = history.at(times, asked.at)
    if period is None:
        first = f"The first release began to serve at {times[0].begin}." if times else ""
        raise UsageError(
            f"No release served at {asked.at}.", fix=first or "Nothing was promoted yet."
        )
    if period.version is None:
        told = [one for one in times if one.version is not None]
        spans = ", ".join(f"{one.begin} to {one.end or 'now'}" for one in told[:3])
        raise UsageError(
            f"No version of {asked.task} served at {asked.at}: it was not in release "
            f"{period.release}, which was in force.",
            fix=f"It served from {spans}{' …' if len(told) > 3 else ''}."
            if spans
            else "It never served; `clr audit TASK` shows its newest version.",
        )
    return period.version


def _as_recorded(task: str, number: int, records: Records) -> Version:
    """Return a version that is gone from the registry, as the ledger recorded it."""
    from clr.registry.versions import Version

    payload = records.registered[f"clr-{task}/{number}"].payload
    return Version(
        task=task,
        version=number,
        run_id=str(payload.get("run", "")),
        model_id="",
        adapter_digest=str(payload.get("adapter", "")),
        data_digest=str(payload.get("data", "")),
    )
