"""When a training is said to have done harm."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from clr.core.training import is_worse


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
