"""Runs: one per idempotency key, resumed after a kill, never doubled."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clr.registry.faults import calling
from clr.registry.local import locked, scratch
from clr.registry.store import (
    KEY_TAG,
    Registry,
    checked_key,
    ensure_experiment,
    experiment_name,
)

_LOG = logging.getLogger(__name__)
_BATCH = 90
_EPOCH = "epoch"
_LONGEST = 6000


@dataclass(frozen=True)
class Run:
    """One run of one task.

    Attributes:
        id: MLflow's run id.
        task: the task.
        experiment_id: of ``clr/<task>``.
        key: idempotency key.
        resumed: True where an earlier process started it.
        last_epoch: number of the last epoch logged by an earlier process, -1 without.
        started: milliseconds since 1970, UTC.
    """

    id: str
    task: str
    experiment_id: str
    key: str
    resumed: bool
    last_epoch: int
    started: int

    def link(self, artifact: str = "") -> str:
        """Return the address of the run, or of one artifact, inside the MLflow UI."""
        page = f"#/experiments/{self.experiment_id}/runs/{self.id}"
        return f"{page}/artifacts/{artifact}" if artifact else page


def find_or_start_run(
    registry: Registry,
    task: str,
    key: str,
    *,
    name: str = "",
    tags: Mapping[str, str] | None = None,
    experiment: str = "",
) -> Run:
    """Return the run with idempotency key `key`, starting it if there is none.

    The key is a tag set in the same transaction as the run itself, so a process
    killed at any point leaves a run that the next one finds.

    Args:
        registry: opened registry.
        task: task name.
        key: digest of what determines the run's result.
        name: shown in the UI.
        tags: further tags, set at creation only.
        experiment: name other than ``clr/<task>``.
    """
    experiment_id = ensure_experiment(registry, experiment or experiment_name(task))
    checked_key(key)
    born = {KEY_TAG: key, "clr.task": task, "mlflow.source.name": "clr", **(tags or {})}
    with locked(registry, f"run-{task}"), calling(registry.uri, f"start a run of {task}"):
        found = _runs_with(registry, experiment_id, key)
        if found:
            return _resume(registry, task, key, found[0])
        started = int(time.time() * 1000)
        mine = registry.client.create_run(
            experiment_id, start_time=started, tags=born, run_name=name or None
        )
        first = _runs_with(registry, experiment_id, key)[0]
        if first.info.run_id != mine.info.run_id:  # another machine was as fast
            registry.client.delete_run(mine.info.run_id)
            return _resume(registry, task, key, first)
    return Run(mine.info.run_id, task, experiment_id, key, False, -1, started)


def find_run(registry: Registry, task: str, key: str) -> Run | None:
    """Return the run with idempotency key `key` as it stands, or None."""
    with calling(registry.uri, f"look for a run of {task}"):
        experiment = registry.client.get_experiment_by_name(experiment_name(task))
        found = experiment and _runs_with(registry, experiment.experiment_id, checked_key(key))
    return _as_run(task, key, found[0]) if found else None


def _runs_with(registry: Registry, experiment_id: str, key: str) -> list[Any]:
    found = registry.client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'")
    return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def _resume(registry: Registry, task: str, key: str, run: Any) -> Run:
    if run.info.status in ("FAILED", "KILLED"):
        registry.client.update_run(run.info.run_id, status="RUNNING")
    return _as_run(task, key, run)


def _as_run(task: str, key: str, run: Any) -> Run:
    info = run.info
    last = int(run.data.metrics.get(_EPOCH, -1))
    return Run(info.run_id, task, info.experiment_id, key, True, last, info.start_time)


def log_params(registry: Registry, run: Run, params: Mapping[str, Any]) -> None:
    """Log parameters; those that the run has already stay as they are.

    A different value under a name that is there already is only warned about: it is
    part of nothing that the key covers (device, threads), and the first one trained.
    Values longer than MLflow keeps are cut, with an ellipsis.
    """
    from mlflow.entities import Param

    with calling(registry.uri, "log parameters"):
        there = registry.client.get_run(run.id).data.params if run.resumed else {}
        values = {name: _cut(str(value)) for name, value in params.items()}
        for name in sorted(there.keys() & values.keys()):
            if there[name] != values[name]:
                text = "Parameter %s of run %s stays %s, now %s."
                _LOG.warning(text, name, run.id, there[name], values[name])
        new = [Param(name, value) for name, value in values.items() if name not in there]
        for part in _parts(new):
            registry.client.log_batch(run.id, params=part, synchronous=True)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def log_metrics(
    registry: Registry,
    run: Run,
    metrics: Mapping[str, float | int | None],
    *,
    step: int = 0,
    model_id: str | None = None,
    dataset: Any | None = None,
) -> None:
    """Log final metrics; those that are None are left out.

    Their time is the run's start, so that logging the same values twice is one
    and the same row. A model keeps what was measured of it first: a resumed run may
    have taken other seconds, which MLflow refuses to add beside it.

    Args:
        registry: opened registry.
        run: the run.
        metrics: values by name.
        step: step of all.
        model_id: logged model they describe.
        dataset: `clr.registry.dataset.DvcDataset` they were measured on.
    """
    there: set[str] = set()
    if run.resumed and model_id is not None:
        with calling(registry.uri, "read a model's metrics"):
            kept = registry.client.get_logged_model(model_id).metrics or ()
            there = {one.key for one in kept}
    new = {name: value for name, value in metrics.items() if name not in there}
    _log_metrics(registry, run, new, step, run.started, model_id, dataset)


def log_epoch(registry: Registry, run: Run, number: int, metrics: Mapping[str, float]) -> None:
    """Log an epoch's metrics with `number` as step, unless an earlier process did."""
    if number > run.last_epoch:
        values = {**metrics, _EPOCH: number}
        _log_metrics(registry, run, values, number, int(time.time() * 1000), None, None)


def _log_metrics(
    registry: Registry,
    run: Run,
    metrics: Mapping[str, float | int | None],
    step: int,
    timestamp: int,
    model_id: str | None,
    dataset: Any | None,
) -> None:
    from mlflow.entities import Metric

    link: dict[str, Any] = {"model_id": model_id, "run_id": run.id}
    if dataset is not None:
        link |= {"dataset_name": dataset.name, "dataset_digest": dataset.digest}
    values = [
        Metric(name, float(value), timestamp, step, **link)
        for name, value in metrics.items()
        if value is not None
    ]
    with calling(registry.uri, "log metrics"):
        for part in _parts(values):
            registry.client.log_batch(run.id, metrics=part, synchronous=True)


def log_dataset(registry: Registry, run: Run, dataset: Any, *, context: str = "training") -> None:
    """Attach a `clr.registry.dataset.DvcDataset` to the run as its input."""
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    entity = dataset._to_mlflow_entity()
    tags = [InputTag("mlflow.data.context", context)]
    inputs = [DatasetInput(entity, tags)]
    with calling(registry.uri, "log the dataset"):
        try:
            registry.client.log_inputs(run.id, datasets=inputs)
        except MlflowException as error:
            if "unique" not in str(error).lower():
                raise
            # another process put the same data set into the database meanwhile: now it is found
            registry.client.log_inputs(run.id, datasets=inputs)


def log_bytes(registry: Registry, run: Run, files: Mapping[str, bytes]) -> None:
    """Upload contents under their names (``plots/confusion.png``), over what is there."""
    with scratch(registry) as folder, calling(registry.uri, "upload " + ", ".join(files)):
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        registry.client.log_artifacts(run.id, str(folder))


def set_tags(registry: Registry, run: Run, tags: Mapping[str, str]) -> None:
    """Set tags of the run."""
    from mlflow.entities import RunTag

    with calling(registry.uri, "tag the run"):
        for part in _parts([RunTag(name, str(value)) for name, value in tags.items()]):
            registry.client.log_batch(run.id, tags=part, synchronous=True)


def finish(registry: Registry, run: Run, status: str = "FINISHED") -> None:
    """End the run as FINISHED, FAILED or KILLED."""
    with calling(registry.uri, "end the run"):
        registry.client.set_terminated(run.id, status)


def _parts(items: Iterable[Any]) -> Iterable[list[Any]]:
    everything = list(items)
    return (everything[at : at + _BATCH] for at in range(0, len(everything), _BATCH))
