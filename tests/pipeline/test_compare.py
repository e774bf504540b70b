"""``clr compare``: from task folders to a report, over a kill, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clr.core.methods import METHODS as METHODS_BY_NAME
from clr.core.methods.separate import Served, separate

METHODS = ("probe", "clr-reduced", "sequential")
OPTIONS = ("--methods", ",".join(METHODS), "--seeds", 1, "--epochs", 1, "--size", 32)
UNITS = 2 + 2 + 1
"""Two methods on each of two tasks, and one sequence."""

PATIENCE = 300.0


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, new_caps: Callable[..., Path]) -> list[Path]:
    folder = tmp_path_factory.mktemp("compared")
    return [
        new_caps(folder / name, colour, epochs=0) for colour, name in enumerate(("rot", "lime"))
    ]


def kept(plant: Any) -> dict[str, int]:
    """Finished units, with the time at which each was written."""
    units = (plant.state / "compare/units").glob("[0-9a-f]*")  # without what a kill left half
    return {one.name: one.stat().st_mtime_ns for one in units}


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    """What must not hang on how often the comparison was cut off."""
    names = ("name", "accuracy", "average", "forgetting", "backward_transfer", "matrix", "cost",
             "against")  # fmt: skip
    proofs = ("retention", "how", "example")
    return {
        one["name"]: [{name: one[name] for name in names}, [one["gate"][name] for name in proofs]]
        for one in document["methods"]
    }


def test_a_unit_of_another_comparison_counts_as_what_this_one_asked_for(
    plant: Any, tasks: list[Path]
):
    """All images, and as many a class as there are, are the same ones."""
    options = ("--methods", "probe", *OPTIONS[2:], "--json")
    assert plant.clr("compare", *tasks, *options).code == 0
    curve = plant.clr("compare", *tasks, *options, "--per-class", "6,12").json
    assert [one["per_class"] for one in curve["curves"]["points"]] == [6, 12]
    assert set(curve["methods"][0]["accuracy"]) == {"rot", "lime"}


def test_a_unit_for_which_memory_does_not_suffice_is_named_and_stops_no_other(
    plant: Any, tasks: list[Path], monkeypatch: pytest.MonkeyPatch
):
    def hungry(*_: object) -> Served:
        torch.empty(10**15)
        raise AssertionError("so much memory was there")

    method = replace(METHODS_BY_NAME["majority"], start=separate(hungry))
    monkeypatch.setitem(METHODS_BY_NAME, "majority", method)
    options = ("--methods", "majority,probe", *OPTIONS[2:], "--json")
    answer = plant.clr("compare", *tasks, *options)
    assert answer.code == 2
    assert answer.json["units"] == {"planned": 4, "finished": 2}
    failed = {one["unit"]: one["message"] for one in answer.json["failed"]}
    assert set(failed) == {"majority rot seed 0", "majority lime seed 0"}
    assert all("Not enough memory" in said for said in failed.values())
    answer = plant.clr("compare", *tasks, "--methods", "majority", *OPTIONS[2:], "--json")
    assert answer.code == 2  # none is done: why is what the command says
    assert "Not enough memory" in answer.json["message"]
    assert "majority" in answer.json["message"]


def test_a_changed_setting_of_the_recipe_has_its_figures_in_mlflow(plant: Any, tasks: list[Path]):
    method = "clr-reduced+shift=0+kernel_lr=0.003"
    answer = plant.clr("compare", tasks[0], "--methods", method, *OPTIONS[2:], "--json")
    assert answer.code == 0, answer.err
    figures = plant.session().registry.client.get_run(answer.json["run"]).data.metrics
    average = answer.json["methods"][0]["average"]["mean"]
    assert figures["clr-reduced shift:0 kernel_lr:0.003.average"] == pytest.approx(average)


@pytest.mark.soak
def test_a_killed_comparison_goes_on_and_says_the_same(
    plant: Any, tasks: list[Path], tmp_path: Path
):
    code = "from flows.cli import main; main()"
    command = [sys.executable, "-c", code, "compare", *map(str, (*tasks, *OPTIONS))]
    process = subprocess.Popen(
        command, cwd=plant.root, env={**os.environ, **plant.settings, "CLR_PARALLEL": "1"}
    )
    deadline = time.monotonic() + PATIENCE
    while not kept(plant) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = kept(plant)
    assert 0 < len(before) < UNITS

    answer = plant.clr("compare", *tasks, *OPTIONS, "--output", tmp_path / "report", "--json")
    assert answer.code == 0, answer.err
    assert len(kept(plant)) == UNITS
    assert before.items() <= kept(plant).items()  # what was finished is not done again
    document = answer.json
    assert document["units"] == {"planned": UNITS, "finished": UNITS}
    for name in ("compare.json", "compare.html", "accuracy.png", "accuracy-bytes.png"):
        assert (tmp_path / "report" / name).stat().st_size > 1000
    assert _gate(document, "clr-reduced")["how"] == {"identical": 1}
    assert sum(_gate(document, "sequential")["how"].values()) == 1
    _one_run_with_one_below_it_a_unit(plant, document["run"])

    # nothing of another run: the same from the start
    home = {"CLR_HOME": str(tmp_path / "home")}
    again = plant.clr("compare", *tasks, *OPTIONS, "--json", **home)
    assert without_times(again.json) == without_times(document)

    # the report alone, by the beginning of the comparison's name
    redrawn = plant.clr("compare", "--report", document["name"][:6], "--json")
    written = json.loads((tmp_path / "report" / "compare.json").read_text())
    assert {name: redrawn.json[name] for name in written} == written


def _gate(document: dict[str, Any], method: str) -> dict[str, Any]:
    gate: dict[str, Any] = next(one["gate"] for one in document["methods"] if one["name"] == method)
    return gate


def _one_run_with_one_below_it_a_unit(plant: Any, run: str) -> None:
    client = plant.session().registry.client
    experiment = client.get_experiment_by_name("clr/compare").experiment_id
    runs = client.search_runs([experiment])
    below = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == run]
    assert len(runs) == UNITS + 1
    assert len(below) == UNITS
    assert {one.info.status for one in runs} == {"FINISHED"}
    assert {one.path for one in client.list_artifacts(run)} >= {"compare.html", "compare.json"}


def test_a_damaged_unit_is_named_before_anything_else_is_done(plant: Any, tasks: list[Path]):
    options = ("--methods", "probe", "--epochs", 1, "--size", 32)
    assert plant.clr("compare", *tasks, "--seeds", 1, *options).code == 0
    first, second = sorted((plant.state / "compare/units").iterdir())
    for content in (first.read_bytes()[:100], second.read_bytes()):
        first.write_bytes(content)
        before = kept(plant)
        answer = plant.clr("compare", *tasks, "--seeds", 2, *options)
        assert (answer.code, str(first) in answer.err) == (6, True), answer.err
        assert kept(plant) == before
    first.unlink()
    assert plant.clr("compare", *tasks, "--seeds", 1, *options).code == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--methods", "probe,magic"), 2, "There are majority, probe"),
        (("--methods", "clr-reduced+shifts=0"), 2, "Did you mean shift"),
        (("--methods", "clr-full+epochs=3"), 2, "epochs cannot be changed"),
        (("--methods", "probe+shift=0"), 2, "is no method"),
        (("--methods", "probe,probe"), 2, "names one twice"),
        (("--tasks", "rot,gone"), 2, "'gone'"),
        (("--per-class", "5,x"), 2, "no list of numbers"),
        (("--per-class", "9" * 5000), 2, "no list of numbers"),
        (("--per-class", "500,5000"), 2, "none of its classes has more"),
        (("--size", 31), 2, "--size is 31"),
        (("--per-class", "5", "--images", 20), 2, "exclude each other"),
        (("--report", "abc"), 2, "none yet"),
        (("--report", ""), 2, "0 comparisons begin"),
        (("--output", __file__), 7, "no folder to write into"),
    ],
)
def test_a_slip_is_told_before_anything_starts(
    plant: Any, tasks: list[Path], options: tuple[Any, ...], code: int, said: str
):
    answer = plant.clr("compare", *tasks, *options)
    assert (answer.code, said in answer.err) == (code, True), answer.err
    assert not (plant.state / "compare").exists()


def test_seeds_do_not_pass_the_largest(plant: Any, tasks: list[Path]):
    answer = plant.clr("compare", *tasks, "--seeds", 2, CLR_SEED="2147483647")
    assert (answer.code, "Set a smaller CLR_SEED" in answer.err) == (2, True), answer.err


def test_a_workspace_without_tasks_has_nothing_to_compare_on(plant: Any):
    answer = plant.clr("compare")
    assert answer.code == 2
    assert "no task" in answer.err


def test_a_class_that_cannot_be_validated_is_refused(plant: Any, tasks: list[Path], tmp_path: Path):
    short = tmp_path / "short"
    for split in ("train", "test"):
        for label in ("dark", "light"):
            (short / split / label).mkdir(parents=True)
            image = next((tasks[0] / split / label).iterdir())
            (short / split / label / "one.png").write_bytes(image.read_bytes())
    answer = plant.clr("compare", short)
    assert answer.code == 3
    assert "class dark has 1 training" in answer.err
