"""Evaluate every task of the release again, and say loudly when one forgot.

The retention gate looks at earlier tasks when a newcomer is offered. This looks at them without
one: the same evidence and the same rules, and every test image of every task.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow

from clr.core.files import canonical_json, sha256_bytes, write_atomic
from clr.errors import ClrError, GateRefused, IntegrityBroken, ServiceUnavailable
from flows import artifacts, tracking
from flows.retained import REPLAYED
from flows.session import Session

if TYPE_CHECKING:
    from clr.registry.release import Release
    from flows.replay import Look, Question

LOG = logging.getLogger("clr")
Result = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What is seen of one task, or why nothing is.

    Attributes:
        look: see `flows.replay.Look`; None where something is broken.
        broken: the sentence then.
    """

    look: Look | None
    broken: str = ""


@flow(name="replay-retention", persist_result=False)
def replay_retention(workspace: str | None = None) -> Result:
    """Evaluate every task of the release again, on all of its test images.

    Args:
        workspace: folder that holds data.dvc. Leave it empty: it is the worker's.

    Raises:
        GateRefused: a task answers otherwise than when it was admitted, or it cannot be proved.
        ServiceUnavailable: the registry cannot be reached.
    """
    session = tracking.opened(workspace)
    tracking.say_where()
    return replay(session)


def replay(session: Session) -> Result:
    """Evaluate all tasks, keep the report, and record it in the ledger.

    Returns:
        {verdict, sentence, release, tasks, failed, broken, report: digest of ``gate.json``,
        reports: {gate}}.

    Raises:
        GateRefused: with the same as its data, where not everything is proved.
        ServiceUnavailable: the registry cannot be reached.
    """
    from clr.registry.releases import current_release

    release = current_release(session.registry)
    if release is None:
        LOG.info("replay    nothing serves yet")
        return {"verdict": "pass", "sentence": "Nothing serves yet.", "release": None, "tasks": 0}
    report = examine(session, release, everything=True)
    data = canonical_json(report)
    place = keep(session, data, report)
    result = {
        "verdict": report["verdict"],
        "sentence": report["sentence"],
        "release": release.version,
        "tasks": len(release.tasks),
        "failed": failures(report),
        "broken": report["broken"],
        "report": sha256_bytes(data),
        "reports": {"gate": str(place / "gate.html")},
    }
    _record(session, release, result)
    artifacts.gate("replay-retention", report)
    LOG.info("replay    %s", report["sentence"])
    if report["verdict"] != "pass":
        raise GateRefused(
            f"Retention of release {release.version}: {report['sentence']}",
            fix=f"Read {place / 'gate.html'}; `clr verify` names what was changed, "
            "`clr rollback` goes back to the release before.",
            **result,
        )
    return result


def examine(session: Session, release: Release, *, everything: bool) -> Result:
    """Ask the gate about every task of a release, without a newcomer.

    Args:
        session: the workspace.
        release: what serves.
        everything: replay all test images; else only those whose environment has changed.

    Returns:
        a report of schema ``clr.gate/1`` with ``release`` and ``broken``: sentence by task whose
        evidence, adapter or images are not what was recorded. Its verdict fails then.

    Raises:
        ServiceUnavailable: the registry cannot be reached.
    """
    from clr.gate.evidence import Offer
    from clr.gate.verdict import decide
    from flows.judge import limits
    from flows.offered import shown
    from flows.replay import Question
    from flows.runners import fan_out

    session.backbone.check()
    asked = [Question(release.tasks[task], everything) for task in sorted(release.tasks)]
    answers = fan_out(session, look_or_say, asked, what="replay")
    broken = {
        one.champion.task: seen.broken
        for one, seen in zip(asked, answers, strict=True)
        if seen.look is None
    }
    if not broken:
        _check_router(session, release, broken)
    earlier = [
        shown(release, session.evidence(one.champion), seen.look, None)
        for one, seen in zip(asked, answers, strict=True)
        if seen.look is not None
    ]
    report = decide(Offer(newcomer=None, earlier=tuple(earlier)), limits(session)).to_dict()
    if broken:
        names = ", ".join(sorted(broken))
        report["verdict"] = "fail"
        report["sentence"] = f"Not what was recorded: {names}. {next(iter(broken.values()))}"
    return {
        **report,
        "title": f"Retention of release {release.version}",
        "release": release.digest,
        "broken": broken,
    }


def failures(report: Result) -> list[str]:
    """Return what is not proved, as ``<check>:<task>``."""
    broken = [f"integrity:{task}" for task in sorted(report["broken"])]
    return [*report["failed"], *report["inconclusive"], *broken]


def look_or_say(session: Session, asked: Question) -> Answer:
    """Look at one task; what is broken about it is an answer, too. Runs where a worker is.

    Raises:
        ServiceUnavailable: the registry cannot be reached.
    """
    from flows.replay import look

    try:
        return Answer(look(session, replace(asked)))
    except ServiceUnavailable:
        raise
    except ClrError as error:
        return Answer(None, error.message)


def _check_router(session: Session, release: Release, broken: dict[str, str]) -> None:
    try:
        session.router(release)
    except IntegrityBroken as error:
        broken["the router"] = error.message


def keep(session: Session, data: bytes, report: Result) -> Path:
    """Write a report under ``CLR_HOME/retention/<time>/`` and return the folder."""
    from clr.gate.report import gate_html

    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    place = session.settings.state / "retention" / stamp
    place.mkdir(parents=True)
    write_atomic(place / "gate.html", gate_html(report).encode())
    write_atomic(place / "gate.json", data)
    return place


def _record(session: Session, release: Release, result: Result) -> None:
    told = {name: result[name] for name in ("verdict", "sentence", "tasks", "failed", "report")}
    session.record(
        REPLAYED,
        f"clr-release/{release.version}",
        {**told, "release": release.digest},
    )
