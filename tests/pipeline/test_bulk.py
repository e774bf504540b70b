"""Several folders by one command, and a command that is ended while it follows a worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clr.errors import DataRefused
from clr.settings import Settings
from flows import arrivals
from tests.factory import shell
from tests.waiting import until

NewCaps = Callable[..., Path]
INTERRUPTED = 130


def refused(new_caps: NewCaps, folder: Path) -> Path:
    """A task folder with an image that cannot be read."""
    new_caps(folder, seed=91)
    (folder / "test/light/00.png").write_bytes(b"")
    return folder


def command(factory: Any, *arguments: object) -> subprocess.Popen[str]:
    """Start a command as a person does, in the workspace of a running `clr up`."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        cwd=factory.plant.root,
        env={**shell(), **factory.plant.settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def record(factory: Any, task: str) -> arrivals.Arrival | None:
    known = arrivals.read_all(Settings(workspace=factory.plant.root))
    return next((one for one in known if one.task == task), None)


def test_each_is_onboarded_by_itself_and_told_in_the_order_given(
    working: Any, template: Any, new_caps: NewCaps, tmp_path: Path
) -> None:
    missing, bad = tmp_path / "missing", refused(new_caps, tmp_path / "dim-caps")
    there, good = template.tasks / "red-caps", new_caps(tmp_path / "white-caps", 3)
    told = working.clr("onboard", bad, missing, there, good, "--json")
    assert told.code == DataRefused.exit_code  # that of the first which was not onboarded
    first, second, third, fourth = told.json["tasks"]
    assert (first["task"], first["verdict"]) == ("dim-caps", "data-refused")
    assert (second["path"], second["error"]) == (str(missing), "UsageError")
    assert (third["task"], third["version"], third["already"]) == ("red-caps", 1, True)
    assert (fourth["task"], fourth["version"], fourth["verdict"]) == ("white-caps", 1, "passed")
    assert "00.png" in told.err

    as_text = working.clr("onboard", good, missing)
    assert as_text.code == second["exit_code"]
    assert "white-caps" in as_text.out
    assert f"{missing}: {second['message']}" in as_text.out


def interrupted(factory: Any, *folders: Path) -> None:
    """Onboard them and press Ctrl-C once a worker has the last one."""
    process = command(factory, "onboard", *folders)
    task = folders[-1].name
    assert until(lambda: (known := record(factory, task)) and known.flow_run, 120)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (INTERRUPTED, ""), err
    assert "No longer followed" in err
    assert "clr status" in err
    assert "Traceback" not in err


@pytest.mark.soak
def test_ctrl_c_ends_the_following_and_not_the_run(
    factory: Any, new_caps: NewCaps, tmp_path: Path
) -> None:
    interrupted(factory, new_caps(tmp_path / "left-alone", seed=92))
    done = until(lambda: (known := record(factory, "left-alone")) and known.finished and known, 180)
    assert (done.state, done.result["version"]) == ("done", 1)


def test_workers_do_several_and_the_same_command_follows_them_again(
    factory: Any, new_caps: NewCaps, tmp_path: Path
) -> None:
    good, bad = new_caps(tmp_path / "bulk-good", seed=93), refused(new_caps, tmp_path / "bulk-bad")
    interrupted(factory, bad, good)
    process = command(factory, "onboard", good, bad, good, "--json")
    out, err = process.communicate(timeout=240)
    assert process.returncode == DataRefused.exit_code, err
    one, two, again = json.loads(out)["tasks"]
    assert (one["task"], one["version"], one["verdict"]) == ("bulk-good", 1, "passed")
    assert (two["task"], two["verdict"]) == ("bulk-bad", "data-refused")
    assert {**again, "already": True} == {**one, "already": True}  # one content, one version
    assert "register  bulk-good version 1" in err
