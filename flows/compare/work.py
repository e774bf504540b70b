"""One unit of work, wherever a worker is: learn, ask, weigh, keep. A unit that is kept is done."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clr.compare.unit import Asked, State, Step, Unit
from clr.core.files import write_atomic
from clr.errors import ClrError
from flows import output, provenance
from flows.compare.baselines import baseline_of
from flows.compare.meter import measured
from flows.compare.plan import NEIGHBOUR_IMAGES, Plan, plan_of, unit_path
from flows.compare.tasks import File
from flows.session import Session
from flows.steps import digest_of

if TYPE_CHECKING:
    from clr.core.images import ImageSet, Preprocessing
    from clr.core.methods import Budget, Learner, Lesson

LOG = logging.getLogger("clr")
ROUNDS, CALLS = 5, 8
"""Of timing one image: the median over rounds of each round's percentile."""


@dataclass(frozen=True)
class Job:
    """What travels to a worker.

    Attributes:
        key: of the unit.
        plan: path of the plan that has it.
    """

    key: str
    plan: str


@dataclass(frozen=True)
class Done:
    """What a worker answers.

    Attributes:
        key: of the unit.
        seconds: that it took here; 0 where it was kept already.
        accuracy: on the last task learned.
        failure: why there is no unit; None where there is one.
    """

    key: str
    seconds: float = 0.0
    accuracy: float = 0.0
    failure: dict[str, Any] | None = None


def perform(session: Session, job: Job) -> Done:
    """Do one unit and keep it; an error of ours, or too little memory, is an answer, not kept.

    Raises:
        OSError: what is measured cannot be written.
    """
    path = unit_path(session.settings, job.key)
    if path.is_file():
        return Done(job.key)
    plan, started = plan_of(job.plan), time.perf_counter()
    asked = plan.units[job.key]
    try:
        unit = _measure(session, plan, job.key, asked)
    except Exception as error:
        known = error if isinstance(error, ClrError) else output.shortage(error)
        if known is None:
            raise
        return Done(job.key, failure=known.as_dict())
    write_atomic(path, unit.to_bytes())
    accuracy = unit.accuracy(-1, asked.tasks[-1])
    return Done(job.key, time.perf_counter() - started, accuracy)


def _measure(session: Session, plan: Plan, key: str, asked: Asked) -> Unit:
    import torch

    from clr.core.methods import Budget, find_method

    session.backbone.check()
    learner = find_method(asked.method).start(session.backbone)
    budget = Budget(**plan.about["budget"])
    steps: list[Step] = []
    lessons: list[Lesson] = []
    for task in asked.tasks:
        steps.append(_step(session, plan, asked, task, learner, budget))
        lessons.append(lesson_of(session, plan, task, asked))
    tests = {task: evidence_images(session, plan, task) for task in asked.tasks}
    return Unit(
        key=key,
        asked=asked,
        steps=tuple(steps),
        labels={task: one.labels.numpy().astype(np.int64) for task, one in tests.items()},
        majority={one.task: _majority(one) for one in lessons},
        after=_left_alone(session, plan, asked, learner, lessons[0].preprocessing),
        about={
            "budget": plan.about["budget"],
            "digests": {
                "data": digest_of([plan.tasks[task].digest for task in asked.tasks]),
                "code": provenance.code_digest(),
                "environment": provenance.environment_digest(),
                "backbone": session.backbone.digest,
                "recipe": digest_of([asked.method, plan.about["budget"], asdict(asked)]),
            },
            "hardware": provenance.hardware(session.device),
            "numeric": provenance.numeric_environment(session.device, torch.get_num_threads()),
            "threads": torch.get_num_threads(),
        },
    )


def _step(
    session: Session, plan: Plan, asked: Asked, task: str, learner: Learner, budget: Budget
) -> Step:
    from clr.core.evaluate import run

    lesson = lesson_of(session, plan, task, asked)
    _, start_seconds = _baseline(session, plan, task, asked.seed, asked.images, asked.per_class)
    with measured() as spent:
        learner.learn(lesson, budget, asked.seed)
    learned = asked.tasks[: asked.tasks.index(task) + 1]
    logits = {
        one: run(
            lambda batch, one=one: learner.logits(batch, one),  # type: ignore[misc]
            evidence_images(session, plan, one),
            _preprocessing(session, plan, one),
            session.backbone.device,
        ).numpy()
        for one in learned
    }
    return Step(
        task=task,
        train=len(lesson.images),
        seconds=spent.seconds,
        cpu_seconds=spent.cpu_seconds,
        start_seconds=start_seconds,
        memory_mb=spent.memory_mb,
        cost=asdict(learner.cost(task)),
        latency=_latency(session, learner, lesson),
        state=_state(session, plan, learner, learned),
        logits=logits,
    )


def _state(session: Session, plan: Plan, learner: Learner, tasks: tuple[str, ...]) -> State:
    from clr.core.backbone import state_digest
    from clr.core.evidence import canary_input, logits_digest

    def canary(task: str) -> str:
        batch = canary_input(_preprocessing(session, plan, task)).to(session.backbone.device)
        return logits_digest(learner.logits(batch, task).float().cpu().numpy())

    return State(state_digest(session.backbone.module), {task: canary(task) for task in tasks})


def _left_alone(
    session: Session, plan: Plan, asked: Asked, learner: Learner, way: Preprocessing
) -> State | None:
    """Teach the same learner a little of another task; return what then answers for this one.

    That a task is kept apart is promised by the method; here it is looked at.
    """
    from clr.core.methods import Budget

    neighbour = plan.neighbour(asked.tasks[0])
    if asked.shared or not neighbour:
        return None
    little = Asked(asked.method, False, (neighbour,), asked.seed, 0, NEIGHBOUR_IMAGES)
    learner.learn(lesson_of(session, plan, neighbour, little), Budget(epochs=1), asked.seed)
    return _state(session, plan, learner, asked.tasks)


def _latency(session: Session, learner: Learner, lesson: Lesson) -> dict[str, float]:
    """Time one image through the method and through the bare backbone, in turns."""
    import torch

    from clr.core.latency import in_turns

    size, backbone = lesson.preprocessing.size, session.backbone
    batch = torch.zeros(1, 3, size, size).contiguous(memory_format=torch.channels_last)
    batch = batch.to(backbone.device)
    with torch.inference_mode():
        taken = in_turns(
            lambda: learner.logits(batch, lesson.task),
            lambda: backbone.module(batch),
            ROUNDS,
            CALLS,
        )
    return asdict(taken)


def _majority(lesson: Lesson) -> int:
    counts = np.bincount(lesson.images.labels.numpy(), minlength=len(lesson.labels))
    return int(counts.argmax())


def lesson_of(session: Session, plan: Plan, task: str, asked: Asked) -> Lesson:
    """Return one task as methods see it."""
    from clr.core.methods import Lesson

    amount = asked.seed, asked.images, asked.per_class
    return Lesson(
        task,
        plan.tasks[task].labels,
        _train_images(session, plan, task, *amount),
        _preprocessing(session, plan, task),
        _baseline(session, plan, task, *amount)[0],
    )


@lru_cache(maxsize=16)
def _baseline(
    session: Session, plan: Plan, task: str, seed: int, images: int, per_class: int
) -> Any:
    lesson_images = _train_images(session, plan, task, seed, images, per_class)
    return baseline_of(
        session,
        plan.tasks[task],
        plan.tasks[task].chosen(seed, images, per_class),
        lesson_images,
        _preprocessing(session, plan, task),
        seed,
        str(plan.about["code"]),
    )


@lru_cache(maxsize=16)
def _train_images(
    session: Session, plan: Plan, task: str, seed: int, images: int, per_class: int
) -> ImageSet:
    return _decoded(session, plan, task, plan.tasks[task].chosen(seed, images, per_class))


@lru_cache(maxsize=16)
def evidence_images(session: Session, plan: Plan, task: str) -> ImageSet:
    """Return the test split of a task: for what is reported, never for a method."""
    return _decoded(session, plan, task, plan.tasks[task].test)


def _decoded(session: Session, plan: Plan, task: str, files: tuple[File, ...]) -> ImageSet:
    from clr.core.images import ImageSet

    root, settings = Path(plan.tasks[task].root), session.settings
    return ImageSet(
        [root / one.path for one in files],
        [one.label for one in files],
        _preprocessing(session, plan, task),
        cache_mb=settings.image_cache_mb,
        max_pixels=settings.max_image_pixels,
    )


def _preprocessing(session: Session, plan: Plan, task: str) -> Preprocessing:
    from clr.core.images import Preprocessing

    backbone = session.backbone
    return Preprocessing(plan.tasks[task].size, backbone.mean, backbone.std, backbone.interpolation)
