"""What `clr up` has running and what it works on, asked of the processes themselves.

For `clr status` and for Prometheus: every question has a short time-out, an answer that does
not come is told as such, and neither MLflow nor Prefect is imported.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from json import JSONDecodeError, loads
from typing import Any

from clr.errors import ClrError, ServiceUnavailable
from clr.registry.faults import redact
from clr.settings import Settings
from flows import arrivals, running
from flows.prefect_api import send
from flows.supervise import answers

SECONDS = 2.0
"""How long a service may take to answer."""

MOST_RUNS = 50
Known = dict[str, Any]

_WAITING = ("SCHEDULED", "PENDING")
_WORKING = ("RUNNING", "CANCELLING")


@dataclass(frozen=True)
class Prefect:
    """How to ask the Prefect server in use.

    Attributes:
        api: its address, with ``/api``; empty where none runs.
        auth: ``user:password``, or empty.
    """

    api: str
    auth: str = ""

    def ask(self, path: str, body: Any) -> Any:
        """Return what it answers to POST.

        Raises:
            ServiceUnavailable: it does not answer.
        """
        return send(self.api, self.auth, path, body, SECONDS)


def prefect_in_use(settings: Settings) -> Prefect:
    """Return the server of ``PREFECT_API_URL``, else that of `clr up`."""
    known = {**running.prefect_environment(settings, os.environ)}
    api = os.environ.get(running.API) or known.get(running.API, "")
    return Prefect(api, os.environ.get(running.AUTH) or known.get(running.AUTH, ""))


def services(settings: Settings) -> dict[str, Known]:
    """Return each service: {state, address, since, restarts, pid}.

    State is ``up``, ``starting`` (it runs and does not answer), ``down`` (its process ended and
    is started again after a pause) or ``unreachable`` (elsewhere, and it does not answer).
    Without `clr up`, these are the servers that the settings name.
    """
    parts = _parts(settings) if running.find(settings) else {}
    named = parts or _named(settings)
    if not named:
        return {}
    with ThreadPoolExecutor(len(named)) as pool:
        states = list(pool.map(_state, named.values()))
    return {
        name: {
            "state": state,
            "address": part.get("address", ""),
            "since": part.get("since", ""),
            "restarts": part.get("restarts", 0),
            "pid": part.get("pid"),
        }
        for (name, part), state in zip(named.items(), states, strict=True)
    }


def _parts(settings: Settings) -> dict[str, Known]:
    try:
        parts: dict[str, Known] = loads(running.parts_path(settings).read_bytes())
        return parts
    except (OSError, JSONDecodeError):
        return {}


def _named(settings: Settings) -> dict[str, Known]:
    named = {}
    if settings.registry:
        url = settings.registry
        named["registry"] = {"address": redact(url), "health": f"{url}/health"}
    api = os.environ.get(running.API, "")
    if api:
        named["prefect"] = {"address": redact(api.removesuffix("/api")), "health": f"{api}/health"}
    return named


def _state(part: Mapping[str, Any]) -> str:
    pid = part.get("pid")
    if pid is not None and not _alive(pid):
        return "down"
    if not part.get("health") or answers(part["health"], SECONDS):
        return "up"
    return "unreachable" if pid is None else "starting"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def queue(settings: Settings, prefect: Prefect) -> Known:
    """Return what waits: arrivals by state, flow runs that are due, and those that are late.

    Flow runs are None where Prefect's server does not answer.
    """
    counted = Counter(one.state for one in arrivals.read_all(settings))
    now = datetime.now(UTC).isoformat()
    due = {"type": {"any_": ["SCHEDULED"]}}
    when = {"expected_start_time": {"before_": now}}
    known: Known = {"arrivals": dict(sorted(counted.items())), "scheduled": None, "late": None}
    if not prefect.api:
        return known
    try:
        known["scheduled"] = prefect.ask("/flow_runs/count", {"flow_runs": {"state": due, **when}})
        late = {"state": {"name": {"any_": ["Late"]}}}
        known["late"] = prefect.ask("/flow_runs/count", {"flow_runs": late})
    except ServiceUnavailable:
        pass
    return known


def runs(prefect: Prefect) -> list[Known]:
    """Return flow runs in progress: {flow, task, step, since, flow_run}, the oldest first.

    Raises:
        ServiceUnavailable: Prefect's server does not answer.
    """
    if not prefect.api:
        return []
    wanted = {"flow_runs": {"state": {"type": {"any_": list(_WORKING)}}}, "limit": MOST_RUNS}
    found = prefect.ask("/flow_runs/filter", {**wanted, "sort": "START_TIME_ASC"})
    steps = _steps(prefect, [one["id"] for one in found])
    return [
        {
            "flow": str(one["name"]),
            "task": _task(one.get("parameters") or {}),
            "step": steps.get(one["id"], ""),
            "since": one.get("start_time") or "",
            "flow_run": one["id"],
        }
        for one in found
    ]


def _steps(prefect: Prefect, ids: list[str]) -> dict[str, str]:
    if not ids:
        return {}
    wanted = {
        "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}},
        "flow_runs": {"id": {"any_": ids}},
    }
    found = prefect.ask("/task_runs/filter", wanted)
    return {one["flow_run_id"]: str(one["name"]).rpartition("-")[0] for one in found}


def _task(parameters: Mapping[str, Any]) -> str:
    named = parameters.get("name") or parameters.get("task")
    return str(named or str(parameters.get("path", "")).rstrip("/").rpartition("/")[2])


def workers(prefect: Prefect) -> list[Known]:
    """Return every worker that Prefect's server takes for alive: {pool, worker, heard}.

    Raises:
        ServiceUnavailable: it does not answer.
    """
    if not prefect.api:
        return []
    found = []
    for pool in prefect.ask("/work_pools/filter", {}):
        for one in prefect.ask(f"/work_pools/{pool['name']}/workers/filter", {}):
            if one.get("status") == "ONLINE" and one.get("last_heartbeat_time"):
                found.append(
                    {
                        "pool": pool["name"],
                        "worker": one["name"],
                        "heard": one["last_heartbeat_time"],
                    }
                )
    return found


def everything(settings: Settings) -> Known:
    """Return {health, queue, runs, problems}: a sentence for whatever did not answer."""
    prefect = prefect_in_use(settings)
    with ThreadPoolExecutor(3) as pool:
        health = pool.submit(services, settings)
        waiting = pool.submit(queue, settings, prefect)
        working = pool.submit(runs, prefect)
        problems: list[str] = []
        try:
            in_progress = working.result()
        except ClrError as error:
            in_progress = []
            problems.append(f"PREFECT DOES NOT ANSWER: {error.message}")
        found = health.result()
        problems += [
            f"SERVICE {name} IS {one['state'].upper()}"
            + f" ({one['address']})" * bool(one["address"])
            for name, one in found.items()
            if one["state"] != "up"
        ]
        return {
            "health": found,
            "queue": waiting.result(),
            "runs": in_progress,
            "problems": problems,
        }
