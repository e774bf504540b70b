"""From a dropped archive and a command to a version, through a running `clr up`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clr.settings import Settings
from flows import arrivals
from tests.waiting import until

NewCaps = Callable[..., Path]


def settings_of(factory: Any) -> Settings:
    return Settings(workspace=factory.plant.root)


def runs_of(factory: Any, digest: str) -> list[dict[str, Any]]:
    runs = factory.api("POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["onboard"]}}})
    return [run for run in runs if run["parameters"].get("arrival") == digest]


def test_an_archive_and_a_command_of_one_content_are_one_run(
    factory: Any, new_caps: NewCaps, tmp_path: Path
) -> None:
    """The same content by archive and by command is one run, which the command follows."""
    mine = new_caps(tmp_path / "zipped-caps", seed=71)
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "zipped-caps")
    factory.drop(Path(archive))
    settings = settings_of(factory)
    assert until(lambda: time.sleep(0.1) or arrivals.read_all(settings), 60), factory.said()[-6000:]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "onboard", mine, "--json"],
        cwd=factory.plant.root,
        env={**_environment(), **factory.plant.settings},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["task"], said["version"], said["verdict"]) == ("zipped-caps", 1, "passed")
    assert "register  zipped-caps version 1" in done.stderr  # the run's own progress
    (record,) = (one for one in arrivals.read_all(settings) if one.task == "zipped-caps")
    assert (record.state, record.source, record.result) == ("done", "archive", said)
    assert [run["id"] for run in runs_of(factory, record.digest)] == [record.flow_run]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
