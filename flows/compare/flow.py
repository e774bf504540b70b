"""The flow ``compare``: plan, do what is not done yet, then tell what all units say together."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow

from clr.errors import ClrError, UsageError
from flows import output, prefect_api, tracking
from flows.compare import results
from flows.compare.plan import (
    Plan,
    Request,
    finished,
    keep_plan,
    make_plan,
    plan_of,
    unit_path,
)
from flows.compare.record import Record
from flows.compare.tasks import Task
from flows.compare.work import Done, Job, perform
from flows.runners import fan_out
from flows.session import Session

LOG = logging.getLogger("clr")
Result = dict[str, Any]


def run_compare(
    session: Session, request: Request, tasks: Sequence[Task], place: Path | None, command: str
) -> Result:
    """Compare methods; what an earlier run of the same comparison has finished is not done again.

    Args:
        session: the workspace.
        request: which methods, seeds, images and budget.
        tasks: on which.
        place: folder of the report; None: where the comparison is kept.
        command: what was typed, for the report.

    Returns:
        see `flows.compare.results.answer`.

    Raises:
        UsageError: an unknown method.
        IntegrityBroken: what was done before is damaged.
        ServiceUnavailable: registry, Prefect server or cluster cannot be reached.
    """
    output.log_to_stderr()
    plan = _planned(session, request, tasks)
    path = keep_plan(session.settings, plan, command, datetime.now(UTC).isoformat())
    plan_of.cache_clear()
    share_cores(session)
    done = len(finished(session.settings, plan))  # a damaged one is told now, not after the work
    LOG.info(
        "compare   %s: %d units of work, %d of them done before", plan.name, len(plan.units), done
    )
    with prefect_api.reaching():
        failed = compare(str(path), str(session.settings.workspace))
    document, files = results.write(session, path, place or path.parent, failed)
    run = Record(session, plan).everything(document, files)
    return results.answer(document, files, run)


def _planned(session: Session, request: Request, tasks: Sequence[Task]) -> Plan:
    from clr.core.methods import find_method

    shared = {name: find_method(name).shared for name in request.methods}
    backbone = session.backbone
    facts = {
        "seed": session.settings.seed,
        "device": session.device,
        "backbone": {
            "name": backbone.name,
            "digest": backbone.digest,
            "parameters": backbone.parameters,
            "architecture": backbone.architecture,
        },
    }
    return make_plan(request, tasks, shared, facts)


def workers(session: Session) -> int:
    """Return how many units are worked on at once on this machine."""
    return session.settings.parallel or os.cpu_count() or 1


def share_cores(session: Session) -> None:
    """Give each of the units that run at once its part of the cores, unless ``CLR_THREADS`` does.

    Several units of one thread each are faster than one unit of several threads.
    """
    import torch

    if not session.settings.threads and session.device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers(session)))


@flow(name="compare", persist_result=False, validate_parameters=False)
def compare(plan: str, workspace: str | None = None) -> list[Result]:
    """Do every unit of a comparison that is not done yet, all workers at once.

    Args:
        plan: path of its plan file.
        workspace: folder that holds data.dvc.

    Returns:
        What failed, as errors with the unit's name.

    Raises:
        ServiceUnavailable: a cluster cannot be reached.
    """
    session = tracking.opened(workspace)
    known = plan_of(plan)
    longest_first = sorted(known.units, key=lambda key: -len(known.units[key].tasks))
    jobs = [
        Job(key, plan) for key in longest_first if not unit_path(session.settings, key).is_file()
    ]
    progress = Progress(known, jobs, Record(session, known))
    answers = fan_out(session, perform, jobs, what="compare", part=1, told=progress)
    return [{**one.failure, "unit": str(known.units[one.key])} for one in answers if one.failure]


class Progress:
    """One line for each unit that is finished, with what is left."""

    def __init__(self, plan: Plan, jobs: Sequence[Job], record: Record) -> None:
        """Begin to count time now, for `jobs` that are to be done."""
        self._plan, self._record = plan, record
        self._left = {job.key: len(plan.units[job.key].tasks) for job in jobs}
        self._jobs, self._steps = len(jobs), sum(self._left.values())
        self._began = time.monotonic()

    def __call__(self, done: Done) -> None:
        """Tell of one more."""
        self._left.pop(done.key)
        left = sum(self._left.values())
        seconds = (time.monotonic() - self._began) * left / (self._steps - left)
        if done.failure:
            said = f"failed: {done.failure['message']}"
        else:
            said = f"{100 * done.accuracy:.1f} %, {done.seconds:.0f} s"
            self._record.unit(done.key)
        rest = f"; about {_lasting(seconds)} left" if left else ""
        at = f"{self._jobs - len(self._left)} of {self._jobs}"
        LOG.info("compare   %s  %s: %s%s", at, self._plan.units[done.key], said, rest)


def _lasting(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def refusal(document: Result) -> ClrError | None:
    """Return the error of a unit that failed; None where all are finished."""
    if not document["failed"]:
        return None
    first = document["failed"][0]
    error = UsageError(
        f"{len(document['failed'])} units failed, first {first['unit']}: {first['message']}",
        fix=first["fix"],
    )
    return error
