"""Processes that live as long as their parent: started again, stopped, never left behind."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flows import supervise
from flows.supervise import Child, answers, stop
from tests.waiting import until

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("ready", child.pid, flush=True)
time.sleep(600)
"""
PARENT = """
import os, sys, time
from pathlib import Path
from flows.supervise import Child
child = Child("one", ["sleep", "600"], os.environ, Path(sys.argv[1]), Path(sys.argv[1]) / "log")
child.start()
print(child.process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def child(tmp_path):
    made = []

    def make(*command: str) -> Child:
        made.append(Child("one", command, os.environ, tmp_path, tmp_path / "logs" / "one.log"))
        return made[-1]

    yield make
    stop(made, 0)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_it_writes_is_in_its_log_and_on_stderr_under_its_name(child, capfd):
    one = child(sys.executable, "-c", "import sys; print('a'); print('b\\033[2J', file=sys.stderr)")
    one.start()
    assert until(lambda: not one.running, 10)
    assert one.tail().splitlines()[0] == "a"
    assert one.log.read_text().startswith("a\nb")
    assert until(lambda: "one | a\none | b\\x1b[2J\n" in capfd.readouterr().err, 10)


def test_who_ends_is_started_again_each_time_later(child, monkeypatch):
    monkeypatch.setattr(supervise, "FIRST_DELAY", 0.1)
    one = child("false")
    one._delay = 0.1
    one.start()
    starts = [one.process]

    def keep() -> bool:
        one.keep()
        if one.process is not starts[-1]:
            starts.append(one.process)
            times.append(time.monotonic())
        return len(starts) == 4

    times = [time.monotonic()]
    assert until(keep, 10)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[0] >= 0.1
    assert pauses[1] >= 0.2
    assert pauses[2] >= 0.4


def test_who_cannot_be_started_is_tried_again(child, tmp_path, caplog):
    one = child("sleep", "600")
    one._delay = 0.05
    one.start()
    ended = one.process
    ended.kill()
    assert until(lambda: not one.running, 10)
    home, away = one.folder, tmp_path.with_name("away")
    one.folder = away
    with caplog.at_level("INFO"):
        assert until(lambda: one.keep() or "did not start" in caplog.text, 10)
    assert one.process is ended
    one.folder = home
    assert until(lambda: one.keep() or one.running, 10)


def test_a_signal_without_a_name_is_told_by_its_number(child, caplog):
    one = child(sys.executable, "-c", "import os; os.kill(os.getpid(), 37)")
    one.start()
    assert until(lambda: not one.running, 10)
    with caplog.at_level("INFO"):
        one.keep()
    assert "one ended (signal 37)" in caplog.text


def test_who_writes_more_than_a_pipe_holds_ends_without_a_log_too(child):
    one = child(sys.executable, "-c", "for _ in range(2000): print('x' * 100)")
    one.log.parent.write_text("a file where the folder should be")
    one.start()
    assert until(lambda: not one.running, 10)
    assert one.process.returncode == 0


def test_who_runs_is_left_alone(child):
    one = child("sleep", "600")
    one.start()
    before = one.process
    for _ in range(10):
        one.keep()
    assert one.process is before
    assert one.running


def test_who_does_not_stop_is_killed_with_all_that_it_started(child):
    one = child(sys.executable, "-c", STUBBORN)
    one.start()
    assert until(lambda: "ready" in one.tail(), 10)
    inner = int(one.tail().split()[-1])
    start = time.monotonic()
    stop([one], 0.5)
    assert time.monotonic() - start < 5
    assert not one.running
    assert until(lambda: not alive(inner), 10)


def test_what_a_dead_process_left_is_gone_before_it_is_started_again(child):
    one = child(sys.executable, "-c", STUBBORN)
    one.start()
    assert until(lambda: "ready" in one.tail(), 10)
    inner = int(one.tail().split()[-1])
    os.kill(one.process.pid, signal.SIGKILL)
    assert until(lambda: not one.running, 10)
    assert alive(inner)
    one.start()
    assert until(lambda: not alive(inner), 10)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can say it")
def test_nothing_outlives_a_killed_parent(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    inner = int(parent.stdout.readline())
    assert alive(inner)
    parent.kill()
    parent.wait()
    assert until(lambda: not alive(inner), 10)


def test_a_terminal_that_nobody_reads_stops_no_server(child, monkeypatch):
    read = threading.Event()
    monkeypatch.setattr(supervise.output, "note", lambda _: read.wait())
    monkeypatch.setattr(supervise, "_SCREEN", supervise._Screen())
    one = child(sys.executable, "-c", "for number in range(5000): print(number)")
    one.start()
    assert until(lambda: not one.running, 10)
    assert one.tail(1) == "4999"
    read.set()
    assert until(supervise._SCREEN._lines.empty, 10)


def test_what_does_not_speak_http_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as door:

        def speak():
            caller, _ = door.accept()
            with caller:
                caller.recv(1000)
                caller.sendall(b"SSH-2.0-x\r\n")

        threading.Thread(target=speak, daemon=True).start()
        assert not answers(f"http://127.0.0.1:{door.getsockname()[1]}")
    assert not answers("http://[bad")
    assert not answers("http://exa mple")


def test_ports_that_are_asked_for_together_differ() -> None:
    ports = supervise.unused_ports(300)
    assert len(set(ports)) == 300
