"""What Prefect's server does by itself: start a run for an event, mark a lost run as crashed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flows import announce, tracking

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events import AutomationCore

    from flows.deployments import Deployment

LOST_SECONDS = 90
"""A run is lost after so long without a heartbeat: three times the workers' 30 seconds."""

_RUN = "prefect.flow-run."


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


def write(client: SyncPrefectClient, wanted: AutomationCore) -> None:
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
