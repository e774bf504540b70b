"""The suite in several processes at once (pytest-xdist): who runs what, and what all share.

``make test`` starts one worker more than there are cores: servers and killed processes are waited
for. On two cores that took 743 s instead of 951 on one machine, and as long as before on another.
Tests of one file, and tests that need the same expensive thing (a driver of killed processes, a
server), go to one worker, and the longest go first.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MOST_WORKERS = 4
"""Each holds PyTorch, MLflow, Prefect and Great Expectations: two gigabytes."""

TOGETHER = {"processes": "killed", "shop": "registry", "place": "registry", "web": "web"}
"""Group of the tests that use a fixture."""

LONGEST = (
    "factory", "house", "tests/core/test_methods", "office", "killed", "up", "postgres", "registry",
    "tests/pipeline", "tests/server", "tests/data",
)  # fmt: skip
"""Beginnings of the groups that take longest, the longest first; one between them that does not
wait for the workspace which the first makes for all."""

SERVERS = ("factory", "house", "office")
"""Fixtures that work even while nobody asks for anything: a tenth of a core for `clr up`."""
STARTED = pytest.StashKey[list[tuple[Any, Any]]]()

Make = Callable[[Path], Any]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Say what ``-n auto`` means."""
    return min((os.cpu_count() or 1) + 1, MOST_WORKERS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every test of a worker a group, where it has none yet, and sort by group."""
    if not hasattr(config, "workerinput"):
        return
    places = {item: _place(item) for item in items}
    items.sort(key=lambda item: places[item])
    for item in items:
        _show_group(item)


def _place(item: pytest.Item) -> int:
    marker = item.get_closest_marker("xdist_group")
    group = str(marker.args[0]) if marker else _group(item)
    if not marker:
        item.add_marker(pytest.mark.xdist_group(group))
    ranks = (rank for rank, start in enumerate(LONGEST) if group.startswith(start))
    return next(ranks, len(LONGEST))


def _show_group(item: pytest.Item) -> None:
    """Write the group behind the test's id, where pytest-xdist looks for it.

    It does so itself, but into an attribute that pytest reads no more since 9.2: without this,
    every test goes to any worker.
    """
    marker = item.get_closest_marker("xdist_group")
    if marker and hasattr(item, "_id"):
        from _pytest.nodes import coerce_node_id

        item._id = coerce_node_id(f"{item.nodeid}@{marker.args[0]}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take the group away again where results are told and remembered (``--last-failed``)."""
    test, at, _ = report.nodeid.rpartition("@")
    if at and "PYTEST_XDIST_WORKER" not in os.environ and "]" not in report.nodeid[len(test) :]:
        report.nodeid = test


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> None:
    """Remember which of `SERVERS` were started."""
    if fixturedef.argname in SERVERS:
        request.config.stash.setdefault(STARTED, []).append((fixturedef, request))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """End each of `SERVERS` with the last test that uses it, not with the session."""
    try:
        yield
    finally:
        over = [one for one in SERVERS if one in _fixtures(item) and _is_last(item, nextitem, one)]
        for fixture, request in item.config.stash.get(STARTED, []):
            if fixture.argname in over:
                fixture.finish(request)  # does nothing where it has ended


def _is_last(item: pytest.Item, nextitem: pytest.Item | None, fixture: str) -> bool:
    """Say whether no later test of this process uses a fixture; a group is run without a break."""
    if hasattr(item.config, "workerinput"):
        return nextitem is None or _groups(nextitem) != _groups(item)
    items = item.session.items
    return not any(fixture in _fixtures(one) for one in items[items.index(item) + 1 :])


def _groups(item: pytest.Item) -> list[str]:
    return [str(one.args[0]) for one in item.iter_markers("xdist_group")]


def _fixtures(item: pytest.Item) -> tuple[str, ...]:
    return tuple(getattr(item, "fixturenames", ()))


def _group(item: pytest.Item) -> str:
    file = item.nodeid.split("::")[0]
    wanted = (group for fixture, group in TOGETHER.items() if fixture in _fixtures(item))
    return next(wanted, file)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Make], tuple[Path, Any]]:
    """Function (name, make) -> (folder, what ``make(folder)`` returned).

    The first process of this run that asks makes it, the others wait for it. It has to be
    plain JSON, and what is in the folder must not be changed.
    """
    from filelock import FileLock

    commons = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        commons = commons.parent  # each worker has a folder of its own in that of the run

    def get(name: str, make: Make) -> tuple[Path, Any]:
        folder, told = commons / name, commons / f"{name}.json"
        with FileLock(commons / f"{name}.lock"):
            if not told.exists():
                shutil.rmtree(folder, ignore_errors=True)  # left by one that failed
                folder.mkdir()
                told.write_text(json.dumps(make(folder)), encoding="utf-8")
        return folder, json.loads(told.read_text(encoding="utf-8"))

    return get
