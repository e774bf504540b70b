"""How well the task of an image is found by itself, and what doubt and unknown cost and give.

The demo's tasks and those of `CLR_BENCH_TASK_FOLDERS=a:b` (task folders, as `clr onboard` takes
them), and a hundred made of these: two or three classes of one, as they are or under one of four
looks (negative, tinted light, relief, cloth), 40 training images a class. Those of one task and
look differ by their classes alone, which makes them hard to tell apart. An adapter is trained for
each real task, with the preset `fast`; linear probes on the router's own features stand for those
of made tasks. `CLR_BENCH_FEATURES=DIR` keeps features and answers for the next run;
`CLR_WRITE_DOCS=1` puts the tables into docs/routing.md.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clr.core.choosing import Routed
from clr.core.described import Floats, TaskStatistics, describe, held_out
from clr.core.routing import Router, project
from tests.benchmarks.pages import write_docs
from tests.benchmarks.routers import ROUTERS, Known
from tests.benchmarks.routing_tasks import Features, Pair, Split, folders
from tests.benchmarks.routing_times import timed

SHARES = (0.2, 0.1, 0.05, 0.02, 0.01)
STRENGTH = 0.1
TOP = 2
TWO_STAGE = f"two-stage: best {TOP} of the first, then the confidence of their probes"


@dataclass(frozen=True, eq=False)
class Task:
    """A task as routers meet it.

    Attributes:
        known: what they learn it from.
        described: the same for the router in use, with images to calibrate by.
        test: float32 [n, d], projected features of its test images.
        right: bool [n], answered right by its own adapter, or by the probe that stands for it.
        raw: float32 [n, channels], features of its test images.
        probe: its own.
    """

    known: Known
    described: TaskStatistics
    test: Floats
    right: NDArray[np.bool_]
    raw: Floats
    probe: Probed


@dataclass(frozen=True, eq=False)
class Probed:
    """A linear probe with the temperature that its held-out images ask for."""

    weight: Floats
    bias: Floats
    temperature: float

    def log_probabilities(self, features: Floats) -> Floats:
        """Return float32 [N, classes]."""
        logits = (features @ self.weight.T + self.bias) / self.temperature
        return np.asarray(logits - np.logaddexp.reduce(logits, axis=1)[:, None])


def main() -> None:
    """Print the tables."""
    from clr.core.backbone import load_backbone
    from clr.settings import Settings

    backbone = load_backbone(Settings.model_fields["backbone"].default, device="cpu")
    features = Features(backbone)
    with tempfile.TemporaryDirectory() as place:
        sources = folders(Path(place))
        real = {
            one.name: replace(task(features.real(one)), right=features.right(one))
            for one in sources
        }
        made = {name: task(pair) for name, pair in features.synthetic(sources)}
    groups = {f"{len(real)} real tasks": real, f"{len(made)} made tasks": made}
    tables = {
        "routers": compared(groups),
        "tasks": by_task(real),
        "doubt": doubted(groups),
        "unknown": unknown(real, features.pictures()),
        "times": timed(),
    }
    for table in tables.values():
        print(table + "\n", flush=True)
    if os.environ.get("CLR_WRITE_DOCS"):
        write_docs("routing.md", tables)


def task(pair: Pair) -> Task:
    """Return a task from its features."""
    train, test = pair
    held = held_out(train.labels)
    fitted = Split(train.features[~held], train.labels[~held])
    probe = probed(fitted, Split(train.features[held], train.labels[held]))
    projected = project(train.features)
    known = Known(projected[~held], fitted.labels)
    described = describe(projected, train.labels, int(train.labels.max()) + 1)
    right = probe.log_probabilities(test.features).argmax(1) == test.labels
    return Task(known, described, project(test.features), right, test.features, probe)


def probed(train: Split, held: Split) -> Probed:
    """Fit a probe, and its temperature (Guo et al. 2017, section 4.2) on held-out images."""
    import torch

    from clr.core.probe import fit_probe_at

    classes = int(train.labels.max()) + 1
    features, labels = torch.from_numpy(train.features), torch.from_numpy(train.labels)
    probe = fit_probe_at(features, labels, torch.ones(classes), STRENGTH)
    plain = Probed(probe.weight.numpy(), probe.bias.numpy(), 1.0)
    logits = held.features @ plain.weight.T + plain.bias

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        own = scaled[np.arange(len(scaled)), held.labels]
        return float((np.logaddexp.reduce(scaled, axis=1) - own).mean())

    best = min(np.geomspace(0.25, 8, 41).tolist(), key=loss)
    return Probed(plain.weight, plain.bias, best)


def compared(groups: Mapping[str, Mapping[str, Task]]) -> str:
    """Return the table of routers: how many images find their task, and are answered right."""
    lines = [
        "| router | " + " | ".join(f"{one}: found | answered right" for one in groups) + " |",
        "|---|" + "---:|---:|" * len(groups),
    ]
    scored = {
        name: {group: build_and_score(name, tasks) for group, tasks in groups.items()}
        for name in (*ROUTERS, TWO_STAGE)
    }
    oracle = " | ".join(
        f"100.0 % | {_percent(_mean([one.right.mean() for one in tasks.values()]))}"
        for tasks in groups.values()
    )
    lines.append(f"| told the task | {oracle} |")
    for name, found in scored.items():
        cells = []
        for group, tasks in groups.items():
            right = [found[group][one] & tasks[one].right for one in tasks]
            cells += [
                _mean([found[group][one].mean() for one in tasks]),
                _mean([*map(np.mean, right)]),
            ]
        lines.append(f"| {name} | {' | '.join(map(_percent, cells))} |")
    return "\n".join(lines)


def build_and_score(name: str, tasks: Mapping[str, Task]) -> dict[str, NDArray[np.bool_]]:
    """Return which test images of each task a router sends to it."""
    if name == TWO_STAGE:
        return two_stage(tasks)
    scores = ROUTERS[name]({one: task.known for one, task in tasks.items()})
    order = sorted(tasks)
    return {one: scores(tasks[one].test).argmax(1) == order.index(one) for one in tasks}


def two_stage(tasks: Mapping[str, Task]) -> dict[str, NDArray[np.bool_]]:
    """Add to the router's log probability the calibrated confidence of the best tasks' probes."""
    router = Router({name: one.described for name, one in tasks.items()})
    router.calibrate()
    assert router._limits is not None
    found = {}
    for name, one in tasks.items():
        scores = router._nearness(one.test @ router._whiten) / router._limits.temperature
        best = np.argsort(-scores, axis=1)[:, :TOP]
        total = np.full(scores.shape, -np.inf)
        for at in np.unique(best):
            rows = np.flatnonzero((best == at).any(1))
            sure = tasks[router.tasks[at]].probe.log_probabilities(one.raw[rows]).max(1)
            total[rows, at] = scores[rows, at] + sure
        found[name] = total.argmax(1) == router.tasks.index(name)
    return found


def by_task(tasks: Mapping[str, Task]) -> str:
    """Return the table of the real tasks."""
    found = build_and_score(next(iter(ROUTERS)), tasks)
    lines = [
        "| task | test images | find it | answered right, told the task | not told |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, one in sorted(tasks.items()):
        shares = found[name].mean(), one.right.mean(), (found[name] & one.right).mean()
        lines.append(f"| {name} | {len(one.test)} | {' | '.join(map(_percent, shares))} |")
    return "\n".join(lines)


def doubted(groups: Mapping[str, Mapping[str, Task]]) -> str:
    """Return the abstention curve: what each `CLR_ROUTER_DOUBT` leaves, means over tasks."""
    lines = [
        "| tasks | promised | doubtful | wrong without a word | worst task | found, of the rest |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for group, tasks in groups.items():
        router = Router({name: one.described for name, one in tasks.items()})
        for share in SHARES:
            router.calibrate(doubt=share)
            chosen = {name: router.choose(one.test) for name, one in tasks.items()}
            doubt = _mean([_share(one, lambda it: it.doubtful) for one in chosen.values()])
            wrong = [
                _share(one, lambda it, name=name: it.task != name and not it.doubtful)
                for name, one in chosen.items()
            ]
            rest = [
                it.task == name for name, one in chosen.items() for it in one if not it.doubtful
            ]
            cells = (share, doubt, _mean(wrong), max(wrong), _mean(rest))
            lines.append(f"| {group} | {' | '.join(map(_percent, cells))} |")
    return "\n".join(lines)


def unknown(tasks: Mapping[str, Task], pictures: Mapping[str, Floats]) -> str:
    """Return how many images each `CLR_ROUTER_UNKNOWN` calls unknown: own, strange, held out."""
    rates: dict[str, list[float]] = {}
    strange = {f"pictures: {name}": one for name, one in pictures.items()}
    for share in SHARES[2:]:
        router = Router({name: one.described for name, one in tasks.items()})
        router.calibrate(unknown=share)
        own = [
            _share(router.choose(one.test), lambda it, name=name: it.unknown and it.task == name)
            for name, one in tasks.items()
        ]
        rates.setdefault("own images, mean of the tasks", []).append(_mean(own))
        rates.setdefault("own images, worst task", []).append(max(own))
        for name, features in strange.items():
            rates.setdefault(name, []).append(
                _share(router.choose(features), lambda it: it.unknown)
            )
        for name in sorted(tasks):
            others = Router({it: one.described for it, one in tasks.items() if it != name})
            others.calibrate(unknown=share)
            told = _share(others.choose(tasks[name].test), lambda it: it.unknown)
            rates.setdefault(f"{name}, where the router does not know it", []).append(told)
    head = " | ".join(f"promised {_percent(share)}" for share in SHARES[2:])
    lines = [f"| images | {head} |", "|---|" + "---:|" * len(SHARES[2:])]
    lines += [f"| {name} | {' | '.join(map(_percent, found))} |" for name, found in rates.items()]
    return "\n".join(lines)


def _share(chosen: list[Routed], is_so: Callable[[Routed], bool]) -> float:
    return _mean([is_so(one) for one in chosen])


def _mean(values: list[float] | list[bool]) -> float:
    return float(np.mean(values))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
