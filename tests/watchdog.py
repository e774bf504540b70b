"""The suite comes to an end, whatever one of its processes does: a pytest plugin.

pytest-timeout ends a test, once; after a test has failed it watches no more, and a tear-down
or the end of a ``with`` block may wait without end, and the suite with it. So a process in which
nothing moves is ended here. What pytest-xdist does then, or after a crash, is mended as well.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadGroupScheduling

PATIENCE = 2.0
"""In time-outs of the test that is at work."""

CODE = 70
"""Exit code of a process that was ended."""

_SCREEN = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the stderr that is not captured."""
    config.stash[_SCREEN] = os.dup(2)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Remember no failures of a run that did not reach all tests: ``--last-failed`` runs all."""
    try:
        yield
    finally:
        cache = getattr(session.config, "cache", None)
        through = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if cache and not through and not hasattr(session.config, "workerinput"):
            cache.set("cache/lastfailed", {})


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Give set-up, test and tear-down together twice the test's time-out."""
    marker = item.get_closest_marker("timeout")
    seconds = float(marker.args[0] if marker else item.config.getini("timeout"))
    timer = threading.Timer(PATIENCE * seconds, _end, (item.nodeid, item.config.stash[_SCREEN]))
    timer.daemon = True
    timer.start()
    try:
        return (yield)
    finally:
        timer.cancel()


class Survivors(LoadGroupScheduling):
    """Groups of tests for processes, of which one may crash: the others go on with its tests.

    pytest-xdist 3.8 gives the test that crashed, and groups that are done, to the next process
    again, which then waits for work (pytest-dev/pytest-xdist#1323, #1327, #1371).
    """

    def remove_node(self, node: Any) -> str | None:
        """Return the test that a process crashed in, which is not tried again."""
        groups = self.assigned_work[node]
        left = (test for tests in groups.values() for test, done in tests.items() if not done)
        crashed = next(left, None)
        for group, tests in list(groups.items()):
            if crashed in tests:
                tests[crashed] = True
            if all(tests.values()):
                del groups[group]
        super().remove_node(node)
        return crashed

    def schedule(self) -> None:
        """Give each process two groups, or say that there are no more: one with one test waits."""
        super().schedule()
        for node in self.nodes:
            self._reschedule(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Survivors | None:
    """Say who gives tests to processes."""
    return Survivors(config, log) if config.getvalue("dist") == "loadgroup" else None


def _end(test: str, screen: int) -> None:
    os.write(screen, f"\n{test} does not end; where each thread of its process is:\n".encode())
    faulthandler.dump_traceback(screen)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(CODE)
