"""What a comparison will do: every unit of work with the digest of all that determines it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import clr
from clr.compare.unit import SCHEMA as UNIT_SCHEMA
from clr.compare.unit import Asked, Unit, parse_unit
from clr.core.files import canonical_json, sha256_file, write_atomic
from clr.errors import IntegrityBroken, UsageError
from clr.settings import LARGEST_SEED, Settings
from flows.compare.tasks import Task, files_digest
from flows.steps import digest_of

SCHEMA = "clr.compare.plan/1"
PLAN_FILE = "plan.json"
NEIGHBOUR_IMAGES = 4
"""Images a class of the small lesson that must leave a separate task alone."""


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line, checked where it is read.

    Attributes:
        methods: their names.
        seeds: how many.
        orders: of the tasks, how many; the first is as given, the others are shuffled.
        images: training images a task; 0: all.
        per_class: training images a class, one comparison each; empty: see `images`.
        epochs: passes over the training part.
        seconds: of learning one task; where given, it counts instead of `epochs`.
    """

    methods: tuple[str, ...]
    seeds: int
    orders: int = 1
    images: int = 0
    per_class: tuple[int, ...] = ()
    epochs: int = 8
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """All units of a comparison.

    Attributes:
        digest: of the keys of all units: two plans that measure the same are one.
        tasks: by name, in the order given.
        units: by key.
        about: methods, seeds, orders, amounts, budget, backbone, device, code.
    """

    digest: str
    tasks: Mapping[str, Task]
    units: Mapping[str, Asked]
    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The first digits of the digest: what people call it."""
        return self.digest.removeprefix("sha256:")[:10]

    def neighbour(self, task: str) -> str:
        """Return the task after this one in the order given; empty where it is alone."""
        names = list(self.tasks)
        return names[(names.index(task) + 1) % len(names)] if len(names) > 1 else ""


def make_plan(
    request: Request, tasks: Sequence[Task], shared: Mapping[str, bool], facts: Mapping[str, Any]
) -> Plan:
    """Return the plan of a comparison.

    Args:
        request: what was asked for.
        tasks: which.
        shared: by method, whether its tasks share weights.
        facts: backbone (with its digest), device and first seed.

    Raises:
        UsageError: two amounts a class are the same images, or the seeds pass the largest.
    """
    by_name = {one.name: one for one in tasks}
    seeds = _seeds(int(facts["seed"]), request.seeds)
    orders = _orders(list(by_name), request.orders)
    amounts = [{"images": 0, "per_class": one} for one in request.per_class] or [
        {"images": request.images, "per_class": 0}
    ]
    about = {
        "methods": list(request.methods),
        "seeds": seeds,
        "orders": orders,
        "amounts": amounts,
        "budget": {"epochs": request.epochs, "seconds": request.seconds},
        "backbone": facts["backbone"],
        "device": facts["device"],
        "code": core_digest(),
    }
    plan = Plan("", by_name, {}, about)
    units: dict[str, Asked] = {}
    for one in _asked(plan, shared):
        first = units.setdefault(_key(plan, one), one)
        if first is not one:
            raise UsageError(
                f"{one.per_class} images a class are the same ones as {first.per_class} of "
                f"{one.tasks[0]}: none of its classes has more.",
                fix=f"Leave {one.per_class} out of --per-class.",
            )
    return Plan(digest_of([SCHEMA, sorted(units), orders]), by_name, units, about)


def _seeds(first: int, count: int) -> list[int]:
    last = first + count - 1
    if last > LARGEST_SEED:
        raise UsageError(
            f"{count} seeds from CLR_SEED={first} on end at {last}, beyond {LARGEST_SEED}.",
            fix="Set a smaller CLR_SEED.",
        )
    return list(range(first, last + 1))


def _orders(names: list[str], count: int) -> list[list[str]]:
    """Return `count` different orders; fewer where there are not so many."""
    found, draw = [names], random.Random(0)  # noqa: S311
    for _ in range(100 * count):
        if len(found) == count:
            break
        other = draw.sample(names, len(names))
        if other not in found:
            found.append(other)
    return found


def _asked(plan: Plan, shared: Mapping[str, bool]) -> Iterator[Asked]:
    about = plan.about
    for method in about["methods"]:
        for amount in about["amounts"]:
            for seed in about["seeds"]:
                groups = about["orders"] if shared[method] else [[one] for one in plan.tasks]
                for group in groups:
                    yield Asked(method, shared[method], tuple(group), seed, **amount)


def _key(plan: Plan, asked: Asked) -> str:
    amount = asked.images, asked.per_class
    task = plan.tasks[asked.tasks[0]]
    neighbour = "" if asked.shared else plan.neighbour(task.name)
    about = plan.about
    return digest_of(
        {
            "schema": UNIT_SCHEMA,
            "method": asked.method,
            "seed": asked.seed,
            "tasks": [_data(plan.tasks[one], asked.seed, *amount) for one in asked.tasks],
            "neighbour": _data(plan.tasks[neighbour], asked.seed, 0, NEIGHBOUR_IMAGES)
            if neighbour
            else "",
            "budget": about["budget"],
            "backbone": about["backbone"]["digest"],
            "device": about["device"],
            "code": about["code"],
        }
    )


@lru_cache(maxsize=1024)
def _data(task: Task, seed: int, images: int, per_class: int) -> str:
    train = task.chosen(seed, images, per_class)
    return files_digest((*train, *task.test), task.name, task.labels, task.size, len(train))


@cache
def core_digest() -> str:
    """Return the digest of all that trains and measures: the sources of ``clr.core``."""
    root = Path(clr.__file__).parent / "core"
    files = sorted(root.rglob("*.py"))
    return digest_of([[str(one.relative_to(root)), sha256_file(one)] for one in files])


def folder(settings: Settings) -> Path:
    """Return where comparisons are kept."""
    return settings.state / "compare"


def plan_path(settings: Settings, plan: Plan) -> Path:
    """Return the file of a plan."""
    return folder(settings) / plan.name / PLAN_FILE


def keep_plan(settings: Settings, plan: Plan, command: str, made_at: str) -> Path:
    """Write a plan for the workers and for later reports.

    One that is there stays, with the command that made it first, unless its task folders were
    moved since.

    Raises:
        IntegrityBroken: the one that is there is damaged.
    """
    path = plan_path(settings, plan)
    if path.is_file():
        kept, command, made_at = read_plan(path)
        if _roots(kept) == _roots(plan):
            return path
    values = {
        "schema": SCHEMA,
        "digest": plan.digest,
        "command": command,
        "made_at": made_at,
        "tasks": [one.to_dict() for one in plan.tasks.values()],
        "units": {key: asdict(one) for key, one in plan.units.items()},
        "about": dict(plan.about),
    }
    write_atomic(path, canonical_json(values))
    return path


def _roots(plan: Plan) -> dict[str, str]:
    return {name: task.root for name, task in plan.tasks.items()}


def read_plan(path: Path) -> tuple[Plan, str, str]:
    """Return a plan, the command that made it first, and when.

    Raises:
        UsageError: there is none.
        IntegrityBroken: it is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"There is no comparison {path.parent.name} here.",
            fix=f"See {path.parent.parent}, or start one: clr compare.",
        ) from error
    try:
        values = json.loads(data)
        if values["schema"] != SCHEMA:
            raise ValueError(f"unknown schema {values['schema']}")
        tasks = {one["name"]: Task.from_dict(one) for one in values["tasks"]}
        units = {
            key: Asked(**{**one, "tasks": tuple(one["tasks"])})
            for key, one in values["units"].items()
        }
        plan = Plan(values["digest"], tasks, units, values["about"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityBroken(
            f"{path} is damaged: {error}.", fix="Delete it and run the comparison again."
        ) from error
    return plan, values["command"], values["made_at"]


@lru_cache(maxsize=4)
def plan_of(path: str) -> Plan:
    """Return a plan as a worker needs it, read once a process."""
    return read_plan(Path(path))[0]


def unit_path(settings: Settings, key: str) -> Path:
    """Return the file of a unit, which all comparisons share."""
    return folder(settings) / "units" / f"{key.removeprefix('sha256:')}.safetensors"


def read_unit(settings: Settings, plan: Plan, key: str) -> Unit:
    """Return a finished unit, as this plan asked for it.

    One comparison's 600 images may be another's 100 a class: the same ones, so the same unit.

    Raises:
        FileNotFoundError: it is not finished.
        IntegrityBroken: its file is damaged, or of another unit.
    """
    path = unit_path(settings, key)
    fix = f"Delete {path}; `clr compare` makes it again."
    try:
        unit = parse_unit(path.read_bytes())
    except IntegrityBroken as error:
        raise IntegrityBroken(error.message, fix=fix) from error
    if unit.key != key:
        raise IntegrityBroken(f"{path} holds another unit of work: {unit.key}.", fix=fix)
    return replace(unit, asked=plan.units[key])


def finished(settings: Settings, plan: Plan) -> dict[str, Unit]:
    """Return the units that are done, in the order of the plan.

    Raises:
        IntegrityBroken: a unit's file is damaged.
    """
    found = {}
    for key in plan.units:
        try:
            found[key] = read_unit(settings, plan, key)
        except FileNotFoundError:
            continue
    return found
