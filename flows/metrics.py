"""Metrics for Prometheus, gathered when somebody asks and kept for a while.

Names and meanings are in docs/up.md. Whoever scrapes gets what was last gathered at once; where
that is older than `KEPT_SECONDS` it is gathered anew in a thread of its own, so neither a
scrape nor the watcher waits long for a server that hangs.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from clr.errors import ClrError
from clr.settings import Settings
from flows import arrivals, observed
from flows.observed import Prefect

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from starlette.applications import Starlette

KEPT_SECONDS = 15.0
WAIT_SECONDS = 8.0
"""Below Prometheus' default time-out of 10 s."""

Values = dict[tuple[str, ...], float]
"""By the values of a metric's labels."""

WINDOW = timedelta(days=1)
_DEPLOYMENTS = ("onboard", "promote", "reconcile", "replay-retention", "drift-check")


@dataclass(eq=False)
class Metrics:
    """What was last gathered of one workspace; a collector of prometheus_client.

    Attributes:
        settings: of the workspace.
    """

    settings: Settings
    _kept: list[Metric] = field(default_factory=list)
    _at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def collect(self) -> Iterator[Metric]:
        """Return all metrics, at most `KEPT_SECONDS` old unless gathering takes long."""
        if time.monotonic() - self._at > KEPT_SECONDS or not self._at:
            thread = threading.Thread(target=self._gather, daemon=True)
            thread.start()
            thread.join(WAIT_SECONDS)
        yield from list(self._kept)

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering asks no server."""
        return []

    def _gather(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # somebody does already
        try:
            began = time.monotonic()
            found = gather(self.settings)
            found.append(
                _gauge("clr_metrics_gather_seconds", "Time that gathering took.",
                       {(): time.monotonic() - began})
            )  # fmt: skip
            self._kept, self._at = found, time.monotonic()
        finally:
            self._lock.release()


def create_app(settings: Settings) -> Starlette:
    """Return the app with ``/metrics`` for Prometheus and ``/health``.

    Args:
        settings: of the workspace.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    registry = CollectorRegistry()
    registry.register(Metrics(settings))

    def metrics(_: Request) -> Response:  # not async: Starlette calls it in a thread
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[Route("/metrics", metrics), Route("/health", health)])


def gather(settings: Settings) -> list[Metric]:
    """Return all metrics now; what a server does not tell is left out."""
    prefect = observed.prefect_in_use(settings)
    found = [*_services(settings), *_arrivals(settings)]
    sources: tuple[Callable[[], list[Metric]], ...] = (
        partial(_flow_runs, prefect),
        partial(_registry, settings),
    )
    for source in sources:
        try:
            found += source()
        except ClrError:
            continue  # clr_up says so
    return found


def _gauge(name: str, help_text: str, values: Values, *labels: str) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    family: Any = GaugeMetricFamily(name, help_text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _services(settings: Settings) -> list[Metric]:
    from prometheus_client.core import CounterMetricFamily

    known = observed.services(settings)
    restarts = CounterMetricFamily(
        "clr_service_restarts", "Starts after the first one.", labels=["service"]
    )
    for name, one in known.items():
        restarts.add_metric((name,), one["restarts"])
    up: Values = {(name,): float(one["state"] == "up") for name, one in known.items()}
    return [_gauge("clr_up", "1 where the service answers.", up, "service"), restarts]


def _arrivals(settings: Settings) -> list[Metric]:
    known = arrivals.read_all(settings)
    counted = Counter(one.state for one in known)
    states: Values = {(state,): float(counted[state]) for state in get_args(arrivals.State)}
    metrics = [_gauge("clr_arrivals", "Records of what came in, by state.", states, "state")]
    done = [one for one in known if one.result and "seconds" in one.result]
    if done:
        last = max(done, key=lambda one: one.announced_at or one.seen_at)
        seconds = (last.result or {})["seconds"]
        steps: Values = {
            (step,): float(value) for step, value in seconds.items() if value is not None
        }
        metrics.append(
            _gauge("clr_onboard_step_seconds", "Of the last onboarding that ended.", steps, "step")
        )
    return metrics


def _flow_runs(prefect: Prefect) -> list[Metric]:
    if not prefect.api:
        return []
    now = datetime.now(UTC)
    counted: Values = {}
    times: Values = {}
    for name in _DEPLOYMENTS:
        asked = {
            "history_start": (now - WINDOW).isoformat(),
            "history_end": now.isoformat(),
            "history_interval_seconds": WINDOW.total_seconds(),
            "deployments": {"name": {"any_": [name]}},
        }
        for states in prefect.ask("/flow_runs/history", asked):
            for one in states["states"]:
                key = name, str(one["state_name"]).lower()
                counted[key] = counted.get(key, 0) + one["count_runs"]
                times[key] = times.get(key, 0) + _seconds(one["sum_estimated_run_time"])
    heard: Values = {
        (one["pool"], one["worker"]): (now - datetime.fromisoformat(one["heard"])).total_seconds()
        for one in observed.workers(prefect)
    }
    labels = ("deployment", "state")
    return [
        _gauge("clr_flow_runs", "Flow runs of the last 24 h.", counted, *labels),
        _gauge("clr_flow_run_seconds", "Sum of their run times.", times, *labels),
        _gauge("clr_worker_heartbeat_age_seconds", "Since Prefect's server heard of it.", heard,
               "pool", "worker"),
    ]  # fmt: skip


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _registry(settings: Settings) -> list[Metric]:
    from flows.registry_api import models

    if not settings.registry:
        return []
    known = models(settings)
    release = known.pop("clr-release", None)
    champions = sum("champion" in one["aliases"] for one in known.values())
    verdicts = Counter(one["tags"].get("clr.verdict") or "none" for one in known.values())
    waiting = [
        one
        for one in known.values()
        if "candidate" in one["aliases"] and one["tags"].get("review", "pending") == "pending"
    ]
    oldest = max((time.time() - one["created"] for one in waiting), default=0.0)
    version = float(release["aliases"].get("champion", 0)) if release else 0.0
    return [
        _gauge("clr_tasks", "Tasks with a champion.", {(): float(champions)}),
        _gauge("clr_release_version", "Release in force; 0: none.", {(): version}),
        _gauge("clr_candidates_waiting", "Candidates to review.", {(): float(len(waiting))}),
        _gauge("clr_candidate_oldest_seconds", "Age of the oldest of them.", {(): oldest}),
        _gauge("clr_gate_verdicts", "Tasks by the verdict on their last version.",
               {(name,): float(number) for name, number in verdicts.items()}, "verdict"),
    ]  # fmt: skip
