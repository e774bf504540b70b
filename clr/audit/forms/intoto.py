"""in-toto attestations: SLSA provenance v1, and test results v0.1 of gate and validation.

Each is a Statement v1 in a DSSE envelope, signed with the ledger's key; a bundle is one envelope
a line. Specifications: https://github.com/in-toto/attestation (spec/v1, spec/predicates),
https://slsa.dev/spec/v1.0/provenance. docs/audit-forms.md tells how a third party
verifies them.

A digest that is not the sha256 of one file has a name of its own, so that nobody looks for a file
with it: ``clrCode``, ``clrEnvironment``, ``clrBackbone``, ``clrManifest``, ``clrEvidence`` are
sha256 over canonical JSON or tensors as the audit's schema says, ``dvcDir`` is DVC's md5.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from clr.audit.forms.subject import adapter_digest, hexadecimal, require_intact
from clr.core.files import canonical_json

if TYPE_CHECKING:
    from in_toto_attestation.v1.statement import Statement

    from clr.audit.signing import Signer

Document = Mapping[str, Any]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
BUILD_TYPE = "urn:clr:onboard:1"
"""What made the adapter: ``clr onboard``; its parameters are the task, the recipe and the seed."""


def render(document: Document, signer: Signer) -> str:
    """Return the attestations of one adapter version as JSON lines of DSSE envelopes.

    Args:
        document: an audit, schema ``clr.audit/1``.
        signer: the ledger's key; its public key is ``.clr/keys/<start of its digest>.pub``.

    Raises:
        IntegrityBroken: the audit found a broken link; nothing is signed then.
        UsageError: no digest of the adapter was recorded, so there is nothing to speak about.
    """
    from securesystemslib.dsse import Envelope

    require_intact(document)
    lines = []
    for statement in statements(document, f"urn:clr:installation:{signer.key_id}"):
        envelope = Envelope(canonical_json(_plain(statement.pb)), PAYLOAD_TYPE, {})
        envelope.sign(signer.crypto_signer())
        lines.append(json.dumps(envelope.to_dict()) + "\n")
    return "".join(lines)


def statements(document: Document, builder: str) -> Iterator[Statement]:
    """Yield the statements that can be made: provenance, the gate's results, the validation's.

    Args:
        document: an audit.
        builder: URI of who vouches for how the adapter was made.

    Raises:
        UsageError: no digest of the adapter was recorded.
    """
    adapter = _resource(document["subject"], sha256=adapter_digest(document))
    yield _statement(adapter, PROVENANCE, _provenance(document, builder))
    if document["gate"]["checks"] is not None:
        yield _statement(adapter, TEST_RESULT, _gate_results(document))
    data = _data(document)
    if data is not None and document["validation"]["success"] is not None:
        yield _statement(data, TEST_RESULT, _validation_results(document))


def _statement(subject: Any, predicate_type: str, predicate: Any) -> Statement:
    from in_toto_attestation.v1.statement import Statement

    statement = Statement([subject], predicate_type, _plain(predicate))
    statement.validate()
    return statement


def _provenance(document: Document, builder: str) -> Any:
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2 as slsa

    run = document["training"]
    definition = slsa.BuildDefinition(
        build_type=BUILD_TYPE, resolved_dependencies=_dependencies(document)
    )
    definition.external_parameters.update(
        _known(task=document["task"], recipe=run["recipe"], seed=run["seed"])
    )
    definition.internal_parameters.update(
        _known(device=run["device"], hardware=run["hardware"], threads=run["threads"])
    )
    environment = document["environment"]
    versions = ("python", "torch", "torchvision", "timm")
    details = slsa.RunDetails(
        builder=slsa.Builder(
            id=builder, version=_known(**{name: environment[name] for name in versions})
        ),
        metadata=slsa.BuildMetadata(
            invocation_id=run["run_id"] or "",
            started_on=_moment(run["started"]),
            finished_on=_moment(run["ended"]),
        ),
        byproducts=_reports(document),
    )
    return slsa.Provenance(build_definition=definition, run_details=details)


def _dependencies(document: Document) -> list[Any]:
    """Return what the adapter was made of; what was not recorded is left out."""
    data, backbone = document["data"], document["backbone"]
    folder = f"data/{document['task']}"
    found = [
        _data(document),
        _resource("data.dvc", sha256=data["dvc_file"]),
        _resource("workspace", {"dirty": data["dirty"]}, gitCommit=data["commit"]),
        *(
            _resource(
                f"{folder}/{one['path']}",
                {"split": one["split"], "class": one["class"]},
                sha256=one["sha256"],
            )
            for one in data["images"] or ()
        ),
        _resource(
            f"backbone {backbone['name']}",
            {name: backbone[name] for name in ("source", "licence", "architecture", "pretrained")},
            clrBackbone=backbone["digest"],
        ),
        _resource("backbone file", sha256=backbone["sha256"]),
        _resource("code", clrCode=document["code"]["digest"]),
        _resource("environment", clrEnvironment=document["environment"]["digest"]),
    ]
    return [one for one in found if one is not None]


def _data(document: Document) -> Any:
    data = document["data"]
    return _resource(
        f"data/{document['task']}",
        {name: data[name] for name in ("train", "test", "classes", "remote")},
        clrManifest=data["manifest"],
        dvcDir=data["digest"],
    )


def _reports(document: Document) -> list[Any]:
    checked, gate = document["validation"], document["gate"]
    found = [
        _resource(checked["artifact"] or "validation", sha256=checked["digest"]),
        _resource("evidence/evidence.safetensors", sha256=gate["evidence"]),
        _resource("gate/gate.json", sha256=gate["digest"]),
    ]
    return [one for one in found if one is not None]


def _gate_results(document: Document) -> Any:
    """Return the gate's checks as test results, by ``name:task``.

    A check that could not be decided has not passed, and is among the failed ones.
    """
    from in_toto_attestation.predicates.test_result.v0 import test_result_pb2 as test

    gate = document["gate"]
    passed = [_key(one) for one in gate["checks"] if one["verdict"] == "pass"]
    failed = [_key(one) for one in gate["checks"] if one["verdict"] != "pass"]
    shown = [
        _resource("gate/gate.json", {"verdict": gate["verdict"]}, sha256=gate["digest"]),
        _resource("release it was judged against", sha256=gate["release"]),
        _resource("evidence/evidence.safetensors", sha256=gate["evidence"]),
        *(
            _resource(_key(one), _figures(one), clrEvidence=one["evidence"])
            for one in gate["checks"]
        ),
    ]
    return test.TestResult(
        result="PASSED" if gate["verdict"] == "pass" and not failed else "FAILED",
        configuration=[one for one in shown if one is not None],
        passed_tests=passed,
        failed_tests=failed,
    )


def _validation_results(document: Document) -> Any:
    from in_toto_attestation.predicates.test_result.v0 import test_result_pb2 as test

    checked = document["validation"]
    warnings = checked["warnings"] or []
    passed = "WARNED" if warnings else "PASSED"
    report = _resource(
        checked["artifact"] or "validation",
        {"expectations": checked["expectations"]},
        sha256=checked["digest"],
    )
    return test.TestResult(
        result=passed if checked["success"] else "FAILED",
        configuration=[] if report is None else [report],
        warned_tests=warnings,
    )


def _key(check: Document) -> str:
    return f"{check['name']}:{check['task']}"


def _figures(check: Document) -> dict[str, Any]:
    return {name: check[name] for name in ("verdict", "how", "observed", "limit", "n")}


def _resource(name: str, facts: Document | None = None, **digests: str | None) -> Any:
    """Return a ResourceDescriptor; None where no digest of the thing was recorded.

    Args:
        name: of the thing.
        facts: annotations; those that are null or empty are left out.
        digests: of it by algorithm, as the document writes them.
    """
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor

    known = {name: value for name, value in digests.items() if value}
    if not known:
        return None
    plain = {
        algorithm: hexadecimal(value) if ":" in value else value
        for algorithm, value in known.items()
    }
    found = ResourceDescriptor(name=name, digest=plain, annotations=_known(**(facts or {})))
    found.validate()
    return found.pb


def _known(**facts: Any) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None and value != ""}


def _moment(time: str | None) -> Any:
    from google.protobuf.timestamp_pb2 import Timestamp

    if time is None:
        return None
    moment = Timestamp()
    moment.FromJsonString(time)
    return moment


def _plain(message: Any) -> dict[str, Any]:
    """Return a message as its JSON says it."""
    from google.protobuf.json_format import MessageToDict

    found: dict[str, Any] = MessageToDict(message)
    return found
