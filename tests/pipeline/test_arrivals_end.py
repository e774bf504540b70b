"""From a dropped archive and a command to a version, through a running `clr up`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clr.settings import Settings
from flows import arrivals
from tests.factory import shell
from tests.pipeline.watching import git
from tests.waiting import until

NewCaps = Callable[..., Path]


def settings_of(factory: Any) -> Settings:
    return Settings(workspace=factory.plant.root)


def runs_of(factory: Any, digest: str) -> list[dict[str, Any]]:
    runs = factory.api("POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["onboard"]}}})
    return [run for run in runs if run["parameters"].get("arrival") == digest]


@dataclass(frozen=True)
class Onboarded:
    """What a command said that followed the run of a dropped archive."""

    settings: Settings
    said: dict[str, Any]
    err: str


@pytest.fixture(scope="module")
def onboarded(
    factory: Any, new_caps: NewCaps, tmp_path_factory: pytest.TempPathFactory
) -> Onboarded:
    """The same content, by archive and by command, after a commit that was seen."""
    commit_pinned(factory)
    folder = tmp_path_factory.mktemp("zipped")
    mine = new_caps(folder / "zipped-caps", seed=71)
    archive = shutil.make_archive(str(folder / "packed"), "zip", folder, "zipped-caps")
    factory.drop(Path(archive))
    settings = settings_of(factory)
    assert until(lambda: time.sleep(0.1) or arrivals.read_all(settings), 60), factory.said()[-6000:]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "onboard", mine, "--json"],
        cwd=factory.plant.root,
        env={**shell(), **factory.plant.settings},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return Onboarded(settings, json.loads(done.stdout), done.stderr)


def commit_pinned(factory: Any) -> None:
    """Commit what data.dvc pins now; wait until the watcher has read the commit."""
    settings = settings_of(factory)
    git(settings.workspace, "add", "-f", "data.dvc")
    git(settings.workspace, "commit", "-qm", "what the pipeline pinned", "--allow-empty")
    commit, seen = git(settings.workspace, "rev-parse", "HEAD"), settings.state / "git.json"
    assert until(lambda: seen.exists() and commit in seen.read_text(), 60), factory.said()[-6000:]


def record_of(onboarded: Onboarded) -> arrivals.Arrival:
    (record,) = (one for one in arrivals.read_all(onboarded.settings) if one.task == "zipped-caps")
    return record


def test_an_archive_and_a_command_of_one_content_are_one_run(
    factory: Any, onboarded: Onboarded
) -> None:
    said, record = onboarded.said, record_of(onboarded)
    assert (said["task"], said["version"], said["verdict"]) == ("zipped-caps", 1, "passed")
    assert "register  zipped-caps version 1" in onboarded.err  # the run's own progress
    assert (record.state, record.source, record.result) == ("done", "archive", said)
    assert [run["id"] for run in runs_of(factory, record.digest)] == [record.flow_run]


def test_the_commit_of_what_the_pipeline_pinned_starts_nothing(
    factory: Any, onboarded: Onboarded
) -> None:
    settings, before = onboarded.settings, record_of(onboarded)
    commit_pinned(factory)
    assert [one for one in arrivals.read_all(settings) if one.source == "git"] == []
    assert record_of(onboarded) == before
    assert [run["id"] for run in runs_of(factory, before.digest)] == [before.flow_run]
