"""A step's result is kept beside what it came from, and made anew where any of that is another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import provenance
from flows.steps import once


@pytest.fixture
def run(tmp_path: Path):
    """Function (inputs) -> which computation the result of the step is of, counted from 1."""
    made: list[int] = []

    def compute() -> dict[str, Any]:
        made.append(len(made) + 1)
        (tmp_path / "file").write_text(str(made[-1]), encoding="utf-8")
        return {"files": ["file"], "number": made[-1]}

    return lambda inputs: once(tmp_path, "step", {"inputs": inputs}, compute)["number"]


def test_the_same_is_not_done_again(run):
    assert [run("a"), run("a")] == [1, 1]


def test_other_inputs_are_another_result(run):
    assert [run("a"), run("b")] == [1, 2]


@pytest.mark.parametrize("content", [None, "changed"])
def test_a_file_that_is_not_as_it_was_written_is_made_again(run, tmp_path, content):
    run("a")
    (tmp_path / "file").unlink()
    if content:
        (tmp_path / "file").write_text(content, encoding="utf-8")
    assert run("a") == 2


@pytest.mark.parametrize("name", ["code_digest", "environment_digest"])
def test_what_other_code_or_packages_made_is_not_passed_off_as_made_by_these(
    run, monkeypatch, name
):
    assert run("a") == 1
    monkeypatch.setattr(provenance, name, lambda: "sha256:upgraded")
    assert [run("a"), run("a")] == [2, 2]


def test_a_damaged_record_counts_for_nothing(run, tmp_path):
    run("a")
    (tmp_path / "step.step.json").write_text("{", encoding="utf-8")
    assert run("a") == 2
