"""One unit of work: what a method made of one task, or of a sequence of them, with one seed.

A safetensors file holds answers and logits; its metadata, canonical JSON of schema
``clr.compare.unit/1``, holds the rest. Everything that a report says is computed from such
files, so that it can be made again without training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from clr.core.files import canonical_json
from clr.errors import IntegrityBroken

SCHEMA = "clr.compare.unit/1"

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """Which unit of work.

    Attributes:
        method: its name.
        shared: whether its tasks share weights, so that `tasks` is a whole sequence.
        tasks: names in the order they are learned; one where not `shared`.
        seed: of subset, split, order of images, initial values.
        images: training images a task; 0: all, unless `per_class`.
        per_class: training images a class; 0: see `images`.
    """

    method: str
    shared: bool
    tasks: tuple[str, ...]
    seed: int
    images: int = 0
    per_class: int = 0

    def __str__(self) -> str:
        amount = f", {self.per_class} a class" if self.per_class else ""
        return f"{self.method} {' → '.join(self.tasks)} seed {self.seed}{amount}"


@dataclass(frozen=True)
class State:
    """What answers for the tasks at one moment, as the retention gate looks at it.

    Attributes:
        backbone: digest of the trusted backbone's weights in memory, computed anew.
        canaries: by task, digest of the logits of canary inputs.
    """

    backbone: str
    canaries: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Step:
    """What was measured after one more task was learned.

    Attributes:
        task: the one that was learned.
        train: images of its train split that were used, validation part included.
        seconds: wall time of learning it.
        cpu_seconds: processor time of the same; None where other work ran beside it.
        start_seconds: wall time of what is measured once for all methods: features, probe.
        memory_mb: peak resident memory while learning, above what was there before; None
            where the system does not tell, or other work ran beside it.
        cost: parameters by kind (kernels, batch_norm, head, other) and bytes that it added.
        latency: p50, p95, bare_p50, bare_p95: ms an image, with the method and without.
        state: after it was learned.
        logits: by task so far, float32 [n, classes] on its test split.
    """

    task: str
    train: int
    seconds: float
    cpu_seconds: float | None
    start_seconds: float
    memory_mb: float | None
    cost: Mapping[str, int]
    latency: Mapping[str, float]
    state: State
    logits: Mapping[str, Floats]

    def predicted(self, task: str) -> Ints:
        """Return the answers on a task's test split: int64 [n]."""
        answers: Ints = self.logits[task].argmax(1).astype(np.int64)
        return answers


@dataclass(frozen=True, eq=False)
class Unit:
    """A finished unit of work.

    Attributes:
        key: digest of all that determines it.
        asked: which one.
        steps: one a task.
        labels: by task, int64 [n], the true classes of its test split.
        majority: by task, the most frequent class of its training images.
        after: where tasks are separate: the state after the same learner was taught a small
            part of another task, which must leave this one alone; None without another task.
        about: data, code, environment, budget (digests), hardware, threads, made_at.
    """

    key: str
    asked: Asked
    steps: tuple[Step, ...]
    labels: Mapping[str, Ints]
    majority: Mapping[str, int]
    after: State | None
    about: Mapping[str, Any] = field(default_factory=dict)

    def accuracy(self, step: int, task: str) -> float:
        """Return the share of right answers on a task's test split after a step."""
        return float(np.mean(self.steps[step].predicted(task) == self.labels[task]))

    def right(self, task: str) -> NDArray[np.bool_]:
        """Return which test items of a task are answered right in the end: bool [n]."""
        found: NDArray[np.bool_] = self.steps[-1].predicted(task) == self.labels[task]
        return found

    def to_bytes(self) -> bytes:
        """Return the unit's file; equal units give equal bytes."""
        arrays: dict[str, NDArray[Any]] = {f"labels/{t}": a for t, a in self.labels.items()}
        steps = []
        for at, step in enumerate(self.steps):
            arrays |= {f"logits/{at}/{task}": one for task, one in step.logits.items()}
            facts = {name: value for name, value in vars(step).items() if name != "logits"}
            steps.append({**facts, "state": asdict(step.state)})
        facts = {
            "schema": SCHEMA,
            "key": self.key,
            "asked": asdict(self.asked),
            "steps": steps,
            "majority": dict(self.majority),
            "after": asdict(self.after) if self.after else None,
            "about": dict(self.about),
        }
        data: bytes = safetensors.numpy.save(
            {name: np.ascontiguousarray(one) for name, one in arrays.items()},
            {"unit": canonical_json(facts).decode()},
        )
        return data


def parse_unit(data: bytes) -> Unit:
    """Return the unit whose file has the bytes `data`.

    Raises:
        IntegrityBroken: not such a file.
    """
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts = json.loads(header["__metadata__"]["unit"])
        if facts["schema"] != SCHEMA:
            raise ValueError(f"unknown schema {facts['schema']}")
        arrays = safetensors.numpy.load(data)
        return Unit(
            key=facts["key"],
            asked=Asked(**{**facts["asked"], "tasks": tuple(facts["asked"]["tasks"])}),
            steps=tuple(_step(at, one, arrays) for at, one in enumerate(facts["steps"])),
            labels=_below(arrays, "labels/"),
            majority=facts["majority"],
            after=State(**facts["after"]) if facts["after"] else None,
            about=facts["about"],
        )
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise IntegrityBroken(
            f"A unit of a comparison is not of the form {SCHEMA}: {error}.",
            fix="Delete the file; `clr compare` makes it again.",
        ) from error


def _step(at: int, facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> Step:
    state = State(**facts["state"])
    return Step(**{**facts, "state": state, "logits": _below(arrays, f"logits/{at}/")})


def _below(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
