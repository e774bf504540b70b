"""A ledger of a server: an entry is durable at once, head file and database file follow soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from clr.audit.ledger import open_ledger
from clr.audit.signing import Head
from clr.audit.trailing import Trailing
from tests.waiting import until

WHO = {"actor": "ada", "authentication": "mlflow-basic-auth"}
WRITER = """
import os, sys, time
from pathlib import Path
from clr.audit import ledger as module
module.TRAILING_SECONDS = float(sys.argv[2])
ledger = module.open_ledger(Path(sys.argv[1]), trailing=True)
for number in range(5):
    ledger.append("act", f"s/{number}", actor="ada", authentication="test")
print("ready", flush=True)
if sys.argv[3] == "wait":
    time.sleep(60)
"""


@pytest.fixture
def busy(state):
    return open_ledger(state, trailing=True)


def writer(state, seconds, then):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, state, str(seconds), then], stdout=subprocess.PIPE
    )


def test_the_head_follows_by_itself_and_the_chain_is_sound_meanwhile(busy, state):
    for number in range(1, 4):
        busy.append("act", f"s/{number}", **WHO)
        assert open_ledger(state).verify() == []
    assert until(lambda: busy.head().seq == 3, 20)
    busy.append("act", "s/4", **WHO)
    assert until(lambda: busy.head().seq == 4, 20)


def test_an_ended_process_has_left_nothing_undone(state):
    process = writer(state, 30, "end")
    assert process.wait(timeout=60) == 0
    assert open_ledger(state).head().seq == 5


def test_what_has_begun_when_a_process_ends_is_done_before_it_does():
    begun, done = threading.Event(), []

    def chore():
        begun.set()
        time.sleep(0.2)
        done.append(1)

    trailing = Trailing(chore, 0.0)
    trailing.ask()
    assert begun.wait(20)
    trailing.finish()
    assert done == [1]


def test_a_killed_one_leaves_a_head_that_the_next_append_brings_up_to_date(state):
    process = writer(state, 30, "wait")
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ledger = open_ledger(state)
    assert ledger.head().seq < 5
    assert ledger.verify() == []
    assert ledger.append("act", "s/6", **WHO).seq == 6
    assert (ledger.head().seq, ledger.verify()) == (6, [])


def test_threads_of_a_server_append_at_once(busy):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: busy.append("act", f"s/{n}", **WHO), range(40)))
    assert [one.seq for one in busy.entries()] == list(range(1, 41))
    assert until(lambda: busy.head().seq == 40, 20)
    assert busy.verify() == []


def test_the_head_is_the_newest_whichever_thread_comes_last(busy):
    first = busy.append("act", "s/1", **WHO)
    head_of_first = Head(first.seq, first.hash, first.key_id, first.signature)
    busy.append("act", "s/2", **WHO)
    busy._after(head_of_first)  # of a thread that was not let go on before
    assert until(lambda: busy.head() is not None, 20)
    assert until(lambda: busy.head().seq == 2, 5)


def test_a_forked_child_has_a_trail_of_its_own(busy):
    busy.append("act", "s/1", **WHO)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            busy.append("act", "s/2", **WHO)
            code = 0 if until(lambda: busy.head().seq == 2, 20) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert busy.verify() == []
