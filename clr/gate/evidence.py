"""What the gate is shown: values only, checked when made, never changed after.

Labels and predictions are integer class numbers, one an item; the order of the
items is the same in every array of one task. Digests are strings such as
``sha256:<hex>``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from clr.errors import IntegrityBroken, UsageError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SHARED_PARTS = ("backbone", "adapter", "preprocessing")
_MEASURED = ("params_pct", "adapter_bytes", "latency_p95_ms", "bare_latency_p95_ms")
PROVENANCE = ("data", "code", "environment", "backbone", "adapter", "recipe")


@dataclass(frozen=True)
class Snapshot:
    """The state that answers for one task, in one release.

    Attributes:
        backbone: digest of the shared weights.
        adapter: digest of the task's adapter file.
        preprocessing: digest (or canonical text) of size, mean, std, interpolation.
        environment: what equal numbers may depend on: library versions, device, threads.
        canary: digest of the logits of canary inputs, computed through the object
            that serves; empty where they were not taken.
    """

    backbone: str
    adapter: str
    preprocessing: str
    environment: str
    canary: str = ""

    def __post_init__(self) -> None:
        for name in (*SHARED_PARTS, "environment"):
            _require_text(getattr(self, name), f"the snapshot's {name}")
        if not isinstance(self.canary, str):
            raise _broken(f"The snapshot's canary is {self.canary!r}, not text.")


@dataclass(frozen=True, eq=False)
class EarlierTask:
    """One task that already has a champion, before and after the offered change.

    Attributes:
        task: its name.
        before: what serves it now.
        after: what would serve it in the new release.
        test_before: digest of its test set when `stored` was computed.
        test_after: digest of its test set today; empty where it is missing.
        labels: int [n], the true classes of the test items.
        stored: int [n], what the champion answered.
        replayed: int [n], what the new release answers; None where it was not run.
        replay_due: the policy asks for a replay in this run.
        routed_before: bool [n], sent to its own task and answered right, now.
        routed_after: bool [n], the same in the new release. None (both) where no
            router is in use.
        taken: bool [n], sent to the newcomer in the new release; None without routing.
        doubted: bool [n], sent to its own task in the new release, but doubtful on account
            of the newcomer; None without routing.
        doubted_before: bool [n], the same with the newcomer's version in use, nowhere where it
            has none; None without routing.

    Raises:
        IntegrityBroken: an array has another length or type than it must have.
    """

    task: str
    before: Snapshot
    after: Snapshot
    test_before: str
    test_after: str
    labels: Ints
    stored: Ints
    replayed: Ints | None = None
    replay_due: bool = False
    routed_before: Bools | None = None
    routed_after: Bools | None = None
    taken: Bools | None = None
    doubted: Bools | None = None
    doubted_before: Bools | None = None

    def __post_init__(self) -> None:
        _require_text(self.task, "the name of an earlier task")
        n = _freeze(self, "labels", self.task, None, np.int64)
        for name in ("stored", "replayed"):
            _freeze(self, name, self.task, n, np.int64)
        for name in ("routed_before", "routed_after", "taken", "doubted", "doubted_before"):
            _freeze(self, name, self.task, n, np.bool_)

    @property
    def n(self) -> int:
        """Number of test items."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Newcomer:
    """The task that is offered, measured on its own test split.

    Attributes:
        task: its name.
        labels: int [n], the true classes.
        predicted: int [n], answers of the new adapter.
        probe: int [n], answers of the linear probe on the frozen backbone.
        majority: int [n] or one int, the most frequent training class.
        champion: int [n], answers of this task's own champion; None if it has none.
        routed: bool [n], sent to this task and answered right; None without a router.
        strayed: how many of the n items are sent to each other task, where there are any.
        dropped: classes of the champion that this version does not know; its own test items
            cannot show what becomes of their images.
        params_pct: added kernel parameters, in percent of the backbone's.
        adapter_bytes: size of the adapter file.
        latency_p95_ms: 95th percentile of one prediction with the adapter.
        bare_latency_p95_ms: the same for the bare backbone.
        digests: provenance by name, see `PROVENANCE`.

    Raises:
        IntegrityBroken: an array is empty or has another length or type than it must have, or
            a size or time is no number. One that was not measured is not finite.
    """

    task: str
    labels: Ints
    predicted: Ints
    probe: Ints
    majority: Ints
    champion: Ints | None
    routed: Bools | None
    params_pct: float
    adapter_bytes: int
    latency_p95_ms: float
    bare_latency_p95_ms: float
    digests: Mapping[str, str]
    strayed: Mapping[str, int] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_text(self.task, "the newcomer's name")
        n = _freeze(self, "labels", self.task, None, np.int64)
        if n == 0:
            raise _broken(f"Task {self.task} has no test items.")
        if np.ndim(self.majority) == 0:
            object.__setattr__(self, "majority", np.full(n, self.majority))
        for name in ("predicted", "probe", "majority", "champion"):
            _freeze(self, name, self.task, n, np.int64)
        _freeze(self, "routed", self.task, n, np.bool_)
        for name in _MEASURED:
            _require_number(getattr(self, name), f"Task {self.task}: {name}")
        object.__setattr__(self, "digests", dict(self.digests))
        object.__setattr__(self, "strayed", dict(self.strayed))

    @property
    def n(self) -> int:
        """Number of test items."""
        return len(self.labels)


@dataclass(frozen=True)
class Limits:
    """What the gate allows; a workspace's settings ``CLR_GATE_*`` decide.

    Attributes:
        margin: largest fall of an earlier task's accuracy that a paired test may leave open.
        alpha: error rate of each one-sided test.
        routing_margin: the same as `margin`, for routed accuracy.
        max_params_pct: added kernel parameters, percent of the backbone.
        max_adapter_mb: adapter file, in MB (1 MB = 1,000,000 bytes).
        max_latency_ratio: p95 with the adapter over p95 of the bare backbone.

    Raises:
        UsageError: a limit is out of its range.
    """

    margin: float = 0.02
    alpha: float = 0.05
    routing_margin: float = 0.05
    max_params_pct: float = 2.0
    max_adapter_mb: float = 4.0
    max_latency_ratio: float = 2.0

    def __post_init__(self) -> None:
        ceilings = {"margin": 1.0, "alpha": 0.5, "routing_margin": 1.0}
        for one in fields(self):
            value, ceiling = getattr(self, one.name), ceilings.get(one.name, float("inf"))
            if not (0 < value < ceiling):
                raise UsageError(
                    f"Gate limit {one.name} = {value} is not between 0 and {ceiling:g}.",
                    fix=f"Correct CLR_GATE_{one.name.upper()}.",
                    limit=one.name,
                )


@dataclass(frozen=True, eq=False)
class Offer:
    """All that one run of the gate decides about.

    Attributes:
        newcomer: the task that is offered; None where only the shared parts change.
        earlier: every task that has a champion, but not the newcomer's own.
        declared: what the offer says it changes for earlier tasks, out of
            backbone, adapter and preprocessing. CLR declares nothing.
        matrix: the accuracy matrix of the release in force (``matrix`` of the gate
            report that admitted it); None at the first one.

    Raises:
        UsageError: `declared` names something else.
        IntegrityBroken: a task appears twice.
    """

    newcomer: Newcomer | None
    earlier: tuple[EarlierTask, ...] = ()
    declared: frozenset[str] = frozenset()
    matrix: Mapping[str, Any] | None = field(default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "earlier", tuple(self.earlier))
        object.__setattr__(self, "declared", frozenset(self.declared))
        unknown = sorted(self.declared - set(SHARED_PARTS))
        if unknown:
            raise UsageError(
                f"An offer cannot declare a change of {', '.join(unknown)}.",
                fix=f"Declare changes of {', '.join(SHARED_PARTS)} only.",
            )
        names = [one.task for one in self.earlier]
        names += [self.newcomer.task] if self.newcomer else []
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise _broken(f"The gate was shown task {', '.join(twice)} twice.")


def evidence_digest(subject: Mapping[str, Any], *arrays: npt.NDArray[Any] | None) -> str:
    """Return the sha256 over `subject` (as canonical JSON) and the arrays (as int64)."""
    state = hashlib.sha256(json.dumps(subject, sort_keys=True, separators=(",", ":")).encode())
    for array in arrays:
        state.update(b"\x00none" if array is None else b"\x00%d:" % len(array))
        if array is not None:
            state.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return f"sha256:{state.hexdigest()}"


def _require_text(value: object, what: str) -> None:
    if not isinstance(value, str) or not value:
        raise _broken(f"{what[0].upper()}{what[1:]} is missing.")


def _require_number(value: object, what: str) -> None:
    with suppress(OverflowError):  # of a whole number that is larger than all floats
        if isinstance(value, Real) and not isinstance(value, bool):
            float(value)
            return
    raise _broken(f"{what} is {value!r:.80}, not a number.")


def _freeze(owner: object, name: str, task: str, n: int | None, kind: Any) -> int:
    """Replace an attribute by a read-only 1-d copy of the right type; return its length."""
    value = getattr(owner, name)
    if value is None:
        if name in ("labels", "stored", "predicted", "probe", "majority"):
            raise _broken(f"Task {task}: {name} is missing.")
        return 0
    array = np.asarray(value)
    kinds, words = ("b", "truth values") if kind is np.bool_ else ("iu", "whole numbers")
    if array.ndim != 1 or (array.size and array.dtype.kind not in kinds):
        raise _broken(
            f"Task {task}: {name} must be a list of {words}, not {array.dtype} of shape "
            f"{array.shape}."
        )
    if n is not None and len(array) != n:
        raise _broken(f"Task {task}: {name} has {len(array)} items, the labels have {n}.")
    array = array.astype(kind, copy=True)
    array.setflags(write=False)
    object.__setattr__(owner, name, array)
    return len(array)


def _broken(message: str) -> IntegrityBroken:
    return IntegrityBroken(message, fix="Compute the evidence again from the test images.")
