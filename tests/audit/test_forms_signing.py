"""Model signing: what its own command line says about a signed bundle."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clr.audit.forms import signing
from clr.audit.signing import trusted_keys
from clr.errors import IntegrityBroken

ACTOR = {"actor": "ada", "authentication": "local-os-user"}


@pytest.fixture
def keys(state: Path) -> Path:
    return state / "keys"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "artifacts").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "artifacts/adapter.safetensors").write_bytes(b"adapter")
    return folder


def verify(bundle: Path, signature: Path, public: Path) -> subprocess.CompletedProcess[str]:
    """Run the command that docs/audit-forms.md tells a third party to run."""
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(bundle)]
    options = ["--signature", str(signature), "--public_key", str(public)]
    return subprocess.run(command + options, capture_output=True, text=True, check=False)


def test_its_own_command_line_verifies_the_bundle_and_names_a_changed_file(bundle, keys, tmp_path):
    signature = tmp_path / "model.sig"
    signature.write_bytes(signing.sign(bundle, signing.bundle_key(keys)))
    assert verify(bundle, signature, keys / "model-signing.pem").returncode == 0
    (bundle / "artifacts/adapter.safetensors").write_bytes(b"adapteR")
    refused = verify(bundle, signature, keys / "model-signing.pem")
    assert refused.returncode != 0
    assert "adapter.safetensors" in refused.stdout + refused.stderr


def test_the_key_is_made_once_private_and_is_no_key_of_the_ledger(keys):
    assert signing.bundle_key(keys) == signing.bundle_key(keys)
    assert stat.S_IMODE((keys / "model-signing.key").stat().st_mode) == 0o600
    assert not trusted_keys(keys)


@pytest.mark.parametrize("curve", [None, ec.SECP384R1()])
def test_a_key_file_of_another_form_is_refused(keys, curve):
    key = signing.bundle_key(keys)
    other = b"nonsense"
    if curve is not None:
        other = ec.generate_private_key(curve).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    key.path.write_bytes(other)
    with pytest.raises(IntegrityBroken, match="P-256"):
        signing.bundle_key(keys)


def test_the_ledger_says_once_whose_key_signed(bundle, keys, ledger):
    key = signing.bundle_key(keys)
    entry = signing.endorse(ledger, key, **ACTOR)
    assert signing.endorse(ledger, key, **ACTOR) == entry
    hint = json.loads(signing.sign(bundle, key))["verificationMaterial"]["publicKey"]["hint"]
    assert entry.subject == f"key sha256:{hint}"
    assert entry.payload["public"] == (keys / "model-signing.pem").read_text()
    assert ledger.verify() == []


def test_a_folder_with_a_link_is_not_signed(bundle, keys):
    (bundle / "elsewhere").symlink_to("/etc/hostname")
    with pytest.raises(IntegrityBroken, match="cannot be signed"):
        signing.sign(bundle, signing.bundle_key(keys))
