"""Every image goes to the task whose nearest class it is, and what is not sure is said."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.core.described import Floats, TaskStatistics, describe, statistics
from clr.core.routing import Router
from clr.core.tried import drawn, found

SIDE, IMAGES = 8, 30


def described(seed: int, classes: int) -> tuple[TaskStatistics, Floats]:
    """Return the statistics of a task and features of it: far apart from those of other seeds."""
    generator = np.random.default_rng(seed)
    labels = np.arange(IMAGES) % classes
    centres = generator.normal(0, 1, (classes, SIDE))
    features = (centres[labels] + generator.normal(0, 0.1, (IMAGES, SIDE))).astype(np.float32)
    return statistics(features, labels, classes), features


def drawn_at(place: float, count: int, seed: int) -> Floats:
    """Return images of a task of one class, whose first feature is about `place`."""
    features = np.random.default_rng(seed).normal(0, 1, (count, SIDE)).astype(np.float32)
    features[:, 0] += np.float32(place)
    return features


def told(features: Floats) -> TaskStatistics:
    return describe(features, np.zeros(len(features), dtype=np.int64), 1)


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
    assert {one.task for one in router.choose(features)} == {"brass"}


def test_the_choice_says_the_runner_up_and_how_sure_it_is() -> None:
    tasks = {f"task-{at}": described(at, 2) for at in range(3)}
    router = Router({name: one for name, (one, _) in tasks.items()})
    features = tasks["task-1"][1]
    chosen = router.choose(features)
    assert [one.task for one in chosen] == [router.tasks[at] for at in router.route(features)]
    assert all(one.second != one.task and 0.5 < one.confidence <= 1 for one in chosen)


def test_a_router_of_one_task_has_no_runner_up() -> None:
    one, features = described(0, 3)
    chosen = Router({"only": one}).choose(features)
    assert {(it.task, it.second, it.confidence) for it in chosen} == {("only", "", 1.0)}
    calibrated = Router({"only": told(drawn_at(0, 200, 0))}).choose(drawn_at(0, 50, 1))
    assert {(it.second, it.confidence, it.doubtful) for it in calibrated} == {("", 1.0, False)}


def test_choices_do_not_depend_on_the_order_of_arrival() -> None:
    tasks = {f"task-{at}": told(drawn_at(1.5 * at, 150, at)) for at in range(4)}
    features = drawn_at(2.0, 40, 9)
    routers = [Router({name: tasks[name] for name in order}) for order in permutations(tasks)]
    assert len({router.digest for router in routers}) == 1
    assert len({tuple(router.choose(features)) for router in routers}) == 1


def test_statistics_without_held_out_images_raise_no_doubt() -> None:
    """Evidence of earlier versions routes as it did."""
    near = {f"task-{at}": drawn_at(0.2 * at, 200, at) for at in range(2)}
    old = {
        name: statistics(one, np.zeros(len(one), dtype=np.int64), 1) for name, one in near.items()
    }
    router = Router(old)
    far = np.full((1, SIDE), 100, dtype=np.float32)
    for features in (*near.values(), far):
        chosen = router.choose(features)
        assert not any(one.doubtful or one.unknown or one.doubt for one in chosen)
        assert [one.task for one in chosen] == [router.tasks[at] for at in router.route(features)]


@settings(max_examples=8)
@given(apart=st.floats(0.0, 6.0), share=st.sampled_from([0.05, 0.1, 0.25]), seed=st.integers(0, 99))
def test_wrong_choices_without_doubt_and_own_images_unknown_are_as_few_as_promised(
    apart: float, share: float, seed: int
) -> None:
    """Over many draws of held-out images and new ones, of tasks near or far from each other."""
    wrong, strange = [], []
    for draw in range(40):
        seeds = 1000 * seed + 10 * draw
        tasks = {f"task-{at}": told(drawn_at(apart * at, 100, seeds + at)) for at in range(3)}
        router = Router(tasks)
        router.calibrate(share, share)
        chosen = router.choose(drawn_at(apart, 50, seeds + 5))  # of task-1, between two others
        wrong.append(np.mean([one.task != "task-1" and not one.doubtful for one in chosen]))
        strange.append(np.mean([one.task == "task-1" and one.unknown for one in chosen]))
    for rates in (wrong, strange):
        error = np.std(rates) / np.sqrt(len(rates))
        assert np.mean(rates) <= share + 4 * error


def test_doubt_is_raised_only_where_it_is_needed() -> None:
    """Tasks whose held-out images find them often enough need no doubt to keep the promise."""
    tasks = {f"task-{at}": told(drawn_at(12.0 * at, 150, at)) for at in range(3)}
    router = Router(tasks)
    between = np.zeros((1, SIDE), dtype=np.float32)
    between[0, 0] = 6.0
    assert not router.choose(drawn_at(0, 50, 7))[0].doubtful
    assert not router.choose(between)[0].doubtful
    assert router.choose(between)[0].unknown


def test_a_doubtful_choice_names_the_other_task() -> None:
    same = {name: told(drawn_at(0, 200, seed)) for seed, name in enumerate(("left", "right"))}
    chosen = Router(same).choose(drawn_at(0, 100, 5))
    doubtful = [one for one in chosen if one.doubtful]
    assert len(doubtful) > 80
    assert all({one.task, one.second} == {"left", "right"} for one in doubtful)
    assert all(one.second in one.doubt and one.task in one.doubt for one in doubtful)
    assert 0.4 < np.mean([one.confidence for one in chosen]) < 0.75  # it cannot know


def test_what_is_far_from_every_task_is_unknown() -> None:
    tasks = {f"task-{at}": told(drawn_at(5.0 * at, 200, at)) for at in range(3)}
    router = Router(tasks)
    noise = np.random.default_rng(0).normal(0, 20, (50, SIDE)).astype(np.float32)
    assert all(one.unknown for one in router.choose(noise))


def test_what_a_newcomer_draws_from_each_earlier_task() -> None:
    """One task lies where the newcomer does, the other far away."""
    tasks = {"near": drawn_at(0, 200, 1), "far": drawn_at(40, 200, 2), "new": drawn_at(0, 200, 3)}
    router = Router({name: told(one) for name, one in tasks.items()})
    seen = drawn(router, {name: tasks[name] for name in ("near", "far")}, "new")
    assert seen["far"].found.all()
    assert not (seen["far"].taken | seen["far"].doubted).any()
    assert seen["near"].taken.sum() > 20
    assert (seen["near"].found != seen["near"].taken).all()
    assert seen["near"].doubted.sum() > 20
    assert not (seen["near"].doubted & ~seen["near"].found).any()
