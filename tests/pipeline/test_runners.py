"""Work fanned out: the same answers, in the same order, whoever does it; refusals by name.

The clusters are real: two processes of Dask, two of Ray. Both run the gate of fifty tasks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clr.errors import UsageError
from clr.settings import Settings
from flows.runners import fan_out
from flows.session import Session
from tests import synthetic

TASKS = 50
WORKERS = 2
FAILING = 7


def square(session: Session, item: int) -> tuple[int, int, str]:
    """Answer with who answered."""
    return item * item, os.getpid(), session.settings.task_runner


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
def dask_cluster(**options: Any) -> Iterator[str]:
    """Two processes of Dask on this machine."""
    pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, **options
    ) as cluster:
        yield cluster.scheduler_address


@contextmanager
def ray_cluster(**options: Any) -> Iterator[str]:
    """Two processes of Ray on this machine; the runner finds them in this process."""
    pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")
    import ray

    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        object_store_memory=80_000_000,
        log_to_driver=False,
        **options,
    )
    try:
        yield ""
    finally:
        ray.shutdown()


CLUSTERS = {"dask": dask_cluster, "ray": ray_cluster}


@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_cluster_of_two_says_what_threads_say(kind: str, gate: Callable[..., bytes]) -> None:
    here = gate()
    with CLUSTERS[kind]() as address:
        settings = {"task_runner": kind, "task_runner_address": address}
        assert gate(**settings) == here

        session = Session(Settings(workspace=Path(), **settings))
        found = fan_out(session, square, range(20), what="square")
        assert [answer for answer, _, _ in found] == [one * one for one in range(20)]
        assert os.getpid() not in {process for _, process, _ in found}
        assert len({process for _, process, _ in found}) == WORKERS
        assert {runner for _, _, runner in found} == {"threads"}, "a worker fans nothing out"
        with pytest.raises(UsageError, match="Item 7 is wrong") as caught:
            fan_out(session, stumble, range(20), what="stumble")
        assert (caught.value.fix, caught.value.data) == ("Leave it out.", {"item": FAILING})
