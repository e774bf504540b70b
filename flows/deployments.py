"""Tell Prefect's server what may run: work pools, deployments, automations, limits.

``python -m flows.deployments`` does it once; doing it again changes nothing. ``prefect.yaml``
says the same of the deployments for ``prefect deploy --all``.

A worker's pool decides how a run is started: command and environment are constants of its job
template, so that whoever may start a run cannot choose them.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError, ServiceUnavailable
from clr.settings import Settings, load_settings
from flows import announce, automations, embedded, locks, output
from flows.parts import pools

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events import AutomationCore
    from prefect.flows import Flow

LOG = logging.getLogger("clr")
POOLS = {
    "cpu": "Onboardings and looks at all tasks, on machines without a GPU.",
    "gpu": "Onboardings on machines with a GPU.",
    "registry": "Asks the release service to carry out decisions; holds no release password.",
}
JOB_TEMPLATE: dict[str, Any] = {
    "job_configuration": {
        # a command of the pool's own: one process a run, no second one that only looks for code
        "command": "python -m flows.warm",
        "env": {},
        "labels": {},
        "name": "{{ name }}",
        "stream_output": True,
        "working_dir": None,
    },
    "variables": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {
                "title": "Name",
                "description": "Name of the process in the worker's log.",
                "anyOf": [{"type": "string"}, {"type": "null"}],
                "default": None,
            }
        },
    },
}
"""Of every pool; only the name in the log is left to who starts a run."""


@dataclass(frozen=True)
class Deployment:
    """What may run, and how.

    Attributes:
        entrypoint: module and function, ``flows.onboard.onboard``.
        name: of the deployment; ``<flow>/<name>`` in Prefect.
        pool: work pool whose workers run it.
        description: Markdown, for Prefect's UI.
        tags: to find its runs by.
        cron: when it runs by itself (UTC); empty: never.
        limit: runs at once, over all machines; 0: as many as workers take.
        collision: what becomes of a run beyond `limit`: ``ENQUEUE`` or ``CANCEL_NEW``.
        trigger: name of the event that starts it; empty: none.
        parameters: of a run started by the event, each as a Jinja expression of `event`.
    """

    entrypoint: str
    name: str
    pool: str
    description: str
    tags: tuple[str, ...]
    cron: str = ""
    limit: int = 0
    collision: str = "ENQUEUE"
    trigger: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def flow(self) -> Flow[..., Any]:
        """The flow itself."""
        from prefect.flows import load_flow_from_entrypoint

        return load_flow_from_entrypoint(self.entrypoint, use_placeholder_flow=False)


def deployments(settings: Settings) -> tuple[Deployment, ...]:
    """Return all that may run."""
    heavy = pools(settings)[0]
    return (
        Deployment(
            "flows.onboard.onboard",
            "onboard",
            heavy,
            "Validates a task folder, trains its adapter, asks the retention gate and registers "
            "a version for review. Started by whatever arrives in `incoming/`.",
            ("clr", "onboard"),
            trigger=announce.EVENT,
            parameters={
                "path": "event.payload.path",
                "name": "event.payload.task",
                "arrival": "event.payload.digest | default('', true)",
            },
        ),
        Deployment(
            "flows.asking.promote",
            "promote",
            "registry",
            "Asks the release service to carry out what reviewers decided about one version, "
            "and tells what came of it. It needs the reviews: starting it approves nothing.",
            ("clr", "release"),
            limit=1,
        ),
        Deployment(
            "flows.asking.reconcile",
            "reconcile",
            "registry",
            "Asks the release service to look for decisions that nobody carried out.",
            ("clr", "release"),
            limit=1,
            collision="CANCEL_NEW",
        ),
        Deployment(
            "flows.replay_retention.replay_retention",
            "replay-retention",
            heavy,
            "Evaluates every task of the release again, on all of its test images. Fails if one "
            "answers otherwise than when it was admitted.",
            ("clr", "watch"),
            cron=settings.replay_cron,
            limit=1,
            collision="CANCEL_NEW",
        ),
        Deployment(
            "flows.drift.drift_check",
            "drift-check",
            heavy,
            "Compares canaries and environment with the evidence, and recent images, where "
            "there are any, with the test images. Sends the event `clr.drift.found`.",
            ("clr", "watch"),
            cron=settings.drift_cron,
            limit=1,
            collision="CANCEL_NEW",
        ),
    )


def apply(settings: Settings) -> None:
    """Write all of it to the Prefect server in use.

    Raises:
        ServiceUnavailable: the server cannot be reached, or refuses it.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        with get_client(sync_client=True) as client:
            for pool, description in POOLS.items():
                _pool(client, pool, description)
            for lock in locks.SHARED:
                client.upsert_global_concurrency_limit_by_name(locks.limit_of(lock), 1)
            wanted = [automations.lost_runs()]
            for one in deployments(settings):
                wanted += _deployment(client, one)
            for automation in wanted:
                automations.write(client, automation)
    except (OSError, RuntimeError, PrefectHTTPStatusError) as error:
        raise ServiceUnavailable(
            f"The deployments cannot be written to Prefect's server: {error}.",
            fix="See that the server of PREFECT_API_URL runs and takes PREFECT_API_AUTH_STRING.",
        ) from error


def _pool(client: SyncPrefectClient, name: str, description: str) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    try:
        client.create_work_pool(
            WorkPoolCreate(
                name=name, description=description, type="process", base_job_template=JOB_TEMPLATE
            )
        )
    except ObjectAlreadyExists:
        known = client.read_work_pool(name)
        if known.type == "process" and known.base_job_template != JOB_TEMPLATE:
            client.update_work_pool(name, WorkPoolUpdate(base_job_template=JOB_TEMPLATE))


def _deployment(client: SyncPrefectClient, wanted: Deployment) -> list[AutomationCore]:
    """Write a deployment; return its automation, if it has a trigger."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyOptions
    from prefect.utilities.callables import parameter_schema

    flow = wanted.flow
    options = ConcurrencyLimitConfig(limit=wanted.limit or 1, collision_strategy=wanted.collision)
    made = client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=wanted.name,
        description=wanted.description,
        version=flow.version,
        tags=list(wanted.tags),
        work_pool_name=wanted.pool,
        entrypoint=wanted.entrypoint,
        pull_steps=[],
        schedules=schedules(wanted),
        concurrency_limit=wanted.limit or None,
        concurrency_options=ConcurrencyOptions(collision_strategy=options.collision_strategy)
        if wanted.limit
        else None,
        parameter_openapi_schema=parameter_schema(flow).model_dump(exclude_unset=True),
        enforce_parameter_schema=True,
    )
    found = automations.trigger(wanted)
    if found is None:
        return []
    found.set_deployment_id(made)
    automation: AutomationCore = found.as_automation()
    return [automation]


def schedules(deployment: Deployment) -> list[Any]:
    """Return a deployment's schedules as Prefect's client takes them.

    Raises:
        UsageError: the setting is no cron string.
    """
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    from clr.errors import UsageError

    if not deployment.cron:
        return []
    try:
        cron = CronSchedule(cron=deployment.cron, timezone="UTC")
    except ValueError as error:
        raise UsageError(
            f"{deployment.cron!r}, when {deployment.name} runs, is no cron string.",
            fix="Correct CLR_REPLAY_CRON or CLR_DRIFT_CRON, for example `0 3 * * 0`.",
        ) from error
    return [DeploymentScheduleCreate(schedule=cron, active=True)]


def main() -> None:
    """Write pools, deployments, automations and limits to the server in use."""
    output.log_to_stderr()
    try:
        settings = load_settings()
        embedded.prepare(settings)
        apply(settings)
        locks.settle(settings)
    except ClrError as error:
        output.fail(error, as_json=False)
        sys.exit(error.exit_code)
    LOG.info("deployments are known to Prefect's server")


if __name__ == "__main__":
    main()
