"""Two people, or one impatient one, at the same time."""

from __future__ import annotations

import json

import pytest


@pytest.mark.soak
def test_the_same_folder_twice_at_once_is_one_version(processes, working, tmp_path, new_caps):
    task = new_caps(tmp_path / "yellow-caps", 3)
    before = working.rows("runs")
    command = ("onboard", task, "--json")
    answers = processes((working, command), (working, command))
    assert [one["code"] for one in answers] == [0, 0], answers
    first, second = (json.loads(one["out"]) for one in answers)
    assert first["version"] == second["version"] == 1
    assert first["mlflow"] == second["mlflow"]
    assert sorted(one.get("already", False) for one in (first, second)) == [False, True]
    assert working.rows("runs") == before + 1
    assert working.ledger().count(("adapter.registered", "clr-yellow-caps/1")) == 1


@pytest.mark.soak
def test_two_tasks_at_once_are_two_versions_and_both_can_be_approved(
    processes, working, tmp_path, new_caps
):
    names = ("yellow-caps", "violet-caps")
    tasks = [new_caps(tmp_path / name, colour) for colour, name in enumerate(names, 3)]
    answers = processes(*((working, ("onboard", task, "--json")) for task in tasks))
    assert [one["code"] for one in answers] == [0, 0], answers
    reviews = processes(*((working, ("review", name, 1, "approve", "--json")) for name in names))
    assert [one["code"] for one in reviews] == [0, 0], reviews
    assert sorted(json.loads(one["out"])["release"] for one in reviews) == [4, 5]
    serving = working.clr("status", "--json").json
    assert serving["release"]["tasks"] == 5
    assert working.clr("verify").code == 0
