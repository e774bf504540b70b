"""Work fanned out: the same answers, in the same order, whoever does it; refusals by name.

The clusters are real: two processes of Dask, two of Ray. Both run the gate of fifty tasks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clr.errors import ServiceUnavailable, UsageError
from clr.settings import Settings
from flows.runners import PART, REACH_SECONDS, fan_out, task_runner, values
from flows.session import Session
from flows.supervise import free_port
from tests import synthetic

TASKS = 50
WORKERS = 2
FAILING = 7


@dataclass(frozen=True)
class Seen:
    """An answer, and who gave it."""

    answer: int
    process: int
    runner: str
    gpu: str


def square(session: Session, item: int) -> Seen:
    """Answer with who answered; slow enough that one worker does not take all."""
    time.sleep(0.05)
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return Seen(item * item, os.getpid(), session.settings.task_runner, gpu)


def stumble(session: Session, item: int) -> int:
    """Refuse one item as the project refuses."""
    if item == FAILING:
        raise UsageError(f"Item {item} is wrong.", fix="Leave it out.", item=item)
    return item


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Callable[..., bytes]:
    """Function (settings) -> bytes of the verdict on a newcomer beside fifty tasks."""
    from clr.core.files import sha256_bytes
    from flows.judge import judge

    folder = tmp_path_factory.mktemp("fifty")
    limits = {"threads": 1, "gate_max_latency_ratio": 1000.0}
    session = synthetic.workspace(folder / "plant", **limits)
    tasks = [f"task-{number}" for number in range(TASKS)]
    for number, task in enumerate((*tasks, "newcomer")):
        synthetic.images(session.settings.workspace / "data" / task, number, 2)
    synthetic.pin(session)
    release = synthetic.release(session, synthetic.register(session, tasks))
    made, data = synthetic.adapter(session, "newcomer")
    newcomer = synthetic.evidence(session, made, sha256_bytes(data))

    def run(**settings: Any) -> bytes:
        one = synthetic.workspace(folder / "plant", **limits, **settings)
        one.network.attach(made, sha256_bytes(data))
        judged = judge(one, newcomer, release)
        assert judged.report["metrics"]["earlier_tasks"] == TASKS
        assert not [key for key in judged.report["failed"] if not key.endswith(":newcomer")]
        return judged.data

    return run


@contextmanager
def dask_cluster() -> Iterator[str]:
    """Two processes of Dask on this machine, of which one declares a GPU."""
    pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")
    from distributed import Nanny, Scheduler, SpecCluster

    here = {"host": "127.0.0.1"}
    one, other = {**here, "nthreads": 1, "resources": {"GPU": 1}}, {**here, "nthreads": 1}
    with SpecCluster(
        scheduler={"cls": Scheduler, "options": {**here, "dashboard": False}},
        workers={at: {"cls": Nanny, "options": told} for at, told in enumerate((one, other))},
    ) as cluster:
        yield cluster.scheduler_address


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Two processes of Ray in this machine's Ray, which has one GPU for two at once to want."""
    pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")
    import ray

    ray.init(
        num_cpus=WORKERS,
        num_gpus=1,
        include_dashboard=False,
        object_store_memory=80_000_000,
        log_to_driver=False,
    )
    try:
        yield ""  # the runner finds the Ray of its own process
    finally:
        ray.shutdown()


CLUSTERS = {"dask": dask_cluster, "ray": ray_cluster}


@pytest.mark.soak
@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_cluster_of_two_says_what_threads_say(kind: str, gate: Callable[..., bytes]) -> None:
    here = gate()
    with CLUSTERS[kind]() as address:
        settings = {"task_runner": kind, "task_runner_address": address}
        assert gate(**settings) == here

        session = Session(Settings(workspace=Path(), device="cpu", **settings))
        told: list[Any] = []
        found = fan_out(session, square, range(20), what="square", told=told.append)
        assert [one.answer for one in found] == [item * item for item in range(20)]
        assert sorted(one.answer for one in told) == sorted(one.answer for one in found)
        assert os.getpid() not in {one.process for one in found}
        assert len({one.process for one in found}) == WORKERS
        assert {one.runner for one in found} == {"threads"}, "a worker fans nothing out"

        placed = fan_out(session, square, range(20), what="square", gpu=True)
        assert [one.answer for one in placed] == [item * item for item in range(20)]
        if kind == "dask":
            assert len({one.process for one in placed}) == 1, "one of the two has the GPU"
        else:
            assert {one.gpu for one in placed} == {"0"}, "Ray lends the GPU to each in turn"

        with pytest.raises(UsageError, match="Item 7 is wrong") as caught:
            fan_out(session, stumble, range(20), what="stumble")
        assert (caught.value.fix, caught.value.data) == ("Leave it out.", {"item": FAILING})


def test_threads_in_a_flow_keep_the_order_and_raise_what_was_raised(prefect_api: str) -> None:
    from prefect import flow

    session = Session(Settings(workspace=Path(), device="cpu", parallel=3))

    told: list[Any] = []

    @flow
    def outer() -> list[int]:
        found = fan_out(session, square, range(PART * 2), what="square", told=told.append)
        return [one.answer for one in found]

    assert outer() == [item * item for item in range(PART * 2)]
    assert sorted(one.answer for one in told) == [item * item for item in range(PART * 2)]

    @flow
    def stumbling() -> None:
        fan_out(session, stumble, range(PART * 2), what="stumble")

    with pytest.raises(UsageError, match="Item 7 is wrong"):
        stumbling()


@pytest.mark.parametrize("kind", CLUSTERS)
def test_without_its_packages_a_runner_says_what_to_install(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, f"prefect_{kind}", None)
    with pytest.raises(UsageError) as caught:
        task_runner(Settings(workspace=Path(), task_runner=kind))
    assert f"uv sync --frozen --inexact --extra {kind}" in caught.value.fix


@pytest.mark.parametrize(("kind", "scheme"), [("dask", "tcp://"), ("ray", "ray://"), ("ray", "")])
def test_a_cluster_that_nobody_runs_is_told_within_seconds(kind: str, scheme: str) -> None:
    pytest.importorskip(f"prefect_{kind}", reason=f"the extra `{kind}` is not installed")
    settings = Settings(
        workspace=Path(), task_runner=kind, task_runner_address=f"{scheme}127.0.0.1:{free_port()}"
    )
    started = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="cannot be reached"):
        task_runner(settings)
    assert time.monotonic() - started < REACH_SECONDS + 1


@pytest.mark.parametrize("address", ["nonsense", "tcp://host", "host:port", "tcp://:8786"])
def test_what_is_no_address_is_a_slip_of_the_user(address: str) -> None:
    pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")
    with pytest.raises(UsageError, match="is no address"):
        task_runner(Settings(workspace=Path(), task_runner="dask", task_runner_address=address))


def test_what_travels_to_a_worker_names_no_password_and_no_other_runner() -> None:
    session = Session(
        Settings(
            workspace=Path("/plant"),
            device="cpu",
            task_runner="dask",
            task_runner_address="tcp://scheduler:8786",
            registry_database="postgresql://mlflow:secret@host/mlflow",
            prefect_database="postgresql://prefect:secret@host/prefect",
        )
    )
    told = json.loads(values(session))
    assert "secret" not in values(session)
    assert (told["workspace"], told["task_runner"], told["device"]) == ("/plant", "threads", "cpu")
    assert told["threads"] >= 1
