"""Runs inside a run: MLflow shows them folded up below their parent."""

from __future__ import annotations

from clr.registry.faults import calling
from clr.registry.runs import Run, find_or_start_run
from clr.registry.store import KEY_TAG, Registry

_PARENT = "mlflow.parentRunId"
_MOST = 1000


def start_child(registry: Registry, parent: Run, key: str, name: str, experiment: str) -> Run:
    """Return the run below `parent` with idempotency key `key`, starting it if there is none.

    Args:
        registry: opened registry.
        parent: the run that it belongs to.
        key: digest of what determines it, the parent included.
        name: shown in the UI.
        experiment: name of the parent's experiment.
    """
    tags = {_PARENT: parent.id}
    return find_or_start_run(
        registry, parent.task, key, name=name, tags=tags, experiment=experiment
    )


def finished_children(registry: Registry, parent: Run) -> set[str]:
    """Return the idempotency keys of the runs below `parent` that are finished."""
    search = f"tags.`{_PARENT}` = '{parent.id}' and attributes.status = 'FINISHED'"
    keys: set[str] = set()
    token = None
    with calling(registry.uri, "look for nested runs"):
        while True:
            page = registry.client.search_runs(
                [parent.experiment_id], search, max_results=_MOST, page_token=token
            )
            keys.update(run.data.tags[KEY_TAG] for run in page if KEY_TAG in run.data.tags)
            token = page.token
            if not token:
                return keys
