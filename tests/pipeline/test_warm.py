"""Runs forked from a loaded process behave as processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows import warm
from tests.waiting import until

JOB = """
    import os, sys, time
    print(os.environ["GIVEN"], os.getcwd(), os.getpid(), flush=True)
    if sys.argv[1:] == ["wait"]:
        time.sleep(60)
    sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def loaded(tmp_path):
    """A loaded process whose runs are `JOB`; its socket."""
    with loading(tmp_path, "()") as found:
        yield found


@contextmanager
def loading(tmp_path, modules):
    """A process that loads `modules`, and whose runs are `JOB`; its socket."""
    if not sys.platform.startswith("linux"):
        pytest.skip("forks are made on Linux alone")
    deep = tmp_path / ("deep" * 20)  # a socket's name may not be as long
    deep.mkdir()
    (tmp_path / "job.py").write_text(textwrap.dedent(JOB))
    code = (
        f"import pathlib, sys; from flows import warm; warm.MODULES = {modules};"
        "warm.ENGINE = 'job'; warm.serve(pathlib.Path(sys.argv[1]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, deep / "socket"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "GIVEN": "of the server"},
        stderr=subprocess.DEVNULL,
    ) as server:
        assert until((deep / "socket").exists)
        yield server, deep / "socket"
        server.kill()


def run(place: Path, *arguments: str, **options) -> subprocess.Popen[str]:
    environment = {**os.environ, warm.VARIABLE: str(place), "GIVEN": "of the run"}
    command = [sys.executable, "-m", "flows.warm", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, **options
    )  # fmt: skip


def is_there(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("code", [0, 3])
def test_environment_folder_output_and_exit_code_are_the_runs_own(loaded, tmp_path, code):
    with run(loaded[1], str(code), cwd=tmp_path) as client:
        said, _ = client.communicate(timeout=30)
    assert said.rpartition(" ")[0] == f"of the run {tmp_path}"
    assert client.returncode == code


def test_who_asks_while_it_loads_waits_for_it(tmp_path):
    go = tmp_path / "go"
    (tmp_path / "slow.py").write_text(
        f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)"
    )
    with loading(tmp_path, "('slow',)") as (_, place), run(place, "3", cwd=tmp_path) as client:
        with pytest.raises(subprocess.TimeoutExpired):
            client.wait(2)
        go.touch()
        assert client.wait(30) == 3  # by itself it would have been Prefect's engine


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_who_ends_the_command_ends_the_run(loaded, number):
    with run(loaded[1], "wait") as client:
        process = int(client.stdout.readline().split()[-1])
        assert is_there(process)
        client.send_signal(number)
        client.wait(30)
        assert until(lambda: not is_there(process), 10)
    assert client.returncode != 0


def test_a_run_ends_with_the_loaded_process_and_the_command_says_so(loaded):
    server, place = loaded
    with run(place, "wait") as client:
        process = int(client.stdout.readline().split()[-1])
        server.kill()
        assert client.wait(30) == 128 + signal.SIGKILL
        assert until(lambda: not is_there(process), 10)


def test_where_none_is_loaded_the_command_is_the_run_itself(tmp_path):
    assert warm.ask("") is None
    assert warm.ask(str(tmp_path / "nobody")) is None
    with run(tmp_path / "nobody", "no-id", stderr=subprocess.PIPE) as client:
        said, problem = client.communicate(timeout=120)
    assert client.returncode == 1
    assert "Invalid flow run id" in said + problem
