"""A folder of files as an MLflow logged model, and a registered version of it; once per key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clr.registry.local import scratch
from clr.registry.runs import Run
from clr.registry.store import KEY_TAG, Registry, as_default


def logged_model(
    registry: Registry, run: Run, key: str, name: str, fill: Callable[[Path, str], None]
) -> str:
    """Return the id of the logged model with `key`, its files uploaded and it READY.

    Args:
        registry: opened registry.
        run: its source.
        key: idempotency key.
        name: shown in the UI.
        fill: called with (empty folder, model id), writes the files.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client = registry.client
    found = client.search_logged_models([run.experiment_id], f"tags.`{KEY_TAG}` = '{key}'")
    if found:
        model = min(found, key=lambda one: (one.creation_timestamp, one.model_id))
    else:
        model = client.create_logged_model(
            run.experiment_id, name=name, source_run_id=run.id, tags={KEY_TAG: key}
        )
    if model.status != LoggedModelStatus.READY:
        with scratch(registry) as folder:
            fill(folder, model.model_id)
            client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, "READY")
    there = client.get_run(run.id).outputs
    if there is None or model.model_id not in {one.model_id for one in there.model_outputs}:
        client.log_outputs(run.id, [LoggedModelOutput(model.model_id, step=0)])
    identifier: str = model.model_id
    return identifier


def create_version(
    registry: Registry,
    name: str,
    model_id: str,
    run_id: str,
    key: str,
    tags: Mapping[str, str],
    description: str,
) -> Any:
    """Return MLflow's version of `name` with `key`, creating it unless it is there.

    Args:
        registry: opened registry.
        name: registered model, existing.
        model_id: logged model that holds the files.
        run_id: its run.
        key: idempotency key; must be among `tags` as ``clr.key``.
        tags: of the version, set in the same transaction.
        description: of the version, Markdown.
    """
    search = f"name = '{name}' and tags.`{KEY_TAG}` = '{key}'"
    if found := registry.client.search_model_versions(search):
        return min(found, key=_number)
    with as_default(registry):
        mine = registry.client.create_model_version(
            name,
            f"models:/{model_id}",
            run_id=run_id,
            tags=dict(tags),
            description=description,
            model_id=model_id,
        )
    first = min(registry.client.search_model_versions(search), key=_number)
    if first.version != mine.version:  # another machine was as fast: the lower number wins
        registry.client.delete_model_version(name, mine.version)
    return first


def _number(version: Any) -> int:
    return int(version.version)
