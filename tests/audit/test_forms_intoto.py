"""in-toto bundles: what a third party reads from their bytes with the reference libraries."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from google.protobuf.json_format import Parse, ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from clr.audit import document as form
from clr.audit.forms import intoto
from clr.audit.signing import load_signer
from clr.errors import IntegrityBroken, UsageError
from tests.audit import documents

PREDICATES = {intoto.PROVENANCE: Provenance, intoto.TEST_RESULT: test_result_pb2.TestResult}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def verified(bundle: str, keys: Path) -> list[Statement]:
    """Return the statements of a bundle; every one is verified with the public key file alone."""
    (public,) = keys.glob("*.pub")
    key = SSlibKey.from_crypto(serialization.load_pem_public_key(public.read_bytes()))
    found = []
    for line in bundle.splitlines():
        envelope = Envelope.from_dict(json.loads(line))
        envelope.verify([key], threshold=1)
        assert envelope.payload_type == "application/vnd.in-toto+json"
        statement = Statement.copy_from_pb(Parse(envelope.payload, statement_pb2.Statement()))
        statement.validate()
        found.append(statement)
    return found


def predicates(document: documents.Document, keys: Path) -> list:
    """Return the predicates of a document's bundle, each parsed strictly as its type says."""
    found = []
    for line in intoto.render(document, load_signer(keys)).splitlines():
        payload = json.loads(base64.b64decode(json.loads(line)["payload"]))
        found.append(ParseDict(payload["predicate"], PREDICATES[payload["predicateType"]]()))
    return found


def test_the_reference_libraries_verify_every_statement_with_the_public_key_file(keys):
    bundle = intoto.render(documents.document(), load_signer(keys))
    statements = verified(bundle, keys)
    assert [one.pb.predicate_type for one in statements] == [
        "https://slsa.dev/provenance/v1",
        "https://in-toto.io/attestation/test-result/v0.1",
        "https://in-toto.io/attestation/test-result/v0.1",
    ]
    adapter = documents.document()["adapter"]["digest"].removeprefix("sha256:")
    assert [dict(one.pb.subject[0].digest) for one in statements[:2]] == [{"sha256": adapter}] * 2


def test_the_program_that_the_documentation_gives_a_third_party_verifies_it(keys, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "audit-forms.md").read_text(encoding="utf-8")
    program = page.partition("```python\n")[2].partition("```")[0]
    bundle = tmp_path / "animals.intoto.jsonl"
    bundle.write_text(intoto.render(documents.document(), load_signer(keys)))
    (public,) = keys.glob("*.pub")
    done = subprocess.run(
        [sys.executable, "-c", program, str(bundle), str(public)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("https://in-toto.io/attestation/test-result/v0.1") == 2


def test_another_key_or_one_changed_byte_is_refused(keys, tmp_path):
    bundle = intoto.render(documents.document(), load_signer(keys))
    load_signer(tmp_path / "other")
    with pytest.raises(VerificationError):
        verified(bundle, tmp_path / "other")
    envelope = json.loads(bundle.splitlines()[0])
    payload = base64.b64decode(envelope["payload"]).replace(b"animals", b"animalz")
    envelope["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(VerificationError):
        verified(json.dumps(envelope), keys)


def test_provenance_names_all_that_the_adapter_was_made_of(keys):
    document = documents.document()
    provenance = predicates(document, keys)[0]
    made_of = {
        one.name: dict(one.digest) for one in provenance.build_definition.resolved_dependencies
    }
    assert made_of == {
        "data/animals": {"clrManifest": _hex("manifest"), "dvcDir": "1" * 32},
        "data.dvc": {"sha256": _hex("data.dvc")},
        "workspace": {"gitCommit": "2" * 40},
        "data/animals/train/cat/a.png": {"sha256": _hex("a")},
        "data/animals/test/dog/b.png": {"sha256": _hex("b")},
        "backbone tf_efficientnet_lite0": {"clrBackbone": _hex("backbone")},
        "code": {"clrCode": _hex("code")},
        "environment": {"clrEnvironment": _hex("environment")},
    }
    assert provenance.build_definition.external_parameters["recipe"]["epochs"] == 12


def test_provenance_says_who_built_when_and_in_which_run(keys):
    details = predicates(documents.document(), keys)[0].run_details
    assert details.builder.id == f"urn:clr:installation:{load_signer(keys).key_id}"
    assert dict(details.builder.version)["torch"] == "2.11.0"
    assert details.metadata.invocation_id == "0123456789abcdef0123456789abcdef"
    assert details.metadata.started_on.ToJsonString() == "2026-11-24T09:00:00Z"
    assert details.metadata.finished_on.ToJsonString() == "2026-11-24T09:02:03.500Z"


def test_the_gates_checks_are_test_results_with_what_each_was_shown(keys):
    result = predicates(documents.document(), keys)[1]
    assert result.result == "PASSED"
    assert list(result.passed_tests) == ["improvement:animals", "retention:digits"]
    shown = {one.name: dict(one.digest) for one in result.configuration}
    assert shown["gate/gate.json"] == {"sha256": _hex("gate")}
    assert shown["retention:digits"] == {"clrEvidence": _hex("retention digits")}


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_a_check_that_did_not_pass_is_a_failed_test_of_a_failed_gate(keys, verdict):
    document = documents.document()
    document["gate"]["checks"][1] = documents.check("retention", "digits", verdict)
    document["gate"]["verdict"] = verdict
    result = predicates(document, keys)[1]
    assert (result.result, list(result.failed_tests)) == ("FAILED", ["retention:digits"])


def test_warnings_of_the_validation_are_warned_tests_of_the_data(keys):
    result = predicates(documents.document(), keys)[2]
    assert (result.result, list(result.warned_tests)) == (
        "WARNED",
        ["2 images are nearly the same"],
    )


def test_of_a_version_that_recorded_next_to_nothing_only_the_provenance_is_stated(keys):
    (statement,) = verified(intoto.render(documents.old(), load_signer(keys)), keys)
    assert statement.pb.subject[0].name == "clr-animals/3"


def test_without_a_digest_of_the_adapter_nothing_is_attested(keys):
    document = documents.document()
    document["adapter"]["digest"] = None
    with pytest.raises(UsageError, match="clr-animals/3"):
        intoto.render(document, load_signer(keys))


def test_of_a_broken_chain_nothing_is_signed(keys):
    with pytest.raises(IntegrityBroken, match="Nothing was signed"):
        intoto.render(documents.broken(), load_signer(keys))


@pytest.mark.parametrize("make", [documents.document, documents.old, documents.broken])
def test_the_documents_of_these_tests_have_the_published_form(make):
    form.check(make())


def _hex(words: str) -> str:
    return documents.sha256(words).removeprefix("sha256:")
