"""The accuracy matrix grows with every promotion and its metrics are the published ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.errors import IntegrityBroken
from clr.gate import decide
from clr.gate.matrix import MAX_TASKS, grow
from clr.gate.statistics import average_accuracy, backward_transfer, forgetting

# busy machines are slow, which is no failure
few = settings(max_examples=60)


def life(matrix):
    """Promote the tasks of a full accuracy matrix one after another; return the last state."""
    state = None
    for step in range(len(matrix)):
        before = matrix[max(step - 1, 0)]
        earlier = {f"t{j:04}": (before[j], matrix[step][j]) for j in range(step)}
        state = grow(state and state.to_dict(), earlier, (f"t{step:04}", matrix[step][step]))
    return state


@few
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_metrics_are_those_of_the_full_matrix(size, seed):
    matrix = np.round(np.random.default_rng(seed).random((size, size)), 4)
    state = life(matrix.tolist())
    found = state.metrics()
    assert found["average_accuracy"] == pytest.approx(average_accuracy(matrix), abs=1e-6)
    for name, of in (("backward_transfer", backward_transfer), ("forgetting", forgetting)):
        assert found.get(name) == (None if size == 1 else pytest.approx(of(matrix), abs=1e-6))
    rows = [[value for value in row if value is not None] for row in state.rows]
    assert rows == [matrix[i, : i + 1].tolist() for i in range(size)]


def test_rows_are_kept_for_few_tasks_and_three_figures_a_task_for_ever():
    state = life(np.full((MAX_TASKS, MAX_TASKS), 0.9).tolist())
    assert len(state.rows) == len(state.after) == MAX_TASKS
    names = state.tasks
    state = grow(state.to_dict(), dict.fromkeys(names, (0.9, 0.8)), ("one-more", 0.7))
    assert state.rows == state.after == ()
    assert state.metrics()["forgetting"] == pytest.approx(0.1)
    assert (state.learned[0], state.best[0], state.now[0]) == (0.9, 0.9, 0.8)


def test_first_report_over_a_system_that_has_no_history():
    state = grow(None, {"a": (0.9, 0.9), "b": (0.8, 0.8)}, ("c", 0.7))
    assert state.after == ("release in force", "c")
    assert state.rows == ((0.9, 0.8, None), (0.9, 0.8, 0.7))


def test_new_version_of_a_task_is_learned_anew():
    past = grow(None, {}, ("a", 0.9)).to_dict()
    past = grow(past, {"a": (0.9, 0.9)}, ("b", 0.8)).to_dict()
    state = grow(past, {"b": (0.8, 0.8)}, ("a", 0.95))
    assert state.tasks == ("b", "a")
    assert state.learned == (0.8, 0.95)
    assert state.rows == ((None, 0.9), (0.8, 0.9), (0.8, 0.95))


def test_the_best_before_counts_what_the_release_in_force_had():
    past = grow(None, {"a": (0.8, 0.95)}, None).to_dict()
    state = grow(past, {"a": (0.8, 0.9)}, None)
    assert (state.learned, state.best, state.now) == ((0.8,), (0.95,), (0.9,))


def test_retired_task_leaves_the_matrix():
    past = grow(None, {"a": (0.9, 0.9), "b": (0.8, 0.8)}, None).to_dict()
    assert grow(past, {"b": (0.8, 0.8)}, ("c", 0.7)).tasks == ("b", "c")


def test_what_was_not_measured_is_not_averaged():
    state = grow(None, {"a": (0.9, None), "b": (0.8, 0.6)}, None)
    assert state.metrics() == {
        "average_accuracy": 0.6,
        "backward_transfer": -0.2,
        "forgetting": 0.2,
    }


@pytest.mark.parametrize(
    "history",
    [
        {"tasks": ["a"]},
        {"tasks": ["a"], "learned": [], "best": [0.9], "now": [0.9], "rows": [], "after": []},
        {"tasks": ["a"], "learned": [1], "best": [1], "now": [1], "rows": [[1, 1]], "after": ["a"]},
    ],
)
def test_history_of_another_form_is_refused(history):
    with pytest.raises(IntegrityBroken, match="accuracy matrix"):
        grow(history, {}, ("a", 0.9))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, [bad]) for name in ("learned", "best") for bad in ("x", True, None, -0.1)),
        ("learned", [10**400]),
        ("best", [float("nan")]),
        ("now", ["x"]),
        ("now", [float("inf")]),
        ("rows", [[[0.9]]]),
        ("rows", [[float("nan")]]),
        ("tasks", [["a"]]),
        ("after", [1]),
    ],
)
def test_a_history_of_other_values_is_refused(name, values):
    history = grow(None, {}, ("a", 0.9)).to_dict() | {name: values}
    with pytest.raises(IntegrityBroken, match="accuracy matrix"):
        grow(history, {"a": (0.9, 0.9)}, ("b", 0.8))


def test_what_was_not_measured_may_be_missing_from_a_history():
    history = grow(None, {"a": (0.9, None)}, None).to_dict()
    assert history["now"] == [None]
    assert grow(history, {"a": (0.9, 0.8)}, None).best == (0.9,)


def test_reports_chain_through_their_matrix(make):
    first = decide(make.offer(new=make.newcomer("digits", won=0, right=360)))
    history = first.to_dict()["matrix"]
    second = decide(make.offer(make.earlier(), new=make.newcomer(), matrix=history))
    assert second.matrix.after == ("digits", "surface")
    assert second.matrix.rows == ((0.9, None), (0.9, 0.85))
