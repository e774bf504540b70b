"""What EWC and replay keep of earlier tasks, against closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clr.core.backbone import Backbone
from clr.core.baseline import measure_baseline
from clr.core.images import ImageSet, Preprocessing
from clr.core.methods import Cost, Lesson
from clr.core.methods.ewc import STRENGTH, Consolidation, fisher, merged
from clr.core.methods.replay import CAPACITY, Rehearsal, Reservoir
from clr.core.recipe import Recipe

positive = st.floats(0.01, 100)
anywhere = st.floats(-10, 10)
quadratics = st.lists(st.tuples(positive, anywhere), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def lesson(backbone: Backbone, images: ImageSet, preprocessing: Preprocessing) -> Lesson:
    baseline = measure_baseline(backbone, images, preprocessing, Recipe(flips=False), 3)
    return Lesson("stripes", ("lying", "standing", "slanted"), images, preprocessing, baseline)


@pytest.fixture
def network() -> tuple[nn.Module, nn.Module]:
    """Mean colours, three linear features of them, and a head of three classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False)
        return nn.Sequential(*layers).requires_grad_(False), nn.Linear(3, 3)


# ---- elastic weight consolidation -------------------------------------------------------


def test_fisher_information_of_a_gaussian_is_that_of_the_textbook() -> None:
    """Of y ~ N(w·x, σ²) with known σ it is E[x²] / σ² for each weight."""
    generator = torch.Generator().manual_seed(0)
    sigma = 0.5
    x = torch.randn(4000, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.1])
    weight = torch.tensor([0.3, -1.0, 2.0], requires_grad=True)
    noise = sigma * torch.randn(4000, generator=generator)
    y = (x @ weight).detach() + noise
    values = (-((b - a @ weight) ** 2) / (2 * sigma**2) for a, b in zip(x, y, strict=True))
    (found,) = fisher(values, [weight])
    assert torch.allclose(found, x.square().mean(0) / sigma**2, rtol=0.1)


def test_fisher_information_of_an_unused_weight_is_nought() -> None:
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    found = fisher([used.sum() * 3, used.sum() * 1], [used, unused])
    assert [one.tolist() for one in found] == [[5.0, 5.0], [0.0, 0.0]]


@given(quadratics, anywhere)
@settings(max_examples=100)
def test_many_quadratic_penalties_are_one(parts: list[tuple[float, float]], at: float) -> None:
    """Equal gradients everywhere: they differ by a constant."""
    importance: list[torch.Tensor] = []
    anchor: list[torch.Tensor] = []
    for strength, centre in parts:
        one = torch.tensor([[strength], [centre]], dtype=torch.float64)
        importance, anchor = merged(importance, anchor, [one[0]], [one[1]])
    expected = sum(strength * (at - centre) for strength, centre in parts)
    assert float(importance[0] * (at - anchor[0])) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_weight_that_no_task_needs_is_free() -> None:
    nought = torch.zeros(1)
    importance, anchor = merged([nought], [nought], [nought], [torch.ones(1)])
    assert importance[0].item() == 0
    assert torch.isfinite(anchor[0]).all()


def test_the_penalty_is_half_lambda_times_fisher_times_squared_distance(
    lesson: Lesson, network: tuple[nn.Module, nn.Module]
) -> None:
    """Equation 3 of the paper: from its value where one weight has moved, F is read."""
    body, head = network
    memory = Consolidation()
    assert memory.penalty(body, Recipe()) is None  # the first task is free
    memory.remember(body, head, lesson, seed=0)
    pull = memory.penalty(body, Recipe())
    assert pull is not None
    assert float(pull()) == 0
    weight = body[2].weight
    read = []
    for moved in (1.0, 2.0, -1.0):
        with torch.no_grad():
            weight[0, 0] += moved
            read.append(float(pull()) / (0.5 * STRENGTH * moved**2))
            weight[0, 0] -= moved
    assert read[0] > 0
    assert read == pytest.approx([read[0]] * 3, rel=1e-3)


def test_the_minimum_of_loss_and_penalty_is_where_the_formula_says(
    lesson: Lesson, network: tuple[nn.Module, nn.Module]
) -> None:
    """Of ½ a (θ − b)² + ½ λ F (θ − θ*)² it is (a b + λ F θ*) / (a + λ F)."""
    body, head = network
    memory = Consolidation()
    memory.remember(body, head, lesson, seed=0)
    pull = memory.penalty(body, Recipe())
    assert pull is not None
    weight, anchor = body[2].weight, body[2].weight.detach().clone()
    with torch.no_grad():
        weight += 1
    weight.requires_grad_(True)
    (slope,) = torch.autograd.grad(pull(), weight)  # λ F, at a distance of 1
    a, b = float(slope.mean()), 3.0
    optimiser = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = 0.5 * a * (weight - b).square().sum() + pull()
        value.backward()
        return value

    optimiser.step(loss)
    expected = (a * b + slope * anchor) / (a + slope)
    assert torch.allclose(weight.detach(), expected, atol=1e-3)


def test_ewc_keeps_two_values_a_weight_whatever_the_number_of_tasks(
    lesson: Lesson, network: tuple[nn.Module, nn.Module]
) -> None:
    body, head = network
    memory = Consolidation()
    memory.remember(body, head, lesson, seed=0)
    memory.remember(body, head, Lesson("more", *list(vars(lesson).values())[1:]), seed=0)
    assert memory.cost("stripes") == Cost.of_floats(other=2 * 9)
    assert memory.cost("more") == Cost()


# ---- replay -----------------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(0, 30), st.integers(0, 1000))
@settings(max_examples=50)
def test_a_reservoir_is_a_sample_without_repetition(capacity: int, offered: int, seed: int) -> None:
    sample: Reservoir[int] = Reservoir(capacity)
    generator = torch.Generator().manual_seed(seed)
    for item in range(offered):
        sample.offer(item, generator)
    assert sample.seen == offered
    assert len(sample.items) == len(set(sample.items)) == min(capacity, offered)
    assert set(sample.items) <= set(range(offered))


def test_every_item_stays_in_the_reservoir_with_the_same_probability() -> None:
    """4 of 12, 3,000 times: each is kept a third of the times, within 5 standard errors."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(12)
    for _ in range(3000):
        sample: Reservoir[int] = Reservoir(4)
        for item in range(12):
            sample.offer(item, generator)
        counts[sample.items] += 1
    error = (1 / 3 * 2 / 3 / 3000) ** 0.5
    assert (counts / 3000 - 1 / 3).abs().max() < 5 * error


def test_the_rehearsed_loss_is_that_of_kept_images_with_their_own_head(
    lesson: Lesson, network: tuple[nn.Module, nn.Module]
) -> None:
    """A head that is sure of the label of every image makes it small, a wrong one large."""
    body, head = network
    recipe = Recipe(label_smoothing=0.0)
    memory = Rehearsal()
    assert memory.penalty(body, recipe) is None
    memory.remember(body, head, lesson, seed=0)
    assert memory.heads == (head,)
    rehearse = memory.penalty(body, recipe)
    assert rehearse is not None
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        assert float(rehearse()) == pytest.approx(torch.log(torch.tensor(3.0)).item())
        head.bias[0] = 50.0  # sure that all are lying: 50 for two images of three
        losses = [float(rehearse()) for _ in range(40)]
    assert sum(losses) / 40 == pytest.approx(50 * 2 / 3, rel=0.15)


def test_of_images_no_more_are_kept_than_the_capacity(
    lesson: Lesson, network: tuple[nn.Module, nn.Module]
) -> None:
    body, head = network
    memory = Rehearsal()
    for name in ("a", "b", "c"):
        memory.remember(body, head, Lesson(name, *list(vars(lesson).values())[1:]), seed=0)
    kept = [memory.cost(name).bytes // (3 * 32 * 32) for name in ("a", "b", "c")]
    assert 3 * len(lesson.baseline.train) > CAPACITY
    assert sum(kept) == CAPACITY
    assert min(kept) > CAPACITY / 6
