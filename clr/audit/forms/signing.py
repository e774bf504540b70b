"""OpenSSF model signing of an adapter's bundle: the registered model's folder as it is fetched.

The signature is a Sigstore bundle over the sha256 of every file, made and verified by the library
``model-signing`` (https://github.com/sigstore/model-transparency). It takes keys on NIST's curves
only, so this installation has a P-256 key beside the ledger's Ed25519 key; an entry of the ledger
says that it is its own.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clr.audit.chain import Entry
from clr.audit.key_files import private_key, public_pem, publish
from clr.audit.ledger import Ledger
from clr.core.files import sha256_bytes
from clr.errors import IntegrityBroken

PRIVATE_NAME = "model-signing.key"
PUBLIC_NAME = "model-signing.pem"
ENDORSED = "key.endorsed"


@dataclass(frozen=True)
class BundleKey:
    """The P-256 key that signs bundles.

    Attributes:
        path: of the private key, PEM.
        public: the public key, PEM.
    """

    path: Path
    public: bytes

    @property
    def key_id(self) -> str:
        """``sha256:<hex>`` of the public key's PEM; signatures name it as their key's hint."""
        return sha256_bytes(self.public)


def bundle_key(folder: Path) -> BundleKey:
    """Return the key in `folder`, made there first if there is none; its public key beside it.

    Raises:
        IntegrityBroken: the file is no P-256 key, or others may read it.
        ServiceUnavailable: the folder cannot be written or the key not read.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    path = folder / PRIVATE_NAME
    data = private_key(path, lambda: ec.generate_private_key(ec.SECP256R1()))
    try:
        private: Any = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not (
        isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1)
    ):
        raise IntegrityBroken(
            f"{path} is not a P-256 private key in PEM form.",
            fix="Restore it from a backup; a new key is made when the file is gone.",
            path=str(path),
        )
    publish(folder / PUBLIC_NAME, private.public_key())
    return BundleKey(path, public_pem(private.public_key()))


def endorse(ledger: Ledger, key: BundleKey, *, actor: str, authentication: str) -> Entry:
    """Return the ledger's entry that says whose key this is; written once, signed with its key.

    Raises:
        IntegrityBroken: the ledger is broken; nothing is written.
        ServiceUnavailable: it cannot be written.
    """
    return ledger.append(
        ENDORSED,
        f"key {key.key_id}",
        {"purpose": "model-signing", "algorithm": "ecdsa-p256", "public": key.public.decode()},
        actor=actor,
        authentication=authentication,
        key=f"{ENDORSED} {key.key_id}",
    )


def sign(folder: Path, key: BundleKey) -> bytes:
    """Return the signature (a Sigstore bundle, JSON) of all files below `folder`.

    Raises:
        IntegrityBroken: the folder cannot be signed: it is missing, or has links.
    """
    from model_signing import signing

    make: Any = signing.Config  # its constructor has no type hints
    config = make().use_elliptic_key_signer(private_key=key.path)
    with tempfile.TemporaryDirectory() as place:
        signature = Path(place, "model.sig")
        try:
            config.sign(folder, signature)
        except ValueError as error:
            raise IntegrityBroken(
                f"The bundle in {folder} cannot be signed: {error}.",
                fix="Fetch it anew: it has to be the files of one model and nothing else.",
            ) from error
        return signature.read_bytes()
