"""The OpenAPI document holds: requests made from it, good and bad, never surprise the server."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import schemathesis
from schemathesis.config import (
    ChecksConfig,
    GenerationConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)
from schemathesis.engine import Status, events, from_schema
from schemathesis.generation import GenerationMode

SEED = 8

ACCEPTED = ["2xx", "404", "413", "422"]
"""For good requests. A schema cannot say which tasks there are (404), what a setting limits (413),
nor that there are as many units as files (422)."""


def configuration(url: str, key: str, examples: int) -> SchemathesisConfig:
    checks = ChecksConfig(
        positive_data_acceptance=PositiveDataAcceptanceConfig(expected_statuses=ACCEPTED)
    )
    generation = GenerationConfig(
        modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE],
        max_examples=examples,
        deterministic=True,
    )
    project = ProjectConfig(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        request_timeout=60,
        continue_on_failure=True,
        checks=checks,
        generation=generation,
    )
    return SchemathesisConfig(projects=ProjectsConfig(default=project), seed=SEED)


def is_a_finding(name: str, found: Any) -> bool:
    """All but this: in a form everything is text, so no field can have a wrong type."""
    typed = name == "negative_data_rejection" and "Incorrect type" in found.failure.message
    return not (typed and "multipart/form-data" in found.code_sample)


@pytest.mark.parametrize("examples", [10, pytest.param(100, marks=pytest.mark.soak)])
def test_no_request_surprises_the_server(examples, web):
    document = web.call("GET", "/openapi.json").json()
    schema = schemathesis.openapi.from_dict(
        document, config=configuration(web.url, web.key, examples)
    )
    findings, tried = [], Counter()
    for event in from_schema(schema).execute():
        if isinstance(event, (events.NonFatalError, events.FatalError)):
            findings.append(str(event))
        if not isinstance(event, events.ScenarioFinished):
            continue
        tried[event.label] += len(event.recorder.cases)
        for nodes in event.recorder.checks.values():
            findings += [
                (event.label, one.name, one.failure_info.failure.message)
                for one in nodes
                if one.status == Status.FAILURE and is_a_finding(one.name, one.failure_info)
            ]
    assert findings == []
    operations = [
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    ]
    assert all(tried[one] for one in operations), tried
    assert sum(tried.values()) > 12 * examples
    assert web.call("GET", "/health").json()["status"] == "ok"
