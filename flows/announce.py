"""Tell Prefect's server of what arrived, until a flow run is there that works on it.

An event that the server took may still be lost: it keeps events in memory before it acts on
them. So an arrival counts as told only when a flow run names it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from clr.settings import Settings
from flows import arrivals, prefect_api
from flows.arrivals import Arrival

LOG = logging.getLogger("clr")
EVENT, RESOURCE = "clr.task.arrived", "clr.task."
FLOW = "onboard"
FIRST_WAIT, LONGEST_WAIT = 30.0, 600.0
"""Seconds after which an event that started nothing is sent again, and at most."""

LIVE = frozenset({"SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"})
_NAMESPACE = uuid.UUID("5c9b1a53-54c0-5d3c-9a53-63d6b1a8a0c1")
_PAGE, _PAGES = 200, 25


def announce(settings: Settings, arrival: Arrival) -> Arrival | None:
    """Send the event ``clr.task.arrived`` of an arrival, and note that the server took it.

    The event's id follows from digest and attempt: one that is sent twice because the answer
    was lost is one event.

    Returns:
        The record; None where somebody went on with it meanwhile.

    Raises:
        ServiceUnavailable: the server did not take it; nothing is lost, call again.
    """
    prefect_api.post(settings, "/events", [event(settings, arrival)])
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    changes: dict[str, Any] = {"announced_at": now, "attempts": arrival.attempts + 1}
    told = {"state": "announced", **changes}
    return arrivals.update(settings, arrival.digest, expect=("seen", "announced"), **told)


def event(settings: Settings, arrival: Arrival) -> dict[str, Any]:
    """Return the event of an arrival as Prefect's API takes it."""
    text = f"{arrival.digest} {arrival.seen_at} {arrival.attempts}"
    path = arrivals.location(settings, arrival)
    return {
        "id": str(uuid.uuid5(_NAMESPACE, text)),
        "occurred": datetime.now(UTC).isoformat(),
        "event": EVENT,
        "resource": {
            "prefect.resource.id": RESOURCE + arrival.task,
            "prefect.resource.name": arrival.task,
        },
        "payload": {
            "task": arrival.task,
            "path": arrival.path,
            "digest": arrival.digest,
            "source": arrival.source,
            "images": _count(path),
        },
    }


def tell_all(settings: Settings) -> int:
    """Announce what is new, and again what no flow run names in good time.

    Returns:
        How many arrivals still wait for a flow run.

    Raises:
        ServiceUnavailable: the server cannot be reached.
    """
    known = arrivals.read_all(settings)
    for one in known:
        if one.state == "seen" and one.task:
            announce(settings, one)
            LOG.info("announced %s", one.task)
    waiting = [one for one in known if one.state == "announced" and not one.flow_run]
    late = [one for one in waiting if _is_late(one)]
    runs = {run["parameters"].get("arrival"): run for run in _runs(settings)} if late else {}
    for one in late:
        run = runs.get(one.digest)
        if run is not None and (run["state_type"] in LIVE or run["created"] > one.seen_at):
            arrivals.update(settings, one.digest, expect=("announced",), flow_run=run["id"])
        else:
            LOG.warning("announced %s started no run: again", one.task)
            announce(settings, one)
    return len(waiting)


def _is_late(arrival: Arrival) -> bool:
    told = datetime.fromisoformat(arrival.announced_at)
    wait: float = min(FIRST_WAIT * 2.0 ** min(arrival.attempts - 1, 10), LONGEST_WAIT)
    # a clock that jumped back must not make it wait for as long
    return abs((datetime.now(UTC) - told).total_seconds()) > wait


def _runs(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the newest runs of the flow last, so that a later one wins."""
    found: list[dict[str, Any]] = []
    for page in range(_PAGES):
        body = {
            "flows": {"name": {"any_": [FLOW]}},
            "sort": "EXPECTED_START_TIME_DESC",
            "limit": _PAGE,
            "offset": page * _PAGE,
        }
        part = prefect_api.post(settings, "/flow_runs/filter", body)
        found += part
        if len(part) < _PAGE:
            break
    yield from reversed(found)


def _count(folder: Any) -> int:
    """How many files, for people who read the event; not a promise."""
    from clr.data.listing import walk

    try:
        return sum(path.startswith(("train/", "test/")) for path, _ in walk(folder))
    except (OSError, RecursionError):
        return 0
