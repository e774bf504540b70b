"""The same folder again, changed data, refusals and second thoughts."""

from __future__ import annotations

import shutil

import pytest

from clr.errors import GateRefused, ReviewRefused, UsageError


def test_the_same_folder_twice_says_so_and_adds_nothing(working, template):
    before = working.photograph()
    answer = working.clr("onboard", template.tasks / "red-caps")
    assert answer.code == 0
    assert "already onboarded as version 1" in answer.out
    document = working.clr("onboard", template.tasks / "red-caps", "--json").json
    assert document == {**template.onboarded["red-caps"].json, "already": True}
    assert working.photograph() == before


def test_the_task_in_data_itself_is_the_same_folder(working):
    before = working.photograph()
    (working.root / "data/red-caps/test/dark/.DS_Store").write_bytes(b"\0Finder was here")
    (working.root / "data/red-caps/test/dark/Thumbs.db").write_bytes(b"so was Explorer")
    document = working.clr("onboard", working.root / "data/red-caps", "--json").json
    assert (document["version"], document["already"]) == (1, True)
    after = working.photograph()
    assert (after["versions"], after["ledger"]) == (before["versions"], before["ledger"])


def test_a_lost_result_file_is_fetched_from_the_registry(working, template):
    shutil.rmtree(working.state / "tasks")
    before = working.photograph()
    document = working.clr("onboard", template.tasks / "green-caps", "--json").json
    assert (document["version"], document["already"]) == (1, True)
    told = template.onboarded["green-caps"].json
    for name in ("task", "verdict", "accuracy", "gate", "adapter", "data", "mlflow", "roi"):
        assert document[name] == told[name]
    assert working.photograph() == before


@pytest.fixture(scope="module")
def changed_once(template, tmp_path_factory, new_caps, copy_of):
    """The plant after changed data under an existing name: version 2 waits for its review."""
    folder = tmp_path_factory.mktemp("changed")
    plant = copy_of(template.plant, folder / "plant")
    answer = plant.clr("onboard", new_caps(folder / "red-caps", 0, seed=7), "--json")
    assert answer.code == 0, answer
    assert answer.json["version"] == 2
    return plant


@pytest.fixture
def changed(changed_once, tmp_path, copy_of):
    """A copy of it."""
    shutil.copytree(changed_once.root.parent / "red-caps", tmp_path / "red-caps")
    return copy_of(changed_once, tmp_path / "plant")


def test_changed_data_under_an_existing_name_is_a_new_version(changed):
    status = {one["name"]: one for one in changed.clr("status", "--json").json["tasks"]}
    assert (status["red-caps"]["champion"], status["red-caps"]["candidate"]) == (1, 2)
    assert changed.clr("review", "red-caps", 2, "approve").code == 0
    status = {one["name"]: one for one in changed.clr("status", "--json").json["tasks"]}
    assert (status["red-caps"]["champion"], status["red-caps"]["candidate"]) == (2, None)
    assert changed.clr("verify").code == 0


def test_a_rejected_change_of_data_leaves_the_champion_provable(changed, tmp_path, new_caps):
    """data/ holds version 2, whose release never came; version 1 still serves."""
    rejected = changed.clr("review", "red-caps", 2, "reject", "--reason", "wrong lamp", "--json")
    assert (rejected.code, rejected.json["reason"]) == (0, "wrong lamp")
    status = {one["name"]: one for one in changed.clr("status", "--json").json["tasks"]}
    assert (status["red-caps"]["champion"], status["red-caps"]["candidate"]) == (1, None)
    answer = changed.clr("onboard", new_caps(tmp_path / "yellow-caps", 3), "--json")
    assert (answer.code, answer.json["gate"]["failed"]) == (0, [])
    assert sum(answer.json["gate"]["how"].values()) == 3


def test_a_rejected_version_cannot_be_approved(changed):
    assert changed.clr("review", "red-caps", 2, "reject", "--reason", "wrong lamp").code == 0
    before = changed.photograph()
    answer = changed.clr("review", "red-caps", 2, "approve")
    assert answer.code == ReviewRefused.exit_code
    assert "wrong lamp" in answer.err
    assert changed.photograph() == before


def test_what_was_rejected_can_be_brought_again(changed, tmp_path):
    assert changed.clr("review", "red-caps", 2, "reject").code == 0
    document = changed.clr("onboard", tmp_path / "red-caps", "--json").json
    assert (document["version"], document.get("already")) == (3, None)
    again = changed.clr("onboard", tmp_path / "red-caps", "--json").json
    assert (again["version"], again["already"]) == (3, True)
    assert changed.clr("review", "red-caps", 3, "approve").code == 0


def test_the_gate_runs_again_where_another_promotion_came_first(changed, tmp_path, new_caps):
    green = new_caps(tmp_path / "green-caps", 1, seed=8)
    assert changed.clr("onboard", green, "--json").json["version"] == 2
    assert changed.clr("review", "red-caps", 2, "approve").code == 0
    answer = changed.clr("review", "green-caps", 2, "approve", "--json")
    assert answer.code == 0, answer
    assert "the gate runs again" in answer.err
    assert answer.json["release"] == 5
    assert changed.clr("verify").code == 0


def test_a_version_that_is_no_longer_in_data_is_judged_on_its_own_images(
    changed, tmp_path, new_caps
):
    third = new_caps(tmp_path / "third" / "red-caps", 0, seed=9, test=14)
    assert changed.clr("onboard", third, "--json").json["version"] == 3
    green = new_caps(tmp_path / "green-caps", 1, seed=8)
    assert changed.clr("onboard", green).code == 0
    assert changed.clr("review", "green-caps", 2, "approve").code == 0
    answer = changed.clr("review", "red-caps", 2, "approve", "--json")
    assert answer.code == 0, answer
    assert "the gate runs again" in answer.err


def test_the_champion_cannot_be_rejected(working):
    before = working.photograph()
    answer = working.clr("review", "red-caps", 1, "reject")
    assert answer.code == ReviewRefused.exit_code
    assert working.photograph() == before


def test_approving_the_champion_again_changes_nothing(working):
    before = working.photograph()
    answer = working.clr("review", "red-caps", 1, "approve", "--json")
    assert (answer.code, answer.json["already"]) == (0, True)
    assert working.photograph() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("red-caps", 9), "no version 9"),
        (("no-such-task", 1), "no version 1"),
        (("Red Caps", 1), "red-caps"),
    ],
)
def test_reviewing_what_is_not_there_is_told(working, arguments, words):
    before = working.photograph()
    answer = working.clr("review", *arguments, "approve")
    assert answer.code == UsageError.exit_code
    assert words in answer.err
    assert working.photograph() == before


@pytest.fixture(scope="module")
def refused_once(tmp_path_factory, new_caps, new_plant):
    """A plant whose first task broke a budget."""
    folder = tmp_path_factory.mktemp("refused")
    plant = new_plant(folder / "plant")
    task = new_caps(folder / "red-caps")
    answer = plant.clr("onboard", task, "--json", CLR_GATE_MAX_ADAPTER_MB="0.001")
    assert answer.code == GateRefused.exit_code, answer
    assert (answer.json["verdict"], answer.json["gate"]["failed"]) == (
        "refused",
        ["bytes:red-caps"],
    )
    assert "bytes:red-caps" in answer.err
    return plant


@pytest.fixture
def refused(refused_once, tmp_path, copy_of):
    """A copy of it."""
    shutil.copytree(refused_once.root.parent / "red-caps", tmp_path / "red-caps")
    return copy_of(refused_once, tmp_path / "plant")


def test_what_the_gate_refused_cannot_be_approved(refused):
    before = refused.photograph()
    answer = refused.clr("review", "red-caps", 1, "approve")
    assert answer.code == ReviewRefused.exit_code
    assert "has not passed the retention gate" in answer.err
    assert refused.photograph() == before
    status = refused.clr("status", "--json").json
    assert (status["release"], status["tasks"][0]["candidate"]) == (None, None)


def test_what_was_refused_is_asked_again_and_the_same_answer_adds_nothing(refused, tmp_path):
    before = refused.photograph()
    again = refused.clr("onboard", tmp_path / "red-caps", "--json", CLR_GATE_MAX_ADAPTER_MB="0.001")
    assert again.code == GateRefused.exit_code
    assert (again.json["version"], again.json["already"]) == (1, True)
    assert refused.photograph() == before


def test_once_the_limit_allows_it_a_new_version_passes(refused, tmp_path):
    passed = refused.clr("onboard", tmp_path / "red-caps", "--json")
    assert (passed.code, passed.json["version"], passed.json["verdict"]) == (0, 2, "passed")
    assert refused.clr("review", "red-caps", 2, "approve").code == 0
    again = refused.clr("onboard", tmp_path / "red-caps", "--json")
    assert (again.json["version"], again.json["already"]) == (2, True)
