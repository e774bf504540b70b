"""Every image goes to the task whose nearest class it is."""

from __future__ import annotations

import numpy as np
import pytest

from clr.core.described import Floats, TaskStatistics, statistics
from clr.core.routing import Router
from clr.core.tried import found

SIDE, IMAGES = 8, 30


def described(seed: int, classes: int) -> tuple[TaskStatistics, Floats]:
    """Return the statistics of a task and features of it: far apart from those of other seeds."""
    generator = np.random.default_rng(seed)
    labels = np.arange(IMAGES) % classes
    centres = generator.normal(0, 1, (classes, SIDE))
    features = (centres[labels] + generator.normal(0, 0.1, (IMAGES, SIDE))).astype(np.float32)
    return statistics(features, labels, classes), features


@pytest.mark.parametrize("classes", [(2, 2, 2), (1, 5, 2), (3, 1, 1)])
def test_an_image_reaches_its_task_whatever_the_number_of_classes(
    classes: tuple[int, ...],
) -> None:
    tasks = {f"task-{at}": described(at, count) for at, count in enumerate(classes)}
    router = Router({name: one for name, (one, _) in tasks.items()})
    answers = found(router, {name: features for name, (_, features) in tasks.items()})
    assert all(reached.all() for reached in answers.values())


def test_of_two_equal_tasks_the_first_by_name_is_meant() -> None:
    same, features = described(0, 2)
    router = Router({"zinc": same, "brass": same, "other": described(1, 3)[0]})
    assert [router.tasks[at] for at in router.route(features)] == ["brass"] * IMAGES


def test_the_choice_says_the_runner_up_and_how_sure_it_is() -> None:
    tasks = {f"task-{at}": described(at, 2) for at in range(3)}
    router = Router({name: one for name, (one, _) in tasks.items()})
    features = tasks["task-1"][1]
    chosen = router.choose(features)
    assert [one.task for one in chosen] == [router.tasks[at] for at in router.route(features)]
    assert all(one.second != one.task and 0.5 < one.confidence <= 1 for one in chosen)
    assert not any(one.doubtful or one.unknown for one in chosen)


def test_a_router_of_one_task_has_no_runner_up() -> None:
    one, features = described(0, 3)
    assert {
        (it.task, it.second, it.confidence) for it in Router({"only": one}).choose(features)
    } == {("only", "", 1.0)}
