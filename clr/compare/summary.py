"""From finished units to one document of schema ``clr.compare/1``: every figure of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clr.compare.retention import Learned, judge, sequences
from clr.compare.retention import summary as gate_summary
from clr.compare.statistics import (
    Estimate,
    forward_transfer,
    items_interval,
    mean_interval,
    paired,
    transfer,
)
from clr.compare.unit import Unit
from clr.gate.evidence import Limits

SCHEMA = "clr.compare/1"
PROBE, UPPER = "probe", "fine-tuning"
"""The baseline of the gate, and what a task reaches when all weights learn it alone."""

REFERENCES = ("probe", "clr-reduced")
"""Every method is compared with these, where they take part."""

Document = dict[str, Any]
Runs = Mapping[int, Sequence[Sequence[Learned]]]
"""By seed, the sequences of one method: one an order."""


def summarise(
    units: Sequence[Unit],
    methods: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    limits: Limits,
) -> Document:
    """Return the document of a comparison, as far as it is finished.

    Args:
        units: that are done.
        methods: by name, in the order of the report: title, source, shared.
        about: of the plan: seeds, orders, amounts, backbone, …; tasks in the order given.
        limits: of the gate.

    Returns:
        `about` with ``schema``; ``methods``: one entry each, over all seeds, for the largest
        amount of images; ``curves``: accuracy against images a class, where there are several
        amounts. Figures that too few units are finished for are None.
    """
    amounts = [(one["images"], one["per_class"]) for one in about["amounts"]]
    by_amount = {
        amount: _by_method(
            [one for one in units if (one.asked.images, one.asked.per_class) == amount],
            methods,
            about["orders"],
        )
        for amount in amounts
    }
    runs = by_amount[amounts[-1]]
    references = [one for one in REFERENCES if one in runs]
    entries = [
        {"name": name, **methods[name], **_entry(name, runs, references, about, limits)}
        for name in methods
    ]
    return {
        "schema": SCHEMA,
        **about,
        "references": references,
        "methods": entries,
        "curves": _curves(by_amount, about) if len(amounts) > 1 else None,
    }


def _by_method(
    units: Sequence[Unit], methods: Mapping[str, Any], orders: Sequence[Sequence[str]]
) -> dict[str, Runs]:
    found: dict[str, Runs] = {}
    for name in methods:
        by_seed: dict[int, list[list[Learned]]] = {}
        for one in sequences([unit for unit in units if unit.asked.method == name], orders):
            by_seed.setdefault(one[0].unit.asked.seed, []).append(one)
        found[name] = dict(sorted(by_seed.items()))
    return found


def matrix_of(sequence: Sequence[Learned]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return R [T, T]: accuracy on task j after learning task i, 0 where j was not learned yet."""
    size = len(sequence)
    matrix = np.zeros((size, size))
    for i, now in enumerate(sequence):
        for j, one in enumerate(sequence[: i + 1]):
            last = now if now.unit is one.unit else one
            matrix[i, j] = last.unit.accuracy(last.step, one.task)
    return matrix


def _entry(
    name: str,
    runs: Mapping[str, Runs],
    references: Sequence[str],
    about: Mapping[str, Any],
    limits: Limits,
) -> Document:
    mine, tasks = runs[name], [one["name"] for one in about["tasks"]]
    if not mine:
        return {"seeds": []}
    final = _final(mine, tasks)
    every = [one for many in mine.values() for sequence in many for one in sequence]
    # separate tasks are learned once for all orders
    learned = list({(one.unit.key, one.step): one for one in every}.values())
    return {
        "seeds": list(mine),
        "average": mean_interval([float(np.mean(one)) for one in final.values()]).to_dict(),
        "accuracy": {
            task: {
                **mean_interval([row[at] for row in final.values()]).to_dict(),
                "values": [round(row[at], 6) for row in final.values()],
            }
            for at, task in enumerate(tasks)
        },
        **_transfers(name, mine, runs.get(UPPER, {})),
        "matrix": _matrix(mine, about["orders"]),
        "against": {
            other: _against(mine, runs[other], tasks) for other in references if other != name
        },
        "gate": gate_summary(
            [
                judge(sequence, _probes(runs, seed), about["backbone"]["parameters"], limits)
                for seed, many in mine.items()
                for sequence in many
            ]
        ),
        **_spent(learned, tasks, about["backbone"]["parameters"]),
    }


def _final(runs: Runs, tasks: Sequence[str]) -> dict[int, list[float]]:
    """Return, by seed, the accuracy on each task in the end; orders are averaged."""
    return {
        seed: [float(np.mean([_last(sequence, task) for sequence in many])) for task in tasks]
        for seed, many in runs.items()
    }


def _last(sequence: Sequence[Learned], task: str) -> float:
    one = next(one for one in sequence if one.task == task)
    return one.unit.accuracy(-1, task)


def _transfers(name: str, mine: Runs, upper: Runs) -> Document:
    """Return forgetting, backward and forward transfer, each over the seeds; orders averaged."""
    found: dict[str, list[float]] = {"forgetting": [], "backward_transfer": []}
    forward: list[float] = []
    for seed, many in mine.items():
        each = [transfer(matrix_of(sequence)) for sequence in many]
        for key, values in found.items():
            known = [one[key] for one in each if one[key] is not None]
            if known:
                values.append(float(np.mean([float(v) for v in known if v is not None])))
        gains = [_forward(sequence, upper.get(seed)) for sequence in many]
        if gains and all(one is not None for one in gains):
            forward.append(float(np.mean([one for one in gains if one is not None])))
    estimates = {**found, "forward_transfer": forward}
    return {key: _estimate(values) for key, values in estimates.items()}


def _forward(
    sequence: Sequence[Learned], upper: Sequence[Sequence[Learned]] | None
) -> float | None:
    """Return forward transfer; separate tasks are learned alone, so theirs is zero."""
    learned = [one.unit.accuracy(one.step, one.task) for one in sequence]
    if not sequence[0].unit.asked.shared:
        return forward_transfer(learned, learned)
    if not upper:
        return None
    return forward_transfer(learned, [_last(upper[0], one.task) for one in sequence])


def _estimate(values: Sequence[float]) -> Document | None:
    return mean_interval(values).to_dict() if values else None


def _matrix(mine: Runs, orders: Sequence[Sequence[str]]) -> Document:
    """Return the matrix of the first order there is, mean over seeds, as a gate report has it."""
    found = [(order, _of_order(mine, order)) for order in orders]
    tasks, first = next((list(order), some) for order, some in found if some)
    mean = np.mean([matrix_of(sequence) for sequence in first], axis=0)
    rows = [[round(float(v), 6) if j <= i else None for j, v in enumerate(row)]
            for i, row in enumerate(mean)]  # fmt: skip
    best = [max(row[j] or 0.0 for row in rows[j:]) for j in range(len(tasks))]
    return {
        "tasks": tasks,
        "rows": rows,
        "after": tasks,
        "learned": [rows[j][j] for j in range(len(tasks))],
        "best": best,
        "now": rows[-1],
    }


def _of_order(mine: Runs, order: Sequence[str]) -> list[Sequence[Learned]]:
    every = [sequence for many in mine.values() for sequence in many]
    return [one for one in every if [each.task for each in one] == list(order)]


def _against(mine: Runs, theirs: Runs, tasks: Sequence[str]) -> Document | None:
    """Return the paired gains over another method, over the seeds that both have finished."""
    seeds = [seed for seed in mine if seed in theirs]
    if not seeds:
        return None
    ours, others = _final(mine, tasks), _final(theirs, tasks)
    pair = [np.array([values[seed] for seed in seeds]) for values in (ours, others)]
    ours_right, theirs_right = (
        [[_right(runs[seed], task) for seed in seeds] for task in tasks] for runs in (mine, theirs)
    )
    return {
        "overall": paired(*(one.mean(axis=0) for one in pair)).to_dict(),
        "seeds": paired(*(one.mean(axis=1) for one in pair)).to_dict(),
        "items": items_interval(ours_right, theirs_right).to_dict(),
        "tasks": {
            task: {
                "seeds": paired(*(one[:, at] for one in pair)).to_dict(),
                "items": items_interval([ours_right[at]], [theirs_right[at]]).to_dict(),
            }
            for at, task in enumerate(tasks)
        },
    }


def _right(many: Sequence[Sequence[Learned]], task: str) -> Any:
    """Return in which share of the orders each test item of a task is right in the end: [n]."""
    units = [one.unit for sequence in many for one in sequence if one.task == task]
    return np.mean([unit.right(task) for unit in units], axis=0)


def _probes(runs: Mapping[str, Runs], seed: int) -> dict[str, Any]:
    many = runs.get(PROBE, {}).get(seed)
    return {one.task: one.at.predicted(one.task) for one in many[0]} if many else {}


def _spent(learned: Sequence[Learned], tasks: Sequence[str], parameters: int) -> Document:
    """Return parameters, bytes, seconds, milliseconds and memory a task."""
    steps = [one.at for one in learned]
    kinds = ("kernels", "batch_norm", "head", "other", "bytes")
    costs = {
        task: {
            kind: float(np.mean([step.cost[kind] for step in steps if step.task == task]))
            for kind in kinds
        }
        for task in tasks
    }
    mean = {kind: float(np.mean([one[kind] for one in costs.values()])) for kind in kinds}
    cpu = [one.cpu_seconds for one in steps if one.cpu_seconds is not None]
    memory = [one.memory_mb for one in steps if one.memory_mb is not None]
    bare = float(np.mean([one.latency["bare_p50"] for one in steps]))
    return {
        "cost": {
            "tasks": costs,
            "mean": mean,
            "share": {kind: mean[kind] / parameters for kind in kinds[:-1]},
        },
        "seconds": mean_interval([one.seconds for one in steps]).to_dict(),
        "cpu_seconds": _estimate(cpu),
        "start_seconds": float(np.mean([one.start_seconds for one in steps])),
        "latency_ms": {
            "p50": float(np.mean([one.latency["p50"] for one in steps])),
            "bare_p50": bare,
            "ratio": float(
                np.mean([one.latency["p50"] / one.latency["bare_p50"] for one in steps])
            ),
        },
        "memory_mb": _estimate(memory),
    }


def _curves(by_amount: Mapping[tuple[int, int], Mapping[str, Runs]], about: Any) -> Document:
    """Return accuracy and gain over the probe for each amount of images, and what falls below."""
    tasks = [one["name"] for one in about["tasks"]]
    points, below = [], []
    for (_, per_class), runs in by_amount.items():
        for name, mine in runs.items():
            if not mine:
                continue
            final = _final(mine, tasks)
            gain = _against(mine, runs.get(PROBE, {}), tasks) if name != PROBE else None
            points.append(
                {
                    "method": name,
                    "per_class": per_class,
                    "average": mean_interval([float(np.mean(o)) for o in final.values()]).to_dict(),
                    "accuracy": {
                        task: mean_interval([row[at] for row in final.values()]).to_dict()
                        for at, task in enumerate(tasks)
                    },
                    "gain": gain,
                }
            )
            below += [
                {"method": name, "per_class": per_class, "task": task, **one["seeds"]}
                for task, one in (gain["tasks"] if gain else {}).items()
                if is_below(Estimate(**one["seeds"]))
            ]
    return {"points": points, "below_probe": below}


def is_below(gain: Estimate) -> bool:
    """Say whether a gain is a loss by more than its interval."""
    return gain.high is not None and gain.high < 0
