"""The Prefect flows of the release service, so that every promotion is a run one can look up."""

from __future__ import annotations

import logging
from typing import Any

from prefect import flow

from clr.errors import ClrError
from flows import reconcile as plain
from flows.session import open_session

LOG = logging.getLogger("clr")
Result = dict[str, Any]
_FLOW: dict[str, Any] = {"validate_parameters": False, "persist_result": False}


@flow(name="promote", flow_run_name="promote-{task}-{version}", **_FLOW)
def promote(task: str, version: int, workspace: str | None = None) -> Result:
    """Carry out what people decided about a version; see `flows.reconcile.follow`.

    Args:
        task: task name.
        version: number of its version.
        workspace: folder that holds ``data.dvc``; default: around the current folder.
    """
    return plain.follow(open_session(workspace), task, version)


@flow(name="reconcile", **_FLOW)
def reconcile(workspace: str | None = None) -> Result:
    """Carry out all that is left to do: the release's state first, then decisions in order.

    Args:
        workspace: as for `promote`.

    Raises:
        Exception: the first failure that may pass by itself, after everything was tried.
    """
    session = open_session(workspace)
    found, failures = plain.look(session), []
    if found.unrecorded or found.behind:
        plain.repair(session)
    for task, version in found.decided:
        try:
            promote(task, version, workspace)
        except Exception as error:  # whatever one version does, those after it have their turn
            strange = not isinstance(error, ClrError)
            LOG.warning("promote   %s version %d: %s", task, version, error, exc_info=strange)
            if plain.can_pass(error):
                failures.append(error)
    if failures:
        raise failures[0]
    return {"decided": [f"{task}/{version}" for task, version in found.decided]}
