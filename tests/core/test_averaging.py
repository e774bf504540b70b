"""The mean of the last weights of a training."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from clr.core.averaging import TailAverage
from clr.core.training import is_worse


@given(
    values=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=30),
    share=st.floats(0, 1),
    cut=st.integers(0, 29),
)
def test_it_is_the_mean_of_what_the_tensors_were_in_the_last_part(
    values: list[float], share: float, cut: int
) -> None:
    """Also where a training is cut off and goes on from what was kept."""
    tensors = {"a": torch.zeros(2)}
    average = TailAverage(tensors, share)
    inside = []
    for number, value in enumerate(values):
        if number == cut:
            kept = {name: tensor.clone() for name, tensor in average.state().items()}
            average = TailAverage(tensors, share)
            average.restore(kept)
        progress = (number + 1) / len(values)
        tensors["a"].fill_(value)
        average.update(progress)
        if progress > 1 - share:
            inside.append(value)
    wanted = sum(inside) / len(inside) if inside else values[-1]
    torch.testing.assert_close(average.value()["a"], torch.full((2,), wanted), rtol=0, atol=1e-4)


def test_what_it_holds_does_not_change_with_the_tensors() -> None:
    tensors = {"a": torch.ones(1, requires_grad=True)}
    average = TailAverage(tensors, 1)
    average.update(0.5)
    with torch.no_grad():
        tensors["a"].fill_(7)
    assert average.value()["a"].item() == 1
    assert not average.value()["a"].requires_grad


def answers(both: int, lost: int, won: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which images are right before and after, by how many of each kind there are."""
    before = torch.tensor([True] * both + [True] * lost + [False] * won, dtype=torch.bool)
    after = torch.tensor([True] * both + [False] * lost + [True] * won, dtype=torch.bool)
    return before, after


def test_a_few_images_less_are_no_evidence_of_harm() -> None:
    assert not is_worse(*answers(80, 0, 0))
    assert not is_worse(*answers(70, 6, 4))
    assert not is_worse(*answers(0, 3, 0))  # 1/8
    assert is_worse(*answers(0, 4, 0))  # 1/16
    assert is_worse(*answers(60, 20, 5))
    assert not is_worse(*answers(60, 5, 20))


@given(both=st.integers(0, 50), lost=st.integers(0, 40), won=st.integers(0, 40))
def test_a_training_that_wins_as_many_as_it_loses_is_never_worse(
    both: int, lost: int, won: int
) -> None:
    assert is_worse(*answers(both, lost, won)) <= (lost > won)
    assert is_worse(*answers(both, lost, won)) == is_worse(*answers(0, lost, won))
