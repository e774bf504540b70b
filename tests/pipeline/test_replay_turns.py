"""Which earlier tasks are due for a replay, beyond the number up to which all are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.registry.releases import current_release, get_release
from flows.replay import replay_is_due, turn_of

TASKS = tuple(f"task-{number}" for number in range(30))
EVERY = 10
SESSION = SimpleNamespace(settings=SimpleNamespace(gate_replay_tasks=20, gate_replay_every=EVERY))
STEPS = st.lists(st.sampled_from(["promotion", "retirement", "rollback"]), max_size=60)


def release(number, tasks=TASKS):
    return SimpleNamespace(version=number, tasks=dict.fromkeys(tasks))


def due(number, report):
    now = release(number)
    turn = turn_of(report, now)
    return {task for task in TASKS if replay_is_due(SESSION, now, task, turn)}, {"turn": turn}


@given(STEPS, st.booleans())
def test_no_task_waits_longer_however_releases_follow_one_another(steps, older):
    """A retirement keeps the report of the gate before; a rollback goes back to an earlier one."""
    number, report, waiting = 3, {} if older else {"turn": 2}, dict.fromkeys(TASKS, 0)
    left = []
    for step in steps:
        before = number, report, waiting
        if step == "promotion":
            replayed, report = due(number, report)
            waiting = {task: 0 if task in replayed else waiting[task] + 1 for task in TASKS}
            assert max(waiting.values()) < EVERY
        if step == "rollback" and left:
            number, report, waiting = left.pop()
        else:
            left.append(before)
            number += 1


def test_retirements_between_promotions_skip_nobody():
    number, report, seen = 1, {"turn": 0}, set()
    for _ in range(EVERY):
        replayed, report = due(number, report)
        assert not replayed & seen
        seen |= replayed
        number += 2  # the promotion's release, and one without a task
    assert seen == set(TASKS)


def test_up_to_some_tasks_all_are_due_each_time():
    few = TASKS[:20]
    assert all(replay_is_due(SESSION, release(3, few), task, 7) for task in few)


@pytest.mark.slow
def test_reports_count_from_gate_to_gate(working):
    session = working.session()
    made = [get_release(session.registry, number) for number in (1, 2, 3)]
    assert [session.gate_report(one)["turn"] for one in made] == [0, 1, 2]
    assert working.clr("retire", "red-caps", "--reason", "old lamps").code == 0
    session = working.session()
    now = current_release(session.registry)
    assert (now.version, turn_of(session.gate_report(now), now)) == (4, 3)
    assert working.clr("rollback", "--to", 2, "--reason", "new lamps").code == 0
    session = working.session()
    now = current_release(session.registry)
    assert turn_of(session.gate_report(now), now) == 2
