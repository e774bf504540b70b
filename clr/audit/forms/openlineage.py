"""OpenLineage run events: the training of one adapter as a run with inputs and an output.

Two events, START and COMPLETE, made by openlineage-python's classes and the facets it ships
(https://openlineage.io/docs/spec). The run's id is MLflow's, which is a UUID too; exporting
again makes the same events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from clr.audit.forms.openlineage_datasets import PRODUCER, inputs, known, namespace, output
from clr.errors import ServiceUnavailable, UsageError

if TYPE_CHECKING:
    from openlineage.client.event_v2 import Job, Run, RunEvent
    from openlineage.client.transport import Transport

Document = Mapping[str, Any]


def render(document: Document) -> str:
    """Return both events as JSON lines.

    Args:
        document: an audit, schema ``clr.audit/1``.

    Raises:
        UsageError: neither a run with its times nor a digest of the adapter was recorded.
    """
    from openlineage.client.serde import Serde

    return "".join(f"{Serde.to_json(event)}\n" for event in events(document))


def send(document: Document) -> str:
    """Send both events where openlineage-python's own configuration says.

    That is an HTTP endpoint in ``OPENLINEAGE_URL``, or any of its transports in
    ``openlineage.yml`` or ``OPENLINEAGE__TRANSPORT__…``. What its client would add of its own,
    such as the git repository of today's working folder, is not part of an audit: the events
    arrive as `render` shows them.

    Returns:
        The kind of the transport: ``http``, ``file``, ``kafka``, …

    Raises:
        UsageError: no transport is configured, or not rightly; or see `render`.
        ServiceUnavailable: the endpoint cannot be reached or does not take an event.
    """
    from requests import RequestException

    told = events(document)
    transport = _transport()
    try:
        for event in told:
            transport.emit(event)
        transport.close()
    except (RequestException, OSError, RuntimeError) as error:
        raise ServiceUnavailable(
            f"The OpenLineage events could not be sent: {error}.",
            fix="See that the endpoint in OPENLINEAGE_URL or openlineage.yml is up, then repeat "
            "the command: the same events twice are one run.",
        ) from error
    return str(transport.kind)


def events(document: Document) -> tuple[RunEvent, RunEvent]:
    """Return START and COMPLETE of the run that trained the adapter; see `render`."""
    from openlineage.client.event_v2 import RunEvent, RunState

    training = document["training"]
    if not (training["run_id"] and training["started"] and training["ended"]):
        raise UsageError(
            f"No run with its times was recorded for {document['subject']}.",
            fix="Export it as text or json: OpenLineage speaks about runs.",
        )
    adapter = output(document)
    run, job, came_in = _run(document), _job(document), inputs(document)
    return (
        RunEvent(
            eventType=RunState.START,
            eventTime=training["started"],
            run=run,
            job=job,
            inputs=came_in,
            producer=PRODUCER,
        ),
        RunEvent(
            eventType=RunState.COMPLETE,
            eventTime=training["ended"],
            run=run,
            job=job,
            inputs=came_in,
            outputs=[adapter],
            producer=PRODUCER,
        ),
    )


def _transport() -> Transport:
    from openlineage.client.client import OpenLineageClient

    try:
        transport = OpenLineageClient().transport
    except (ValueError, RuntimeError, TypeError) as error:
        raise UsageError(
            f"OpenLineage is not configured rightly: {error}.",
            fix="Set OPENLINEAGE_URL=http://host:port, or correct openlineage.yml.",
        ) from error
    if transport.kind in ("console", "noop"):  # what it takes when it finds nothing, or is off
        raise UsageError(
            "No OpenLineage endpoint is configured, or OPENLINEAGE_DISABLED is set.",
            fix="Set OPENLINEAGE_URL=http://host:port, or write openlineage.yml.",
        )
    return transport


def _run(document: Document) -> Run:
    from openlineage.client import facet_v2 as facet
    from openlineage.client.event_v2 import Run

    training, environment, gate = document["training"], document["environment"], document["gate"]
    tags = {
        "code": document["code"]["digest"],
        "environment": environment["digest"],
        "gate": gate["digest"],
        "device": training["device"],
        "hardware": training["hardware"],
    }
    facets: dict[str, Any] = {
        "tags": facet.tags_run.TagsRunFacet(
            [facet.tags_run.TagsRunFacetFields(*pair, source="clr") for pair in known(tags)],
            producer=PRODUCER,
        ),
        "executionParameters": facet.execution_parameters_run.ExecutionParametersRunFacet(
            [
                facet.execution_parameters_run.ExecutionParameter(name, value=str(value))
                for name, value in (training["recipe"] or {}).items()
            ],
            producer=PRODUCER,
        ),
    }
    if environment["torch"]:
        facets["processing_engine"] = facet.processing_engine_run.ProcessingEngineRunFacet(
            environment["torch"], name="torch", producer=PRODUCER
        )
    if gate["checks"]:
        facets["test"] = facet.test_run.TestRunFacet(
            [
                facet.test_run.TestExecution(
                    name=f"{one['name']}:{one['task']}",
                    status="pass" if one["verdict"] == "pass" else "fail",
                    severity="error",
                    type=one["name"],
                    description=one["message"],
                    expected=_words(one["limit"]),
                    actual=_words(one["observed"]),
                )
                for one in gate["checks"]
            ],
            producer=PRODUCER,
        )
    return Run(str(UUID(training["run_id"])), facets)


def _job(document: Document) -> Job:
    from openlineage.client import facet_v2 as facet
    from openlineage.client.event_v2 import Job

    facets: dict[str, Any] = {
        "jobType": facet.job_type_job.JobTypeJobFacet("BATCH", "CLR", "TRAINING", producer=PRODUCER)
    }
    if document["title"]:
        facets["documentation"] = facet.documentation_job.DocumentationJobFacet(
            f"Train an adapter for: {document['title']}", "text/plain", producer=PRODUCER
        )
    return Job(namespace(document), f"onboard.{document['task']}", facets)


def _words(figure: float | None) -> str | None:
    return None if figure is None else str(figure)
