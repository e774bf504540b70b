"""Full disks, read-only places, and a registry that may not be written."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from clr.errors import ServiceUnavailable
from flows.prefect_api import reaching


def mount(*arguments: object) -> None:
    command = ["mount", *map(str, arguments)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount file systems here")


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A real file system of that size."""
    folder.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def assert_told(answer, *words):
    assert answer.code == ServiceUnavailable.exit_code, answer
    assert "Traceback" not in answer.err
    last = answer.err[answer.err.index("clr: ") :]
    assert len(last.splitlines()) >= 2, "what to do is missing"
    for word in words:
        assert word in last, last


@pytest.mark.parametrize("size", ["300k", "1500k"])
def test_a_full_disk_is_said_so_and_room_is_all_that_is_needed(new_plant, template, tmp_path, size):
    plant = new_plant(tmp_path / "plant")
    with disk(tmp_path / "home", size) as home:
        plant = dataclasses.replace(plant, settings={**plant.settings, "CLR_HOME": str(home)})
        assert_told(plant.clr("onboard", template.tasks / "red-caps"), "full", "again")
        assert plant.rows("model_versions") == 0
        subprocess.run(["mount", "-o", "remount,size=64m", str(home)], check=True)
        answer = plant.clr("onboard", template.tasks / "red-caps", "--json")
        assert (answer.code, answer.json["version"]) == (0, 1), answer
        assert (plant.rows("runs"), plant.rows("model_versions")) == (1, 1)


def test_a_full_workspace_leaves_data_as_it_was(template, tmp_path, new_caps, new_plant):
    with disk(tmp_path / "disk", "2m") as place:
        home = tmp_path / "home"
        plant = new_plant(place / "plant")
        plant = dataclasses.replace(plant, settings={**plant.settings, "CLR_HOME": str(home)})
        assert plant.clr("onboard", template.tasks / "red-caps").code == 0
        before = plant.photograph()
        (place / "filler").write_bytes(bytes(shutil.disk_usage(place).free - 120_000))
        assert_told(plant.clr("onboard", new_caps(tmp_path / "green-caps", 1)), "space")
        after = plant.photograph()
        assert (after["files"], after["versions"]) == (before["files"], before["versions"])
        (place / "filler").unlink()
        assert plant.clr("onboard", tmp_path / "green-caps").code == 0


@pytest.fixture
def read_only(template, tmp_path, copy_of) -> Iterator[object]:
    """A working plant on a disk that became read-only."""
    with disk(tmp_path / "disk", "64m") as place:
        plant = copy_of(template.plant, place / "plant")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        yield plant


def test_a_read_only_workspace_is_said_so(read_only, template, tmp_path):
    task = shutil.copytree(template.tasks / "red-caps", tmp_path / "new-caps")
    assert_told(read_only.clr("onboard", task), "ead-only")
    assert_told(read_only.clr("review", "red-caps", 1, "reject"), "ead-only")


def test_a_temporary_prefect_server_that_could_not_write_is_not_waited_for(read_only, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(read_only.root))
    with pytest.raises(ServiceUnavailable, match="read-only"), reaching():
        pytest.fail("nothing is begun")


def test_a_registry_that_may_not_be_written(processes, working, template, tmp_path):
    task = shutil.copytree(template.tasks / "red-caps", tmp_path / "new-caps")
    database = working.state / "mlflow.db"
    before = working.photograph()
    mount("--bind", database, database)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(database)], check=True)
        assert_told(working.clr("onboard", task), "mlflow.db")
        assert working.photograph() == before
    finally:
        subprocess.run(["umount", "-l", str(database)], check=True)
    # in another process, since this one holds connections from the time before
    (answer,) = processes((working, ("onboard", task, "--json")))
    assert json.loads(answer["out"])["version"] == 1, answer


def test_a_trial_is_read_where_the_servers_folder_is_mounted_read_only(tmp_path):
    """As the release service has it in its container, whether the prediction server runs or not."""
    from clr.registry.trial import Trial
    from clr.serving.journal import Journal, Tried, journal_path
    from clr.serving.trials import figures

    trial = Trial("0123456789abcdef" * 2, 0.0, "sha256:" + "a" * 64, "2026-01-01T00:00:00+00:00")
    served, seen = journal_path(tmp_path / "served").parent, journal_path(tmp_path / "seen").parent
    for folder in (served, seen):
        folder.mkdir(parents=True)
    mount("--bind", served, seen)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(seen)], check=True)
        assert figures(tmp_path / "seen", trial).champion.served == 0
        for count in (1, 2):
            journal = Journal(served / "journal.db", keep_days=36_500, keep_rows=100)
            row = Tried(str(count), 1.0, trial.id, "0" * 32, 0.0, "champion", "good", "good")
            journal.write([row]).result(timeout=60)
            assert figures(tmp_path / "seen", trial).champion.served == count
            journal.close()
            assert figures(tmp_path / "seen", trial).champion.served == count
    finally:
        subprocess.run(["umount", "-l", str(seen)], check=True)


def test_init_where_nothing_can_be_written(read_only, tmp_path):
    assert_told(read_only.clr("init", read_only.root / "inner"), "ead-only")


def test_init_over_a_file_or_in_a_foreign_folder_is_refused(plant, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    assert plant.clr("init", file).code == 2
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("mine", encoding="utf-8")
    answer = plant.clr("init", tmp_path / "foreign", at=tmp_path)
    assert answer.code == 2
    assert sorted(path.name for path in (tmp_path / "foreign").iterdir()) == ["letter.txt"]


def test_a_prefect_server_that_is_gone_is_named(plant, template):
    """In a process of its own: Prefect reads its settings once."""
    root = Path(__file__).resolve().parents[2]
    there = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "onboard", str(template.tasks / "red-caps")],
        cwd=plant.root,
        env={**os.environ, **plant.settings, **there},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ServiceUnavailable.exit_code, done
    assert "PREFECT_API_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((plant.root / "data").iterdir())


def test_a_prefect_server_that_goes_while_a_flow_runs_is_named():
    with pytest.raises(ServiceUnavailable, match="All connection attempts failed"), reaching():
        raise httpx.ConnectError("All connection attempts failed")
    with pytest.raises(RuntimeError), reaching():
        raise RuntimeError("of something else")
