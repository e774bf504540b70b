"""Every method, by one table: it learns, repeats, leaves the backbone alone, counts its cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clr.core.backbone import Backbone
from clr.core.baseline import measure_baseline
from clr.core.evaluate import run
from clr.core.finetune import finetuned
from clr.core.images import ImageSet, Preprocessing
from clr.core.methods import METHODS, Budget, Cost, Learner, Lesson, Method, find_method
from clr.core.methods.published import _at_birth
from clr.core.methods.replay import CAPACITY
from clr.core.recipe import Recipe
from clr.core.sites import batch_norm_sites, kernel_sites, late_sites, mixing_sites
from clr.core.training import Training
from clr.errors import UsageError

Stripes = Callable[[Path, int, int], tuple[list[Path], list[int]]]
LABELS = ("lying", "standing", "slanted")
BUDGET = Budget(epochs=5)
PATIENT = Budget(epochs=20)
"""For the one method whose head starts at random."""
EVERY = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
SEPARATE = [one for one in METHODS.values() if not one.shared]
SHARED = [one for one in METHODS.values() if one.shared]
TRAINED = [one for one in METHODS.values() if one.name not in ("majority", "probe")]


@dataclass(frozen=True)
class School:
    """Two tasks to learn, and images of the first that nobody trains on."""

    lessons: tuple[Lesson, Lesson]
    unseen: ImageSet

    def logits(self, learner: Learner, task: str) -> Tensor:
        preprocessing = self.lessons[0].preprocessing
        cpu = torch.device("cpu")
        return run(lambda x: learner.logits(x, task), self.unseen, preprocessing, cpu)

    def accuracy(self, logits: Tensor) -> float:
        return float((logits.argmax(1) == self.unseen.labels).float().mean())


@pytest.fixture(scope="module")
def school(
    tmp_path_factory: pytest.TempPathFactory,
    stripes: Stripes,
    backbone: Backbone,
    preprocessing: Preprocessing,
) -> School:
    def images(seed: int, each: int) -> ImageSet:
        return ImageSet(*stripes(tmp_path_factory.mktemp("task"), seed, each), preprocessing)

    def lesson(task: str, seed: int, each: int) -> Lesson:
        own = images(seed, each)
        recipe = Recipe(flips=False)
        baseline = measure_baseline(backbone, own, preprocessing, recipe, len(LABELS))
        return Lesson(task, LABELS, own, preprocessing, baseline)

    return School((lesson("first", 0, 32), lesson("second", 1, 12)), images(2, 30))


@dataclass(frozen=True)
class Course:
    """How one learner fared with both tasks."""

    learner: Learner
    before: Tensor
    """Logits of the first task before the second was learned."""
    after: Tensor
    second: Tensor


@pytest.fixture(scope="module")
def take(school: School, backbone: Backbone) -> Callable[[Method], Course]:
    """Let a method learn both tasks, once for all tests."""
    taken: dict[str, Course] = {}

    def go(method: Method) -> Course:
        if method.name not in taken:
            taken[method.name] = attend(method, school, backbone)
        return taken[method.name]

    return go


def attend(method: Method, school: School, backbone: Backbone) -> Course:
    learner = method.start(backbone)
    patient = method.name == "clr-published"
    learner.learn(school.lessons[0], PATIENT if patient else BUDGET, seed=3)
    before = school.logits(learner, "first")
    learner.learn(school.lessons[1], Budget(epochs=6 if method.shared else 1), seed=3)
    after, second = (school.logits(learner, lesson.task) for lesson in school.lessons)
    return Course(learner, before, after, second)


def test_every_method_says_what_it_is() -> None:
    assert {one.name for one in METHODS.values()} == set(METHODS)
    assert len({one.title for one in METHODS.values()}) == len(METHODS)
    assert {one.name for one in SHARED} == {"sequential", "ewc", "replay"}
    assert all(one.source for one in METHODS.values() if one.name not in ("majority", "sequential"))


# ---- what they learn --------------------------------------------------------------------


@pytest.mark.parametrize("method", [one for one in METHODS.values() if one.name != "majority"],
                         ids=lambda one: one.name)  # fmt: skip
def test_it_learns_more_than_the_most_frequent_label(
    method: Method, take: Callable[[Method], Course], school: School
) -> None:
    assert school.accuracy(take(method).before) > 1 / 3 + 0.15


def test_the_most_frequent_label_is_what_majority_says(school: School, backbone: Backbone) -> None:
    lesson = school.lessons[0]
    uneven = replace(lesson.baseline, train=(lesson.images.labels > 0).nonzero().flatten()[5:])
    learner = METHODS["majority"].start(backbone)
    learner.learn(replace(lesson, baseline=uneven), BUDGET, 0)
    assert (school.logits(learner, "first").argmax(1) == 2).all()


def test_the_probe_is_the_baselines(
    take: Callable[[Method], Course], school: School, backbone: Backbone
) -> None:
    lesson = school.lessons[0]
    features = run(backbone.module, school.unseen, lesson.preprocessing, backbone.device)
    expected = lesson.baseline.whole.logits(features)
    assert torch.allclose(take(METHODS["probe"]).before, expected, atol=1e-5)


def test_what_is_trained_beats_the_probe_where_features_must_change(
    take: Callable[[Method], Course], school: School
) -> None:
    probe = school.accuracy(take(METHODS["probe"]).before)
    for name in ("fine-tuning", "clr-reduced", "clr-full", "clr-mix"):
        assert school.accuracy(take(METHODS[name]).before) > probe, name


# ---- what they promise ------------------------------------------------------------------


@pytest.mark.parametrize("method", TRAINED, ids=lambda one: one.name)
def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(
    method: Method, take: Callable[[Method], Course], school: School, backbone: Backbone
) -> None:
    torch.manual_seed(int(time.time()))  # nothing is drawn from the global generator
    again = attend(method, school, backbone)
    assert torch.equal(again.before, take(method).before)
    assert torch.equal(again.second, take(method).second)


def test_a_random_start_is_the_seeds_whatever_other_threads_draw(
    school: School, backbone: Backbone
) -> None:
    def start(seed: int) -> Tensor:
        return _at_birth(backbone, school.lessons[0], seed)["head.weight"]

    alone = [start(seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as threads:
        beside = list(threads.map(start, [0, 1] * 40))
    assert all(torch.equal(one, alone[at % 2]) for at, one in enumerate(beside))


@pytest.mark.parametrize("method", SEPARATE, ids=lambda one: one.name)
def test_separate_tasks_leave_earlier_ones_bit_for_bit_as_they_were(
    method: Method, take: Callable[[Method], Course]
) -> None:
    assert torch.equal(take(method).before, take(method).after)


@pytest.mark.parametrize("method", SHARED, ids=lambda one: one.name)
def test_shared_weights_change_what_earlier_tasks_compute(
    method: Method, take: Callable[[Method], Course]
) -> None:
    assert not torch.allclose(take(method).before, take(method).after, atol=1e-3)


def test_consolidated_weights_change_less_what_earlier_tasks_compute(
    take: Callable[[Method], Course],
) -> None:
    def drift(name: str) -> float:
        course = take(METHODS[name])
        return float((course.after - course.before).square().mean())

    assert drift("ewc") < 0.5 * drift("sequential")


def test_what_is_rehearsed_is_not_forgotten(
    take: Callable[[Method], Course], school: School
) -> None:
    replay, plain = (take(METHODS[name]) for name in ("replay", "sequential"))
    assert school.accuracy(replay.after) >= school.accuracy(replay.before)
    assert school.accuracy(replay.after) > school.accuracy(plain.after)


@EVERY
def test_the_backbone_is_as_it_was(
    method: Method, take: Callable[[Method], Course], backbone: Backbone
) -> None:
    take(method)
    backbone.check()
    assert not any(module.training for module in backbone.module.modules())
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())


# ---- what they cost ---------------------------------------------------------------------


def expected_cost(name: str, backbone: Backbone) -> Cost:
    """The cost of the first task by the methods' formulas, with c channels, n classes."""
    convolutions = backbone.convolutions

    def channels(paths: Iterable[str]) -> int:
        return sum(convolutions[path].out_channels for path in paths)

    late = late_sites(backbone, 4)  # after which alone kernels of few images learn
    full = 9 * channels(late & {*kernel_sites(backbone, "full")})
    reduced = 9 * channels(late & {*kernel_sites(backbone, "reduced")})
    mixing = 2 * 4 * channels(late & {*mixing_sites(backbone)})
    norms = sum(one.num_features for one in batch_norm_sites(backbone).values())
    weights = sum(one.weight.numel() for one in convolutions.values())
    everything = sum(one.numel() for one in backbone.module.parameters())
    transformed = sum(
        9 * 8 * c + 16 * c + 2 * c
        for c in (convolutions[path].out_channels for path in kernel_sites(backbone, "reduced"))
    )
    low_rank = sum(
        min(4, *one.weight.flatten(1).shape) * sum(one.weight.flatten(1).shape)
        for one in convolutions.values()
    )
    head = len(LABELS) * (backbone.channels + 1)
    floats = {
        "probe": Cost.of_floats(head=head),
        "batch-norm": Cost.of_floats(head=head, batch_norm=2 * norms),
        "fine-tuning": Cost.of_floats(head=head, other=everything),
        "sequential": Cost.of_floats(head=head, other=everything),
        "ewc": Cost.of_floats(head=head, other=3 * everything),
        "replay": Cost.of_floats(head=head, other=everything),
        "eft": Cost.of_floats(head=head, kernels=transformed),
        "lora": Cost.of_floats(head=head, kernels=low_rank),
        "clr-published": Cost.of_floats(
            head=head, kernels=9 * channels(kernel_sites(backbone, "reduced")), batch_norm=4 * norms
        ),
        "clr-reduced": Cost.of_floats(head=head, kernels=reduced),
        "clr-full": Cost.of_floats(head=head, kernels=full),
        "clr-mix": Cost.of_floats(head=head, kernels=reduced + mixing),
        "supsup": Cost(head=head, other=weights, bytes=4 * head + -(-weights // 8)),
    }
    return floats[name]


@pytest.mark.parametrize("method", [one for one in METHODS.values() if one.name != "majority"],
                         ids=lambda one: one.name)  # fmt: skip
def test_what_a_task_adds_is_counted_by_kind(
    method: Method, take: Callable[[Method], Course], backbone: Backbone
) -> None:
    found, expected = take(method).learner.cost("first"), expected_cost(method.name, backbone)
    assert replace(found, bytes=0) == replace(expected, bytes=0)
    if method.name.startswith("clr-") and method.name != "clr-published":
        assert found.bytes <= expected.bytes  # an adapter's storage may be narrower
    elif method.name != "replay":
        assert found.bytes == expected.bytes


def test_of_shared_weights_the_copy_is_counted_once(
    take: Callable[[Method], Course], backbone: Backbone
) -> None:
    head = len(LABELS) * (backbone.channels + 1)
    for name in ("sequential", "ewc"):
        assert take(METHODS[name]).learner.cost("second") == Cost.of_floats(head=head)


def test_replayed_images_are_counted_with_their_tasks(
    take: Callable[[Method], Course], school: School, backbone: Backbone
) -> None:
    """All fit: 82 + 30 images are fewer than the capacity."""
    learner = take(METHODS["replay"]).learner
    for lesson in school.lessons:
        cost = learner.cost(lesson.task)
        values = cost.kernels + cost.batch_norm + cost.head + cost.other
        assert len(lesson.baseline.train) < CAPACITY
        assert cost.bytes == 4 * values + len(lesson.baseline.train) * 3 * 32 * 32


# ---- budgets ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clr-reduced", "fine-tuning", "clr-published"])
def test_a_budget_of_seconds_is_spent_and_teaches(
    name: str, school: School, backbone: Backbone
) -> None:
    learner, begun = METHODS[name].start(backbone), time.monotonic()
    learner.learn(school.lessons[0], Budget(seconds=1.0), 0)
    assert time.monotonic() - begun >= 1.0
    assert school.accuracy(school.logits(learner, "first")) > 1 / 3


def test_with_a_budget_of_seconds_progress_is_the_share_that_is_over(
    school: School, backbone: Backbone
) -> None:
    """The schedule is asked for a progress that rises from near 0 to near 1."""
    lesson, asked = school.lessons[0], []
    weight = torch.zeros(3, requires_grad=True)

    def logits(batch: Tensor) -> Tensor:
        time.sleep(0.01)
        return weight.expand(len(batch), -1)

    training = Training(
        logits,
        logits,
        lesson.images,
        lesson.baseline,
        lesson.preprocessing,
        Recipe(epochs=1),
        backbone.device,
        0.5,
        schedule=lambda progress: asked.append(progress) or 1.0,  # type: ignore[func-returns-value]
    )
    optimiser = torch.optim.SGD([weight], lr=0.1)
    for number in training.epochs(1):
        training.epoch(optimiser, number)
    assert asked == sorted(asked)
    assert asked[0] < 0.3
    assert 0.5 < asked[-1] <= 1
    assert len(asked) > -(-len(lesson.baseline.train) // 16)  # more than the recipe's one epoch


# ---- bad input --------------------------------------------------------------------------


@EVERY
def test_an_unknown_task_is_an_error_that_names_the_known_ones(
    method: Method, take: Callable[[Method], Course]
) -> None:
    learner = take(method).learner
    for ask in (lambda: learner.logits(torch.zeros(1, 3, 32, 32), "third"),
                lambda: learner.cost("third")):  # fmt: skip
        with pytest.raises(UsageError, match=r"'third' was not learned.*first, second"):
            ask()


@EVERY
def test_a_task_is_learned_once(
    method: Method, take: Callable[[Method], Course], school: School
) -> None:
    with pytest.raises(UsageError, match="first was learned before"):
        take(method).learner.learn(school.lessons[0], BUDGET, 0)


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"seconds": 0.0}, {"seconds": float("inf")}])
def test_a_budget_of_nothing_or_without_end_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="budget"):
        Budget(**bad)  # type: ignore[arg-type]


def test_labels_must_be_those_of_the_baseline(school: School) -> None:
    with pytest.raises(UsageError, match="2 labels, but a baseline of 3"):
        replace(school.lessons[0], labels=("a", "b"))


def test_batch_norm_only_needs_a_batch_norm(
    load: Callable[[str], Backbone], school: School, preprocessing: Preprocessing
) -> None:
    learner = METHODS["batch-norm"].start(load("test_convnext"))
    with pytest.raises(UsageError, match="no batch norm"):
        learner.learn(school.lessons[0], BUDGET, 0)


# ---- a fine-tuned backbone, as the demonstration offers it to the gate --------------------


def test_a_finetuned_backbone_is_another_one(backbone: Backbone, school: School) -> None:
    lesson, told = school.lessons[1], []
    found = finetuned(
        backbone,
        lesson.images,
        lesson.preprocessing,
        3,
        epochs=2,
        on_epoch=lambda number, loss: told.append(number),
    )
    backbone.check()
    found.check()
    assert found.digest != backbone.digest
    assert found.convolutions.keys() == backbone.convolutions.keys()
    assert told == [1, 2]


def test_a_setting_of_the_recipe_is_changed_by_name(school: School, backbone: Backbone) -> None:
    def cost(name: str) -> Cost:
        method = find_method(name)
        assert method.name == name
        learner = method.start(backbone)
        learner.learn(school.lessons[1], Budget(epochs=1), 0)
        return learner.cost("second")

    small, large = cost("clr-reduced"), cost("clr-reduced+storage=float32+flips=false")
    assert small.kernels == large.kernels
    assert small.bytes < large.bytes / 3


def test_without_balance_classes_of_uneven_size_weigh_the_same(
    school: School, backbone: Backbone
) -> None:
    given = school.lessons[1]
    weights = torch.tensor([0.2, 1.0, 5.0])
    uneven = replace(given, baseline=replace(given.baseline, weights=weights))

    def logits(name: str, lesson: Lesson) -> Tensor:
        learner = find_method(name).start(backbone)
        learner.learn(lesson, Budget(epochs=1), 0)
        return school.logits(learner, "second")

    weighed, same = (logits(f"clr-reduced{x}", uneven) for x in ("", "+balance=false"))
    assert not torch.equal(weighed, same)
    assert torch.equal(same, logits("clr-reduced", given))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("probe+shift=0", "is no method"),
        ("clr-reduced+variant=full", "variant cannot be changed"),
        ("clr-reduced+shift", "recipe.shift is ''"),
        ("clr-full+shif=0", "Did you mean shift"),
    ],
)
def test_a_setting_that_cannot_be_changed_is_refused(name: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_method(name)
    assert said in f"{refused.value.message} {refused.value.fix}"
