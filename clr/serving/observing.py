"""What the prediction server counts, for Prometheus.

Each app has a registry of its own, so that several can be in one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from clr.serving.drift import KINDS
from clr.serving.values import Answer, Failed

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from clr.serving.engine import Engine

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Observed:
    """Counters of one app."""

    def __init__(self, engine: Engine) -> None:
        """Start at zero."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "clr_serve_requests",
            "Requests by address and status.",
            ["endpoint", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "clr_serve_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._images = Counter(
            "clr_serve_images",
            "Images by task and how it was chosen.",
            ["task", "how"],
            registry=self._registry,
        )
        self._odd = Counter(
            "clr_serve_odd_images",
            "Images whose task is doubtful, or that look like none, by the task that answered.",
            ["task", "why"],
            registry=self._registry,
        )
        self._failed = Counter(
            "clr_serve_failed_images",
            "Images without an answer.",
            ["code"],
            registry=self._registry,
        )
        self._refused = Counter(
            "clr_serve_refused_requests",
            "Requests that were refused, by the code of the problem.",
            ["code"],
            registry=self._registry,
        )
        self._registry.register(_State(engine))

    def requested(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        """Count a request; `endpoint` is a template, so that there are few."""
        self._requests.labels(endpoint, method, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def answered(self, answers: Sequence[Answer | Failed]) -> None:
        """Count images."""
        for one in answers:
            if isinstance(one, Failed):
                self._failed.labels(one.code).inc()
            else:
                self._images.labels(one.task, one.how).inc()
                for why, odd in (("doubtful", one.doubtful), ("unknown", one.unknown)):
                    if odd:
                        self._odd.labels(one.task, why).inc()

    def refused(self, code: str) -> None:
        """Count a refusal."""
        self._refused.labels(code).inc()

    def text(self) -> bytes:
        """Return all in Prometheus' text format."""
        return generate_latest(self._registry)


class _State(Collector):
    """What the engine is now, asked when somebody scrapes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        now = self._engine.health()
        yield _gauge("clr_serve_ready", "1 where predictions are answered.", now.ready)
        yield _gauge("clr_serve_release", "Release that is served; 0: none.", now.release)
        yield _gauge("clr_serve_tasks", "Tasks that are served.", len(now.tasks))
        yield _gauge("clr_serve_waiting_images", "Images in work.", now.waiting)
        refused = GaugeMetricFamily(
            "clr_serve_task_refused", "1 for each task that is not served.", labels=["task"]
        )
        for task in now.refused:
            refused.add_metric([task], 1)
        yield refused
        yield _batches(self._engine.batches())
        yield from self._drift()

    def _drift(self) -> Iterator[Metric]:
        named = {
            "values": "Images that were looked at since the watch of an adapter began.",
            "capital": "Of the bet that they are not as before; its limit is an alarm.",
            "alarm": "1 from an alarm until another adapter serves.",
        }
        families = {
            name: GaugeMetricFamily(f"clr_drift_{name}", text, labels=["task", "kind"])
            for name, text in named.items()
        }
        for task, told in self._engine.drift().items():
            for kind in KINDS:
                if kind in told:
                    one = told[kind]
                    families["values"].add_metric([task, kind], one["values"])
                    families["capital"].add_metric([task, kind], one["capital"])
                    families["alarm"].add_metric([task, kind], float(one["alarm"] is not None))
        yield from families.values()


def _batches(sizes: Mapping[int, int]) -> HistogramMetricFamily:
    buckets = [
        (str(float(most)), float(sum(n for size, n in sizes.items() if size <= most)))
        for most in _SIZES
    ]
    return HistogramMetricFamily(
        "clr_serve_batch_images",
        "Images in a batch.",
        buckets=[*buckets, ("+Inf", float(sum(sizes.values())))],
        sum_value=float(sum(size * n for size, n in sizes.items())),
    )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))
