"""`clr audit` in standard forms: a third party verifies what it exports, with the files alone."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives import serialization
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from clr.audit.ledger import open_ledger
from clr.core.files import sha256_file
from clr.errors import IntegrityBroken, UsageError


@pytest.fixture(scope="module")
def plant(template, copy_of, tmp_path_factory) -> Any:
    return copy_of(template.plant, tmp_path_factory.mktemp("forms") / "plant")


def ledger_key(plant: Any) -> Any:
    (public,) = (plant.state / "keys").glob("*.pub")
    return serialization.load_pem_public_key(public.read_bytes())


def test_the_in_toto_bundle_is_verified_with_the_ledgers_public_key(plant, tmp_path):
    file = tmp_path / "red-caps.intoto.jsonl"
    assert plant.clr("audit", "red-caps@1", "--format", "intoto", "--output", file).code == 0
    envelopes = [Envelope.from_dict(json.loads(line)) for line in file.read_text().splitlines()]
    for envelope in envelopes:
        envelope.verify([SSlibKey.from_crypto(ledger_key(plant))], threshold=1)
    provenance = json.loads(envelopes[0].payload)
    adapters = {sha256_file(path) for path in plant.state.rglob("adapter.safetensors")}
    assert f"sha256:{provenance['subject'][0]['digest']['sha256']}" in adapters


def test_the_signed_bundle_is_verified_by_model_signings_own_command(plant, tmp_path):
    home = tmp_path / "signed"
    asked = ("audit", "red-caps@1", "--format", "model-signing", "--output", home)
    assert plant.clr(*asked).code == 0
    command = [sys.executable, "-m", "model_signing", "verify", "key", "clr-red-caps-1"]
    options = ["--signature", "model.sig", "--public_key", "model-signing.pem"]
    done = subprocess.run(command + options, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert (home / "clr-red-caps-1" / "registered_model_meta").is_file(), "as MLflow gives it"
    assert plant.clr(*asked).code == UsageError.exit_code, "a folder that is there is left alone"
    assert plant.clr("verify").code == 0, "the endorsement is no act from outside"


def test_the_ledgers_key_vouches_for_the_key_that_signs_bundles(plant, tmp_path):
    home = tmp_path / "signed"
    plant.clr("audit", "red-caps@1", "--format", "model-signing", "--output", home)
    entry = json.loads((home / "endorsement.json").read_text())
    assert entry["payload"]["public"] == (home / "model-signing.pem").read_text()
    head = {"schema": "clr.ledger-head/1", "seq": entry["seq"], "hash": entry["hash"]}
    ledger_key(plant).verify(base64.b64decode(entry["signature"]), rfc8785.dumps(head))
    assert len(list(open_ledger(plant.state).entries(action="key.endorsed"))) == 1


@pytest.mark.parametrize("form", ["intoto", "model-signing"])
def test_nothing_is_signed_where_a_link_is_broken(plant, copy_of, tmp_path, form):
    broken = copy_of(plant, tmp_path / "plant")
    for adapter in (broken.state / "artifacts").rglob("adapter.safetensors"):
        adapter.chmod(0o644)
        adapter.write_bytes(adapter.read_bytes() + b"x")
    answer = broken.clr("audit", "red-caps", "--format", form, "--output", tmp_path / "out")
    assert answer.code == IntegrityBroken.exit_code
    assert "Nothing was signed" in answer.err
    assert not (tmp_path / "out").exists()


def test_openlineage_events_go_to_what_its_library_is_told(plant, tmp_path):
    settings = {
        "OPENLINEAGE__TRANSPORT__TYPE": "file",
        "OPENLINEAGE__TRANSPORT__LOG_FILE_PATH": str(tmp_path / "events.jsonl"),
        "OPENLINEAGE__TRANSPORT__APPEND": "true",
    }
    asked = ("audit", "red-caps@1", "--format", "openlineage")
    assert plant.clr(*asked, "--send", **settings).code == 0
    assert (tmp_path / "events.jsonl").read_text().strip() == plant.clr(*asked).out.strip()


@pytest.mark.parametrize(
    "options",
    [
        ("--send",),
        ("--format", "openlineage", "--send", "--output", "events.jsonl"),
        ("--format", "model-signing"),
    ],
)
def test_options_that_do_not_fit_are_a_usage_error(plant, options):
    assert plant.clr("audit", "red-caps", *options).code == UsageError.exit_code
