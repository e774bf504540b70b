"""A suite in which something waits without end, or crashes, ends nevertheless and says where."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil

from tests.waiting import until

ROOT = Path(__file__).parents[1]

STUCK = """
import subprocess, sys, time
import pytest

@pytest.fixture
def server():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    print(process.pid, file=open("pid", "w"))
    yield
    process.wait()

@pytest.mark.xdist_group("one")
def test_that_fails_before_its_server_ends(server):
    assert False

@pytest.mark.xdist_group("one")
def test_after_it():
    pass

@pytest.mark.xdist_group("other")
def test_elsewhere():
    time.sleep(1)
"""


CRASHES = """
import os, time
import pytest

def test_before():
    pass

def test_that_crashes():
    os._exit(3)

def test_after_it():
    pass

@pytest.mark.xdist_group("other")
def test_elsewhere():
    time.sleep(1)

@pytest.mark.xdist_group("last")
def test_at_the_end():
    os._exit(3)
"""


def run(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """Run a small suite as the large one is run."""
    (folder / "test_small.py").write_text(tests, encoding="utf-8")
    plugins = ("-p", "tests.workers", "-p", "tests.watchdog")
    options = ("-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", "-o", "timeout=2")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *options, "test_small.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def _runs(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def test_a_tear_down_that_waits_without_end_is_a_failure_and_the_rest_is_tested(tmp_path: Path):
    done = run(tmp_path, STUCK)
    assert done.returncode == 1, done.stdout
    assert re.search("test_that_fails_before_its_server_ends.* does not end", done.stderr)
    assert "in server" in done.stderr
    assert "2 passed" in done.stdout
    assert until(lambda: not _runs(int((tmp_path / "pid").read_text())), 10)


def test_a_process_that_crashes_is_a_failure_and_the_rest_is_tested(tmp_path: Path):
    done = run(tmp_path, CRASHES)
    assert done.returncode == 1, done.stdout
    assert "2 failed, 3 passed" in done.stdout


INTERRUPTED = """
import os, signal

def test_that_fails():
    assert False

def test_during_which_somebody_presses_control_c():
    os.kill(os.getpid(), signal.SIGINT)

def test_that_was_not_reached():
    pass
"""


def test_a_second_try_of_a_run_that_was_interrupted_leaves_no_test_out(tmp_path: Path):
    (tmp_path / "test_small.py").write_text(INTERRUPTED, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.watchdog", "-o", "timeout=2", "-v"]
    place = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    assert subprocess.run(command, **place, capture_output=True, timeout=60).returncode == 2
    again = [*command, "--last-failed", "--collect-only", "-q"]
    done = subprocess.run(again, **place, capture_output=True, text=True, timeout=60)
    assert "3 tests collected" in done.stdout
