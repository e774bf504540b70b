"""Pick up runs that died: mark them at once, start them again, tell anew of what got lost.

`recover` is called by the watcher every few seconds. It looks at Prefect's server and at the
records of arrivals (flows/arrivals.py), holds nothing in memory, and can be killed anywhere. A
run that is marked although it lives does no harm: the lock of its task lets one work at a time,
and the other finds the version that is there.
"""

from __future__ import annotations

import logging
import os
import random
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.settings import Settings
from flows import arrivals, prefect_api
from flows.arrivals import Arrival
from flows.tracking import BEGAN, PROCESS, process_ticks

if TYPE_CHECKING:
    from flows.session import Session

LOG = logging.getLogger("clr")
Run = dict[str, Any]
FLOW = "onboard"
SETTLED_SECONDS = 10.0
"""A run that began to run just now may not have told its process yet."""

PENDING_SECONDS = 120.0
"""A worker that took a run starts its process within seconds."""

FIRST_WAIT, LONGEST_WAIT = 10.0, 600.0
"""Seconds until the second attempt, doubled for each further one, and at most."""

_DAY = timedelta(days=1)
_MOST = 200
_SLACK = 2.0


@dataclass(frozen=True)
class Recovered:
    """What one look did.

    Attributes:
        crashed: ids of runs whose process is gone.
        again: ids of runs that will be started again.
        told: digests of arrivals to be told anew.
        given_up: digests of arrivals whose last attempt died.
    """

    crashed: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()


def recover(session: Session) -> Recovered:
    """Look once at all runs and arrivals, and repair what is left to repair.

    Raises:
        ServiceUnavailable: Prefect's server cannot be reached; nothing is lost, call again.
    """
    settings = session.settings
    crashed, again = _mark(settings)
    told: list[str] = []
    given_up: list[str] = []
    waiting = [
        one
        for one in arrivals.read_all(settings)
        if one.state in ("announced", "running") and one.flow_run
    ]
    known = _by_id(settings, [one.flow_run for one in waiting])
    for arrival in waiting:
        run = known.get(arrival.flow_run)
        done = _follow(settings, arrival, run)
        {"again": again, "told": told, "given up": given_up}.get(done, []).append(
            arrival.flow_run if done == "again" else arrival.digest
        )
    again += _unrecorded(settings)
    return Recovered(tuple(crashed), tuple(again), tuple(told), tuple(given_up))


def _mark(settings: Settings) -> tuple[list[str], list[str]]:
    """Mark runs whose process on this machine is gone; put back what was never started."""
    crashed, again = [], []
    for run in _filter(
        settings, {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
    ):
        age = _age(run)
        kind = run["state_type"]
        if kind == "PENDING":
            if run.get("deployment_id") and age > _patience(run):
                LOG.warning(
                    "recover   %s was taken by a worker and not started: again", run["name"]
                )
                _schedule(settings, run, 0.0, "The worker that took it is gone.")
                again.append(run["id"])
        elif age > SETTLED_SECONDS and is_gone(run):
            name, state = (
                ("Cancelled", "CANCELLED") if kind == "CANCELLING" else ("Crashed", "CRASHED")
            )
            message = f"Its process {process(run)[1]} on {process(run)[0]} is gone."
            LOG.warning("recover   %s: its process is gone", run["name"])
            _set(settings, run["id"], {"type": state, "name": name, "message": message})
            crashed.append(run["id"])
    return crashed, again


def is_gone(run: Run) -> bool:
    """Say whether a run's process was on this machine and is no more.

    A process of the same number that began after the run did is another one.

    Args:
        run: as Prefect's API gives it, in a state that it reached after its process began.
    """
    host, number, attempt = process(run)
    if host != socket.gethostname() or not number.isdecimal() or attempt != str(run["run_count"]):
        return False
    known = str((run.get("labels") or {}).get(BEGAN, ""))
    if known:  # the clock may have jumped since
        return process_ticks(int(number)) != known
    began = process_began(int(number))
    return began is None or began > _time(run["state"]["timestamp"]).timestamp() + _SLACK


def process(run: Run) -> tuple[str, str, str]:
    """Return machine, process and attempt of who works on a run; empty where nobody said."""
    text = str((run.get("labels") or {}).get(PROCESS, ""))
    rest, _, attempt = text.rpartition(":")
    host, _, number = rest.rpartition(":")
    return host, number, attempt


def process_began(number: int) -> float | None:
    """Return when a process began, in seconds since 1970; None if there is none.

    Where the system does not tell, it is 0 for every process that exists.
    """
    try:
        # after the command's name, which may hold anything; see proc(5)
        values = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        boot = next(
            int(line.split()[1])
            for line in Path("/proc/stat").read_text().splitlines()
            if line.startswith("btime")
        )
        if values[0] == "Z":
            return None
        return boot + int(values[19]) / os.sysconf("SC_CLK_TCK")
    except FileNotFoundError:
        if Path("/proc/stat").exists():
            return None
    except (OSError, ValueError, IndexError, StopIteration):
        pass
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return 0.0


def _patience(run: Run) -> float:
    """Return for how long a run may be pending: a container's image may have to be fetched."""
    number = run.get("infrastructure_pid") or ""
    return PENDING_SECONDS if not number or number.isdecimal() else 15 * PENDING_SECONDS


def _follow(settings: Settings, arrival: Arrival, run: Run | None) -> str:
    """Do what is left to do for an arrival whose run is known; return what that was."""
    expect = (arrival.state,)
    if run is None:  # a database that was lost, or a run that somebody deleted
        again = arrivals.update(settings, arrival.digest, expect=expect, state="seen", flow_run="")
        LOG.warning("recover   the run of %s is unknown to Prefect: told anew", arrival.task)
        return "told" if again else ""
    kind = run["state_type"]
    if kind == "SCHEDULED" and _until_due(run) > 2 * LONGEST_WAIT:
        LOG.warning("recover   %s is due in days, since the clock went back: now", run["name"])
        _schedule(settings, run, 0.0, "The clock went back.")
        return "again"
    if kind in ("CRASHED", "FAILED") and run.get("deployment_id"):
        if (run.get("run_count") or 0) < settings.run_attempts:
            _again(settings, run)
            return "again"
        kind = "GIVEN UP"
    if kind == "COMPLETED":
        arrivals.update(settings, arrival.digest, expect=expect, state="done")
    elif kind in ("CRASHED", "FAILED", "CANCELLED", "GIVEN UP"):
        said = (run.get("state") or {}).get("message") or ""
        result = arrival.result or {
            "error": run["state"]["name"],
            "message": f"Its run was {run['state']['name'].lower()}. {said}".strip(),
            "fix": "Start it again: `clr onboard PATH`, or `Retry` in Prefect's UI.",
            "exit_code": 1,
        }
        arrivals.update(settings, arrival.digest, expect=expect, state="failed", result=result)
        LOG.error("recover   %s is given up after %s attempts", arrival.task, run["run_count"])
        return "given up"
    return ""


def _unrecorded(settings: Settings) -> list[str]:
    """Start again what crashed without an arrival: somebody started it by hand."""
    since = (datetime.now(UTC) - _DAY).isoformat()
    where = {"state": {"type": {"any_": ["CRASHED"]}}, "end_time": {"after_": since}}
    found = []
    for run in _filter(settings, where, flow=FLOW):
        attempts = run.get("run_count") or 0
        by_hand = run.get("deployment_id") and not run["parameters"].get("arrival")
        if by_hand and attempts < settings.run_attempts:
            _again(settings, run)
            found.append(run["id"])
    return found


def _again(settings: Settings, run: Run) -> None:
    attempts = max(run.get("run_count") or 0, 1)
    wait = min(FIRST_WAIT * 2.0 ** min(attempts - 1, 10), LONGEST_WAIT)
    wait *= random.uniform(0.8, 1.2)  # noqa: S311  # many that died at once must not return at once
    LOG.warning(
        "recover   %s ended as %s: attempt %d of %d in %.0f s",
        *(run["name"], run["state"]["name"], attempts + 1, settings.run_attempts, wait),
    )
    _schedule(settings, run, wait, f"Attempt {attempts + 1} of {settings.run_attempts}.")


def _schedule(settings: Settings, run: Run, seconds: float, message: str) -> None:
    due = datetime.now(UTC) + timedelta(seconds=seconds)
    details = {"scheduled_time": due.isoformat()}
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": message}
    _set(settings, run["id"], {**state, "state_details": details})


def _set(settings: Settings, run: str, state: Run) -> None:
    prefect_api.post(settings, f"/flow_runs/{run}/set_state", {"state": state, "force": True})


def _by_id(settings: Settings, ids: list[str]) -> dict[str, Run]:
    found: dict[str, Run] = {}
    for at in range(0, len(ids), _MOST):
        some = _filter(settings, {"id": {"any_": ids[at : at + _MOST]}})
        found |= {run["id"]: run for run in some}
    return found


def _filter(settings: Settings, where: Run, flow: str = "") -> list[Run]:
    body: Run = {"flow_runs": where, "limit": _MOST, "sort": "EXPECTED_START_TIME_DESC"}
    if flow:
        body["flows"] = {"name": {"any_": [flow]}}
    found: list[Run] = prefect_api.post(settings, "/flow_runs/filter", body)
    return found


def _age(run: Run) -> float:
    """Seconds since a run reached its state; a clock that went back makes none younger."""
    return abs((datetime.now(UTC) - _time(run["state"]["timestamp"])).total_seconds())


def _until_due(run: Run) -> float:
    due = run.get("next_scheduled_start_time")
    return (_time(due) - datetime.now(UTC)).total_seconds() if due else 0.0


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
