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
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError, ServiceUnavailable
from clr.settings import Settings, load_settings
from flows import announce, embedded, locks, output, tracking
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
LOST_SECONDS = 90
"""A run is lost after so long without a heartbeat: three times the workers' 30 seconds."""

_RUN = "prefect.flow-run."
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


def typed(expression: str) -> dict[str, Any]:
    """Return a parameter of a trigger whose type is kept: a name of digits stays a text."""
    template = f"{{{{ {expression} | tojson }}}}"
    value = {"__prefect_kind": "jinja", "template": template}
    return {"__prefect_kind": "json", "value": value}


def trigger(deployment: Deployment) -> Any:
    """Return the automation's trigger in the form that ``prefect.yaml`` has, too; or None."""
    from prefect.events import DeploymentEventTrigger

    if not deployment.trigger:
        return None
    return DeploymentEventTrigger(
        name=f"{deployment.name}-arrivals",
        expect={deployment.trigger},
        match={"prefect.resource.id": f"{announce.RESOURCE}*"},
        parameters={name: typed(one) for name, one in deployment.parameters.items()},
    )


def lost_runs() -> AutomationCore:
    """Return the automation that marks a run as crashed when its heartbeats stop.

    It finds what flows/recover.py cannot see: processes of machines that are gone.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events import AutomationCore, EventTrigger, Posture, ResourceSpecification
    from prefect.events.actions import ChangeFlowRunState

    names = ("heartbeat", *tracking.END_NAMES, "Scheduled", "AwaitingRetry")
    return AutomationCore(
        name="clr-lost-runs",
        description="Marks flow runs whose heartbeats stopped as crashed.",
        trigger=EventTrigger(
            after={f"{_RUN}heartbeat"},
            expect={_RUN + one for one in names},
            match=ResourceSpecification({"prefect.resource.id": [f"{_RUN}*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=LOST_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, message=f"No heartbeat for {LOST_SECONDS} seconds."
            )
        ],
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
            wanted = [lost_runs()]
            for one in deployments(settings):
                wanted += _deployment(client, one)
            for automation in wanted:
                _automation(client, automation)
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
    found = trigger(wanted)
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


def _automation(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Make an automation, once; of several with its name one is left."""
    kept = None
    for known in client.read_automations_by_name(wanted.name):
        if kept is None and content(known) == content(wanted):
            kept = known
        else:
            client.delete_automation(known.id)
    if kept is None:
        client.create_automation(wanted)


def content(automation: Any) -> Any:
    """Return what an automation says, without the ids that each copy of it gets."""
    fields = {"trigger", "actions", "description", "enabled"}
    return _settled(automation.model_dump(mode="json", include=fields))


def _settled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _settled(one) for name, one in value.items() if name != "id"}
    if isinstance(value, list):
        return sorted((_settled(one) for one in value), key=repr)
    return value


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
