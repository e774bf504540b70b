"""Fan work out: over threads of this process, or over the workers of a Dask or Ray cluster.

The engines are Prefect's task runners. Items travel in parts, since a task run costs 20 ms
and there may be 10,000 items; with them go the settings, and nothing else: a worker opens
the session itself, once a process, so it must see the workspace at the same path and reach
the registry. Workers compute with the device and the threads of who asks, so that what they
answer is the same, bit by bit, as if it had been computed there.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from clr.errors import ServiceUnavailable, UsageError, extra
from clr.settings import Settings
from flows.session import Session

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner

LOG = logging.getLogger("clr")
PART, PARTS = 64, 8
"""Items in a part at most, and parts at least where there are so many items."""

REACH_SECONDS = 5.0
RAY_STORE_BYTES = 100_000_000
"""Shared memory of a Ray that is started here: what travels is small."""

_PACKAGES = {"dask": ("prefect_dask", "distributed"), "ray": ("prefect_ray", "ray")}
_HERE = {"task_runner": "threads", "task_runner_address": ""}

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def task_runner(settings: Settings) -> TaskRunner[Any]:
    """Return Prefect's task runner that the settings ask for.

    Without an address, Dask and Ray start workers on this machine for as long as the work
    takes: ``CLR_PARALLEL`` of them, or one a core.

    Raises:
        UsageError: the extra is not installed, or the address is not one.
        ServiceUnavailable: nobody answers at the address within seconds.
    """
    kind, address = settings.task_runner, settings.task_runner_address
    workers = settings.parallel or os.cpu_count() or 1
    if kind == "threads":
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=workers)
    runners = _installed(kind)
    if address:
        _reach(kind, address)
    make = runners.DaskTaskRunner if kind == "dask" else runners.RayTaskRunner
    made: TaskRunner[Any] = make(**_options(kind, address, workers))
    return made


def _options(kind: str, address: str, workers: int) -> dict[str, Any]:
    if kind == "dask":
        local = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        return {"address": address} if address else {"cluster_kwargs": local}
    options: dict[str, Any] = {"log_to_driver": False}
    if address:
        return {"address": address, "init_kwargs": options}
    options |= {"num_cpus": workers, "include_dashboard": False}
    return {"init_kwargs": {**options, "object_store_memory": RAY_STORE_BYTES}}


def _installed(kind: str) -> Any:
    try:
        runners, _ = (importlib.import_module(one) for one in _PACKAGES[kind])
    except ImportError as error:
        raise UsageError(
            f"CLR_TASK_RUNNER is {kind}, but its packages are not installed: {error}.",
            fix=f"{extra(kind)}. Or set CLR_TASK_RUNNER=threads.",
            setting="CLR_TASK_RUNNER",
        ) from error
    return runners


def _reach(kind: str, address: str) -> None:
    """See that somebody listens at an address: the engines' own waits are minutes."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise UsageError(
            f"CLR_TASK_RUNNER_ADDRESS={address!r} is no address.",
            fix="Give tcp://HOST:8786 of a Dask scheduler; ray://HOST:10001 or HOST:6379 of Ray.",
            setting="CLR_TASK_RUNNER_ADDRESS",
        )
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise ServiceUnavailable(
            f"The {kind} cluster at {address} cannot be reached: {error}.",
            fix="Start it, correct CLR_TASK_RUNNER_ADDRESS, or set CLR_TASK_RUNNER=threads.",
            address=address,
        ) from error


def fan_out(
    session: Session,
    work: Callable[[Session, Item], Answer],
    items: Sequence[Item],
    *,
    what: str,
    part: int = PART,
    gpu: bool | None = None,
    told: Callable[[Answer], None] | None = None,
) -> list[Answer]:
    """Return what `work` says of every item, in the order of the items.

    Few items, and all of them outside a flow, are done right here where the engine is threads.

    Args:
        session: the workspace.
        work: function of a module, called with (session, item) where a worker is.
        items: small values that pickle, such as names and digests; so must be the answers.
        what: subject of the lines that tell progress, e.g. ``gate``.
        part: items at most that travel together; 1 where each takes minutes.
        gpu: whether each part needs a GPU of its own; by default where this device is one.
        told: called here with each answer as it comes, in any order; by default a line tells
            of many items.

    Raises:
        UsageError, ServiceUnavailable: see `task_runner`; or no worker has a GPU.
        ClrError: what `work` raised, as it was raised there.
    """
    clustered = session.settings.task_runner != "threads"
    size = max(1, min(part, ceil(len(items) / PARTS))) if clustered else part
    parts = [list(items[at : at + size]) for at in range(0, len(items), size)]
    if not parts:
        return []
    if not clustered and (len(parts) == 1 or not _inside_flow()):
        return _all_here(session, work, parts, what, told)
    needs_gpu = session.device == "cuda" if gpu is None else gpu
    return _mapped(session, work, parts, what, needs_gpu, told)


def _inside_flow() -> bool:
    """Say whether a flow is running here: starting one for a little work takes a server."""
    if "prefect" not in sys.modules:
        return False  # importing it takes seconds
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


def _all_here(
    session: Session,
    work: Callable[..., Answer],
    parts: list[list[Item]],
    what: str,
    told: Callable[[Answer], None] | None,
) -> list[Answer]:
    found: list[Answer] = []
    for part in parts:
        for item in part:
            found.append(work(session, item))
            if told:
                told(found[-1])
        if not told:
            _tell(what, len(found), sum(map(len, parts)))
    return found


def _mapped(
    session: Session,
    work: Callable[..., Answer],
    parts: list[list[Item]],
    what: str,
    gpu: bool,
    told: Callable[[Answer], None] | None,
) -> list[Answer]:
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE
    from prefect.futures import as_completed

    kind = session.settings.task_runner
    where = session if kind == "threads" else values(session)
    runner = task_runner(session.settings)
    some = task(name=f"{what}-part", cache_policy=NO_CACHE, persist_result=False)(_some)
    found: list[Answer] = []

    # no parameters and no result: both would be sent to the Prefect server
    @flow(name=f"{what}-fan-out", task_runner=runner, persist_result=False)
    def spread() -> None:
        with _placed(kind, gpu):
            futures = [some.submit(where, work, part) for part in parts]
        if told:
            for future in as_completed(futures):
                for answer in future.result():
                    told(answer)
        for future in futures:
            found.extend(future.result())
            if not told:
                _tell(what, len(found), sum(map(len, parts)))

    spread()
    return found


def values(session: Session) -> str:
    """Return what a worker has to know of a session: settings as JSON, passwords left out."""
    import torch

    chosen = session.settings.model_dump(
        mode="json", exclude_defaults=True, exclude={"registry_database", "prefect_database"}
    )
    same = {"device": session.device, "threads": torch.get_num_threads()}
    return json.dumps({**chosen, **same, **_HERE}, sort_keys=True)


def _some(where: Session | str, work: Callable[..., Answer], items: list[Item]) -> list[Answer]:
    session = where if isinstance(where, Session) else _opened(where)
    return [work(session, item) for item in items]


@lru_cache(maxsize=2)
def _opened(settings: str) -> Session:
    """Return a worker's session; one a process and state of the settings."""
    from flows import embedded, output

    output.log_to_stderr()
    made = Settings(**json.loads(settings))
    embedded.prepare(made)
    return Session(made)


@contextmanager
def _placed(kind: str, gpu: bool) -> Iterator[None]:
    """Ask for a worker with a GPU for what is submitted meanwhile.

    Dask workers declare theirs (``dask worker --resources GPU=1``), Ray finds its own.
    """
    if not gpu or kind == "threads":
        yield
    elif kind == "dask":
        _require_gpu(any(one["resources"].get("GPU") for one in _dask_workers()))
        with importlib.import_module("dask").annotate(resources={"GPU": 1}):
            yield
    else:
        ray = importlib.import_module("ray")
        _require_gpu(bool(ray.cluster_resources().get("GPU")))
        with importlib.import_module("prefect_ray.context").remote_options(num_gpus=1):
            yield


def _dask_workers() -> list[dict[str, Any]]:
    from prefect.context import FlowRunContext

    running = FlowRunContext.get()
    runner: Any = running.task_runner if running else None
    return list(runner.client.scheduler_info(n_workers=-1)["workers"].values())


def _require_gpu(there: bool) -> None:
    if not there:
        raise ServiceUnavailable(
            "The work needs a GPU, and no worker of the cluster has one.",
            fix="Start a worker with one (dask worker --resources GPU=1), or set CLR_DEVICE=cpu.",
        )


def _tell(what: str, done: int, total: int) -> None:
    if total > PART:
        LOG.info("%-9s %d of %d", what, done, total)
