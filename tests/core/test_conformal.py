"""A limit is exceeded no more often than promised, whatever the scores are."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.core.conformal import limit, promise, rank

SHARES = st.floats(0.001, 0.999)


@given(
    scores=st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=30),
    share=SHARES,
)
def test_of_exchangeable_scores_as_few_exceed_the_limit_of_the_others_as_promised(
    scores: list[float], share: float
) -> None:
    """Exchangeable: each of the n + 1 is as likely to be the new one. No tolerance, ties too."""
    values = np.array(scores, dtype=np.float32)
    exceed = [values[at] > limit(np.delete(values, at), share) for at in range(len(values))]
    assert np.mean(exceed) <= promise(len(values) - 1, share) + 1e-12


@given(count=st.integers(1, 5000), share=SHARES)
def test_the_promise_is_the_share_unless_the_scores_are_too_few(count: int, share: float) -> None:
    assert promise(count, share) <= max(share, 1 / (count + 1)) + 1e-9


@given(count=st.integers(1, 5000), share=SHARES)
def test_no_lower_limit_would_keep_the_promise(count: int, share: float) -> None:
    k = rank(count, share)
    assert 1 <= k <= count
    assert k == 1 or 1 - (k - 1) / (count + 1) > share


@pytest.mark.parametrize(
    ("count", "share", "k"), [(19, 0.05, 19), (18, 0.05, 18), (99, 0.05, 95), (128, 0.02, 127)]
)
def test_ranks_by_hand(count: int, share: float, k: int) -> None:
    assert rank(count, share) == k


def test_the_order_of_scores_does_not_matter() -> None:
    limits = {limit(np.array(one, dtype=np.float32), 0.4) for one in permutations([3, 1, 4, 1, 5])}
    assert limits == {4.0}
