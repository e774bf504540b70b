"""What the registry keeps of how a version was made: its run, and the data set of that run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clr.registry.faults import calling
from clr.registry.store import Registry, model_name


@dataclass(frozen=True)
class RunFacts:
    """A finished run.

    Attributes:
        id: MLflow's run id.
        experiment: id of its experiment.
        params: as text.
        metrics: last value of each.
        started: milliseconds since 1970, UTC.
        ended: the same; 0: it has not ended.
        source: of its data set: path, remote, git commit, digest of data.dvc, DVC digest.
        profile: of its data set: counts, classes, digest of the manifest.
    """

    id: str
    experiment: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    started: int
    ended: int
    source: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)


def read_run(registry: Registry, run_id: str) -> RunFacts | None:
    """Return what is recorded of a run; None where the registry has no such run.

    Raises:
        ServiceUnavailable: the registry cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    with calling(registry.uri, f"read run {run_id}"):
        try:
            run = registry.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
    inputs = run.inputs.dataset_inputs if run.inputs else []
    dataset = inputs[0].dataset if inputs else None
    return RunFacts(
        id=run.info.run_id,
        experiment=run.info.experiment_id,
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        started=int(run.info.start_time or 0),
        ended=int(run.info.end_time or 0),
        source=_object(dataset.source if dataset else None),
        profile=_object(dataset.profile if dataset else None),
    )


def _object(text: str | None) -> Mapping[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read_title(registry: Registry, task: str) -> str:
    """Return the description of the task's registered model: the title of its task.yaml.

    Raises:
        ServiceUnavailable: the registry cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    with calling(registry.uri, f"read the model of {task}"):
        try:
            return registry.client.get_registered_model(model_name(task)).description or ""
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return ""
