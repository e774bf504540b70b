"""Runs: one per key, resumed where an earlier process stopped, nothing logged twice."""

from __future__ import annotations

import logging
import subprocess

import pytest

from clr.errors import IntegrityBroken
from clr.registry import fetch, local, runs

KEY = "sha256:" + "1" * 64


def history(registry, run, name):
    return [(one.step, one.value) for one in registry.client.get_metric_history(run.id, name)]


def test_a_key_has_one_run_however_often_it_is_started(registry, task):
    first = runs.find_or_start_run(registry, task, KEY, name="first", tags={"clr.seed": "0"})
    again = runs.find_or_start_run(registry, task, KEY)
    assert (again.id, first.resumed, again.resumed) == (first.id, False, True)
    assert runs.find_run(registry, task, KEY).id == first.id
    assert runs.find_or_start_run(registry, task, KEY + "0").id != first.id


def test_a_task_without_runs_has_none(registry, task):
    assert runs.find_run(registry, task, KEY) is None


def test_a_run_knows_its_task_key_and_name(registry, task):
    run = runs.find_or_start_run(registry, task, KEY, name="first", tags={"clr.seed": "0"})
    stored = registry.client.get_run(run.id)
    assert stored.info.run_name == "first"
    assert {"clr.task": task, "clr.key": KEY, "clr.seed": "0"}.items() <= stored.data.tags.items()


def test_epochs_logged_by_a_killed_process_are_not_logged_again(registry, task):
    run = runs.find_or_start_run(registry, task, KEY)
    runs.log_epoch(registry, run, 0, {"train_loss": 2.0})
    runs.log_epoch(registry, run, 1, {"train_loss": 1.0})
    resumed = runs.find_or_start_run(registry, task, KEY)
    assert resumed.last_epoch == 1
    for number, loss in enumerate((9.0, 9.0, 0.5)):
        runs.log_epoch(registry, resumed, number, {"train_loss": loss})
    assert history(registry, run, "train_loss") == [(0, 2.0), (1, 1.0), (2, 0.5)]


def test_the_same_final_metrics_twice_are_one_row(registry, task):
    run = runs.find_or_start_run(registry, task, KEY)
    for _ in range(2):
        again = runs.find_or_start_run(registry, task, KEY)
        runs.log_metrics(registry, again, {"accuracy": 0.75, "absent": None})
    assert history(registry, run, "accuracy") == [(0, 0.75)]
    assert "absent" not in registry.client.get_run(run.id).data.metrics


def test_hundreds_of_metrics_go_in_one_call_of_ours(registry, task):
    run = runs.find_or_start_run(registry, task, KEY)
    runs.log_metrics(registry, run, {f"roi.field{number}": number for number in range(250)})
    assert len(registry.client.get_run(run.id).data.metrics) == 250


def test_the_first_value_of_a_parameter_stays_and_a_change_is_warned_about(registry, task, caplog):
    run = runs.find_or_start_run(registry, task, KEY)
    runs.log_params(registry, run, {"threads": 2, "labels": "x" * 9000})
    with caplog.at_level(logging.WARNING):
        again = runs.find_or_start_run(registry, task, KEY)
        runs.log_params(registry, again, {"threads": 4, "labels": "x" * 9000, "seed": 0})
    stored = registry.client.get_run(run.id).data.params
    assert (stored["threads"], stored["seed"], len(stored["labels"])) == ("2", "0", 6000)
    assert [record.getMessage().split()[1] for record in caplog.records] == ["threads"]


def test_the_data_is_an_input_of_the_run(registry, task):
    from clr.registry.dataset import dvc_dataset

    digest = "md5:" + "a" * 32 + ".dir"
    data = dvc_dataset(task, digest, source={"remote": "s3://b"}, profile={"images": 60})
    run = runs.find_or_start_run(registry, task, KEY)
    for _ in range(2):
        runs.log_dataset(registry, run, data)
    (found,) = registry.client.get_run(run.id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == (task, "a" * 32 + ".dir")
    assert found.dataset.source_type == "dvc"
    assert '"remote": "s3://b"' in found.dataset.source
    assert found.dataset.profile == '{"images": 60}'


def test_files_of_a_run_come_back_as_they_went(registry, task, tmp_path):
    run = runs.find_or_start_run(registry, task, KEY)
    runs.log_bytes(registry, run, {"plots/confusion.png": b"\x89PNG", "gate.json": b"{}"})
    runs.log_bytes(registry, run, {"gate.json": b"{1}"})
    for name, data in {
        "plots/confusion.png": b"\x89PNG",
        "gate.json": b"{1}",
    }.items():
        assert fetch.fetch(registry, run.id, name, tmp_path / "back").read_bytes() == data
    assert list((registry.cache / "scratch").iterdir()) == []


def test_a_scratch_folder_is_swept_by_those_alone_who_can_see_its_process(embedded):
    """Containers that share a volume count their processes each from 1."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    root = embedded.cache / "scratch"
    theirs = root / f"{ended.pid}-0123abcd-uploading"
    theirs.mkdir(parents=True)
    with local.scratch(embedded):
        assert theirs.is_dir()
    theirs.rmdir()
    ours = root / f"{ended.pid}-{local._processes()}-killed"
    ours.mkdir()
    with local.scratch(embedded) as mine:
        assert list(root.iterdir()) == [mine]


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_a_failed_run_goes_on_and_can_end_well(registry, task, status):
    run = runs.find_or_start_run(registry, task, KEY)
    runs.finish(registry, run, status)
    again = runs.find_or_start_run(registry, task, KEY)
    assert registry.client.get_run(again.id).info.status == "RUNNING"
    runs.finish(registry, again)
    assert registry.client.get_run(run.id).info.status == "FINISHED"


def test_nothing_is_printed_where_a_command_prints_its_result(registry, task, capfd):
    run = runs.find_or_start_run(registry, task, KEY)
    runs.log_bytes(registry, run, {"gate.json": b"{}"})
    runs.finish(registry, run)
    assert capfd.readouterr().out == ""


def test_a_file_that_a_run_does_not_have_is_named(registry, task, tmp_path):
    run = runs.find_or_start_run(registry, task, KEY)
    with pytest.raises(IntegrityBroken, match=r"no file gate/gate\.json"):
        fetch.fetch(registry, run.id, "gate/gate.json", tmp_path)
    with pytest.raises(IntegrityBroken, match=r"no file gate/gate\.json"):
        fetch.fetch(registry, "0" * 32, "gate/gate.json", tmp_path)
