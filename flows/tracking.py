"""A flow run and the arrival that it works on: who works on it, and what came of it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clr.errors import DataRefused, ServiceUnavailable, UsageError
from clr.settings import Settings
from flows import arrivals, output, prefect_api
from flows.session import Session, open_session

LOG = logging.getLogger("clr")
Result = dict[str, Any]
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
"""Types of states in which nothing runs any more."""

PROCESS = "clr.process"
"""Label of a run: ``<host>:<process>:<attempt>`` of who works on it."""

BEGAN = "clr.process.began"
"""Label of a run: when that process began, as `process_ticks` tells it."""

DUPLICATE, DRIFT = "Duplicate", "Drift"
END_NAMES = ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut", DUPLICATE, DRIFT)
"""Names of such states; Prefect's events carry the name."""


def run_id() -> str:
    """Return the id of the flow run that this is; empty outside of one."""
    found = _run()
    return str(found.id) if found else ""


def is_deployed() -> bool:
    """Say whether a worker started this run, for whoever may use Prefect's server."""
    found = _run()
    return bool(found and found.deployment_id)


def _run() -> Any:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return context.flow_run if context else None


def opened(workspace: str | None) -> Session:
    """Return the session; a worker's run is for the worker's workspace alone.

    Raises:
        UsageError: no such workspace, or not the worker's.
    """
    if not is_deployed():
        return open_session(workspace)
    output.log_to_stderr()  # at this level Prefect keeps the lines, too, for who follows the run
    session = open_session()
    own = session.settings.workspace.resolve()
    if workspace and Path(workspace).resolve() != own:
        raise UsageError(
            f"This worker works for {own}, not for {workspace}.",
            fix="Leave `workspace` empty, or start the run where a worker of that one looks.",
        )
    return session


def folder(settings: Settings, path: str, arrival: str | None) -> Path:
    """Return the folder that a run is to read; a worker's run reads what came in only.

    Raises:
        UsageError: it lies elsewhere.
    """
    return arrivals.confine(settings, path, arrival or "") if is_deployed() else Path(path)


def process_ticks(number: int) -> str | None:
    """Return when a process began, in ticks since the system started: no clock changes it.

    None if there is none, or where the system does not tell.
    """
    try:
        # after the command's name, which may hold anything; see proc(5)
        values = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if values[0] == "Z" else values[19]


def say_where() -> None:
    """Write machine, process and attempt into this run, so that its death is noticed at once.

    A failure is no reason to stop.
    """
    found = _run()
    if found is None or not os.environ.get("PREFECT_API_URL"):
        return
    from prefect.client.orchestration import get_client

    here = f"{socket.gethostname()}:{os.getpid()}:{found.run_count}"
    try:
        with get_client(sync_client=True) as client:
            began = process_ticks(os.getpid()) or ""
            client.update_flow_run_labels(found.id, {PROCESS: here, BEGAN: began})
    except Exception as error:
        LOG.warning("onboard   Prefect's server does not note who works: %s", error)


def take(settings: Settings, digest: str, task: str, place: Path) -> str:
    """Make an arrival this run's.

    Args:
        settings: of the workspace.
        digest: of the arrival.
        task: its name, where nobody has recorded it yet: it came by an event from elsewhere.
        place: its folder, likewise.

    Returns:
        Empty, or why nothing is left to do: another run works on it, or it is finished.

    Raises:
        UsageError: `digest` is none.
        ServiceUnavailable: records or server cannot be used.
    """
    mine = run_id()
    working = {"state": "running", "flow_run": mine}
    arrivals.claim(settings, task, place, digest, "event")
    for _ in range(10):  # whoever else wants it changes it meanwhile
        known = arrivals.get(settings, digest)
        if known is None:
            return ""
        if known.flow_run != mine:
            if known.state in ("done", "refused"):
                return f"{known.task} was onboarded by run {known.flow_run}: {known.state}"
            if (
                known.state == "running"
                and known.flow_run
                and not _has_ended(settings, known.flow_run)
            ):
                return f"run {known.flow_run} works on {known.task}"
        if arrivals.update(settings, digest, expect=(known.state,), **working):
            return ""
    raise ServiceUnavailable(f"The record of {task} changes all the time.", fix="Try again.")


def require_same(settings: Settings, digest: str | None, path: Path, name: str | None) -> None:
    """See that a folder still holds the arrival that a run was started for.

    What it holds now is an arrival of its own. The record of this one counts as that of
    something taken away, so that the same content starts a run when it comes back.

    Args:
        settings: of the workspace.
        digest: of the arrival; empty: the run takes whatever is there.
        path: the folder; one that is gone is left to the step that needs it.
        name: of the task, where the folder's is not one.

    Raises:
        UsageError: it holds something else.
        ServiceUnavailable: it cannot be read, or the records cannot be written.
    """
    root = path.resolve()
    if not digest or not root.is_dir():
        return
    if arrivals.digest_folder(settings, root, name or root.name) != digest:
        arrivals.update(settings, digest, left=True)
        raise UsageError(
            f"{root} has changed: it does not hold what this run was started for.",
            fix="What is in incoming/ now arrives by itself; from elsewhere, "
            "run `clr onboard PATH` again.",
        )


def _has_ended(settings: Settings, run: str) -> bool:
    """Say whether a run is over, or unknown to the server."""
    found = prefect_api.post(
        settings, "/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "limit": 1}
    )
    return not found or found[0]["state_type"] in ENDED


def through(settings: Settings, digest: str, work: Callable[[], Result]) -> Result:
    """Do the work on an arrival and record what came of it.

    What may pass by itself leaves the record ``running``: the run is started again by
    flows/recover.py, and only its last failure is an end.
    """
    try:
        result = work()
    except Exception as error:
        known = output.as_clr_error(error)  # a full disk, say, passes by itself
        changes: dict[str, Any] = {"result": known.as_dict()}
        if not isinstance(known, ServiceUnavailable):
            changes["state"] = "refused" if isinstance(known, DataRefused) else "failed"
        _note(settings, digest, **changes)
        if known is error:
            raise
        raise known from error
    refused = result.get("verdict") == "data-refused"
    _note(settings, digest, state="refused" if refused else "done", result=result)
    return result


def _note(settings: Settings, digest: str, **changes: Any) -> None:
    mine = run_id()
    known = arrivals.get(settings, digest)
    if known is not None and known.flow_run == mine:  # else another took over
        arrivals.update(settings, digest, expect=(known.state,), **changes)
