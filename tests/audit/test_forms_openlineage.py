"""OpenLineage events: valid against the published schema, and received by a real endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from clr.audit.forms import openlineage
from clr.errors import ServiceUnavailable, UsageError
from tests.audit import documents

PUBLISHED = Path(__file__).parent / "openlineage"


@pytest.fixture(autouse=True)
def no_configuration(tmp_path, monkeypatch):
    """Nothing of the machine's own OpenLineage configuration is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    """The published schema's files, by address."""
    found = [json.loads(file.read_bytes()) for file in PUBLISHED.glob("*.json")]
    return {one["$id"]: one for one in found}


def events(document: documents.Document) -> list[dict[str, Any]]:
    return [json.loads(line) for line in openlineage.render(document).splitlines()]


def facets(part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every facet below `part`, with the name it has there."""
    if isinstance(part, list):
        for one in part:
            yield from facets(one)
    elif isinstance(part, dict):
        for name, one in part.items():
            if isinstance(one, dict) and "_schemaURL" in one:
                yield name, one
            else:
                yield from facets(one)


@pytest.mark.parametrize("make", [documents.document, documents.old])
def test_events_and_each_of_their_facets_are_valid_by_the_published_schema(make, schemas):
    document = make()
    document["training"] |= {
        name: documents.document()["training"][name] for name in ("run_id", "started", "ended")
    }
    registry = Registry().with_resources(
        (address, Resource.from_contents(one)) for address, one in schemas.items()
    )

    def check(value: Any, address: str) -> None:
        Draft202012Validator(
            {"$ref": address}, registry=registry, format_checker=Draft202012Validator.FORMAT_CHECKER
        ).validate(value)

    seen = set()
    for event in events(document):
        check(event, event["schemaURL"])
        for name, facet in facets(event):
            file = facet["_schemaURL"].partition("#")[0]
            assert name in schemas[file]["properties"]
            check({name: facet}, file)
            seen.add(name)
    if make is documents.document:
        assert {"schema", "version", "dataQualityAssertions", "outputStatistics", "test"} <= seen


def test_start_and_complete_are_of_mlflows_run_at_its_times():
    start, complete = events(documents.document())
    assert [start["eventType"], complete["eventType"]] == ["START", "COMPLETE"]
    assert complete["eventTime"] == "2026-11-24T09:02:03.500000Z"
    ids = {one["run"]["runId"] for one in (start, complete)}
    assert ids == {"01234567-89ab-cdef-0123-456789abcdef"}


def test_the_adapter_came_from_data_and_backbone():
    document = documents.document()
    complete = events(document)[1]
    versions = {
        one["name"]: one["facets"]["version"]["datasetVersion"]
        for one in (*complete["inputs"], *complete["outputs"])
    }
    assert versions == {
        "data/animals": document["data"]["digest"],
        "backbone/tf_efficientnet_lite0": document["backbone"]["digest"],
        "clr-animals": document["adapter"]["digest"],
    }


def test_what_the_validation_found_is_told_of_the_data():
    data = events(documents.document())[1]["inputs"][0]
    found = data["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert [(one["success"], one["severity"]) for one in found] == [
        (True, "error"),
        (False, "warn"),
    ]


def test_a_gate_check_that_did_not_pass_is_a_failed_test():
    document = documents.document()
    document["gate"]["checks"][1] = documents.check("retention", "digits", "inconclusive")
    tests = events(document)[1]["run"]["facets"]["test"]["tests"]
    assert [(one["name"], one["status"]) for one in tests] == [
        ("improvement:animals", "pass"),
        ("retention:digits", "fail"),
    ]


def test_a_version_without_a_run_has_no_events():
    with pytest.raises(UsageError, match="No run"):
        openlineage.render(documents.old())


class Endpoint(ThreadingHTTPServer):
    """Takes what is posted, or answers with `status`."""

    def __init__(self, status: int = 201) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.received: list[tuple[str, str | None, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint(monkeypatch) -> Iterator[Endpoint]:
    with Endpoint() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


def test_an_endpoint_receives_both_events_as_they_are_exported(endpoint, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "secret")
    document = documents.document()
    assert openlineage.send(document) == "http"
    assert endpoint.received == [
        ("/api/v1/lineage", "Bearer secret", event) for event in events(document)
    ]


def test_an_endpoint_that_refuses_is_told(endpoint):
    endpoint.status = 422
    with pytest.raises(ServiceUnavailable, match="422"):
        openlineage.send(documents.document())


def test_a_file_receives_what_is_exported(tmp_path):
    (tmp_path / "openlineage.yml").write_text(
        "transport: {type: file, log_file_path: events.jsonl, append: true}"
    )
    assert openlineage.send(documents.document()) == "file"
    assert (tmp_path / "events.jsonl").read_text() == openlineage.render(documents.document())


@pytest.mark.parametrize(
    "environment",
    [{}, {"OPENLINEAGE_URL": "nowhere"}, {"OPENLINEAGE_DISABLED": "true"}],
)
def test_without_an_endpoint_nothing_is_sent_and_it_is_said_how(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="OPENLINEAGE_URL"):
        openlineage.send(documents.document())
