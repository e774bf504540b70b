"""Does what the line sends still look like what each task was judged on? With bounded memory.

Two values of an image are followed by clr/gate/exchangeability.py, which says when they stop being
like those before, at a stated rate of false alarms:

- ``features``: the squared Mahalanobis distance of the image's features, as the router sees them,
  from the nearest class of the task; compared with the test images in the task's evidence.
- ``confidence``: the probability of the answer; compared with those of the test images in the
  task's evidence, or, where evidence of an earlier version of this project has none, with what the
  adapter said here at first.

Both are ranks of values that need not have any distribution. What they need is that images come
as if drawn from one lot: many frames of one scene, or another mix of classes, are a change, too.
An alarm stays until another adapter serves the task, also across a restart; what the bets had won
until then does not. Images are thinned out by the clock, never by what is on them: a few a second
are enough, and cost little.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.core.files import canonical_json, write_atomic
from clr.errors import ClrError, ServiceUnavailable
from clr.gate.exchangeability import FALSE_ALARMS, Stream

if TYPE_CHECKING:
    from clr.core.evidence import Evidence
    from clr.core.routing import Floats, Ints
    from clr.serving.values import Answer

LOG = logging.getLogger("clr")
KINDS = ("features", "confidence")
PAUSE = 0.2
"""Seconds between two images of a task that are looked at."""

_REFERENCE = 2000
"""Test images that a task is compared with, at most: of more, so many drawn at random."""

_AGAIN = 60.0
"""Seconds until evidence is asked for again that could not be had."""

_DIGITS = 4
"""Of a probability: one image has the same in a batch and by itself, to more digits than these."""

_WAITING = 256
_KEEP_SECONDS = 5.0

Evidenced = Callable[[str, str], "Evidence | None"]
Serves = Callable[[str, str], bool]


@dataclass(eq=False)
class _Watched:
    """One task under one adapter."""

    adapter: str
    version: int
    distances: Callable[[Floats], Floats] | None
    streams: dict[str, Stream]
    alarms: dict[str, float] = field(default_factory=dict)

    def add(self, kind: str, value: float) -> bool:
        """Take a value; say whether this is a new alarm."""
        if self.streams[kind].add(value) and kind not in self.alarms:
            self.alarms[kind] = time.time()
            return True
        return False

    def told(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "adapter": self.adapter,
            **{
                kind: {
                    "values": one.count,
                    "capital": one.capital,
                    "limit": 1 / one.rate,
                    "alarm": self.alarms.get(kind),
                }
                for kind, one in self.streams.items()
            },
        }


def drift_path(state: Path) -> Path:
    """Return where the server keeps what it found, for the flow that reads it."""
    return state / "serving" / "drift.json"


def read_drift(state: Path) -> dict[str, dict[str, Any]]:
    """Return what the server found, by task; nothing where it never ran."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(drift_path(state).read_bytes())
        return found
    except (OSError, ValueError):
        return {}


def alarms(told: dict[str, Any]) -> dict[str, float]:
    """Return {kind: since when, seconds since 1970} of the alarms in what was found of a task."""
    since = {kind: told.get(kind, {}).get("alarm") for kind in KINDS}
    return {kind: time for kind, time in since.items() if time is not None}


class Drift:
    """Watches every task in one thread; what comes too fast is left out."""

    def __init__(
        self,
        state: Path,
        evidence: Evidenced,
        serves: Serves = lambda task, adapter: True,
        *,
        seed: int = 0,
        pause: float = PAUSE,
    ) -> None:
        """Begin, with the alarms that were kept.

        Args:
            state: ``CLR_HOME``.
            evidence: returns that of a task's adapter; None: it cannot be read.
            serves: says whether an adapter serves a task, as far as that is known.
            seed: of the numbers that break ties.
            pause: seconds between two images of a task.
        """
        self._state, self._evidence, self._seed, self._pause = state, evidence, seed, pause
        self._serves = serves
        self._earlier = read_drift(state)
        self._watched: dict[str, _Watched] = {}
        self._due: dict[tuple[str, str], float] = {}
        self._asked: dict[str, float] = {}
        self._queue: queue.Queue[tuple[Answer, Floats | None, bool] | None]
        self._queue = queue.Queue(_WAITING)
        self._kept = 0.0
        self._thread = threading.Thread(target=self._work, name="clr-drift", daemon=True)
        self._thread.start()

    def observe(self, answer: Answer, features: Floats | None) -> None:
        """Take an answer, and the image's features where the router saw them."""
        if answer.arm != "champion" or not self._is_due(answer.task, "confidence"):
            return
        self._put(answer, features, True)

    def wants(self, answer: Answer) -> bool:
        """Say whether features of an image are wanted that the router did not see.

        Not where a challenger answered: its adapter does not serve, and would begin all anew.
        """
        return answer.arm == "champion" and self._is_due(answer.task, "features")

    def saw(self, answer: Answer, features: Floats) -> None:
        """Take features that were `wants`-ed."""
        self._put(answer, features, False)

    def told(self) -> dict[str, dict[str, Any]]:
        """Return what is known by task.

        Returns:
            {task: {version, adapter, features, confidence}}, the last two with {values, capital,
            limit, alarm: seconds since 1970 or None}.
        """
        earlier = {
            task: one
            for task, one in self._earlier.copy().items()
            if self._serves(task, one["adapter"])
        }
        watched = {task: one.told() for task, one in self._watched.copy().items()}
        return dict(sorted((earlier | watched).items()))

    def close(self) -> None:
        """End; what was found is kept."""
        self._queue.put(None)
        self._thread.join()

    def _is_due(self, task: str, kind: str) -> bool:
        now = time.monotonic()
        if now < self._due.get((task, kind), 0.0):
            return False
        self._due[task, kind] = now + self._pause
        return True

    def _put(self, answer: Answer, features: Floats | None, confidence: bool) -> None:
        with suppress(queue.Full):  # what is left out then has nothing to do with what is on it
            self._queue.put_nowait((answer, features, confidence))

    def _work(self) -> None:
        while (one := self._queue.get()) is not None:
            try:
                self._take(*one)
            except Exception:
                LOG.exception("drift     this should not happen; the image is left out")
        self._keep()

    def _take(self, answer: Answer, features: Floats | None, confidence: bool) -> None:
        known = self._watched.get(answer.task)
        if known is None or known.adapter != answer.adapter:
            known = self._begin(answer)
            if known is None:
                return
            self._watched[answer.task] = known
            self._earlier.pop(answer.task, None)
        found = []
        if confidence and known.add("confidence", round(answer.probability, _DIGITS)):
            found.append("confidence")
        if features is not None and known.distances is not None:
            score = float(known.distances(features[None])[0])
            if known.add("features", score):
                found.append("features")
        for kind in found:
            LOG.warning("drift     the %s of %s are not as before", kind, answer.task)
        if found or time.monotonic() - self._kept > _KEEP_SECONDS:
            self._keep()

    def _begin(self, answer: Answer) -> _Watched | None:
        """Return what a task is compared with; None: that is not known yet."""
        from clr.core.routing import Router

        now = time.monotonic()
        if now < self._asked.get(answer.adapter, 0.0):
            return None
        references: dict[str, list[float]] = {"confidence": []}
        distances = None
        try:
            evidence = self._evidence(answer.task, answer.adapter)
        except ServiceUnavailable as error:
            self._asked[answer.adapter] = now + _AGAIN
            LOG.warning("drift     %s is not watched yet: %s", answer.task, error.message)
            return None
        except ClrError as error:
            LOG.warning("drift     features of %s are not watched: %s", answer.task, error.message)
            evidence = None
        if evidence is not None:
            distances = Router({answer.task: evidence.described}).distances
            drawn = _drawn(len(evidence.features))
            references["features"] = distances(evidence.features[drawn]).tolist()
            if evidence.confidence is not None:
                sure = evidence.confidence[drawn]
                references["confidence"] = sure.round(_DIGITS).tolist()
        streams = {
            kind: Stream(reference, seed=self._seed, rate=FALSE_ALARMS / 2)
            for kind, reference in references.items()
        }
        known = self._earlier.get(answer.task, {})
        kept = alarms(known) if known.get("adapter") == answer.adapter else {}
        return _Watched(answer.adapter, answer.version, distances, streams, kept)

    def _keep(self) -> None:
        self._kept = time.monotonic()
        path = drift_path(self._state)
        try:
            write_atomic(path, canonical_json(self.told()))
        except OSError as error:
            LOG.warning("drift     %s cannot be written: %s", path, error)


def _drawn(count: int) -> Ints:
    """Return which test images to compare with; they are kept by class, the line's come mixed."""
    import numpy as np

    if count <= _REFERENCE:
        return np.arange(count)
    return np.random.default_rng(0).choice(count, _REFERENCE, replace=False)
