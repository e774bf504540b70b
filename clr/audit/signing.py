"""Ed25519 keys of this installation, and signed heads of the ledger.

The private key is made on first use and stays in one file with mode 0600; its
public key lies beside it under its own digest. Public keys of other machines
that write to the same ledger are trusted by putting their ``.pub`` file there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rfc8785
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from clr.audit.key_files import place, private_key, private_pem, public_pem, publish
from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

SCHEMA = "clr.ledger-head/1"
PRIVATE_NAME = "ledger.key"
_END = "-----END PUBLIC KEY-----"


@dataclass(frozen=True)
class Head:
    """The ledger's last entry at some moment, signed: all earlier entries follow from it.

    Attributes:
        seq: number of entries then.
        hash: hash of entry `seq`.
        key_id: ``sha256:<hex>`` of the raw public key.
        signature: base64 Ed25519 signature over the canonical JSON of seq, hash and schema.
    """

    seq: int
    hash: str
    key_id: str
    signature: str

    def to_json(self) -> bytes:
        """Return the head as the bytes of a JSON file."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes | str, where: str = "a ledger head") -> Head:
        """Read a head written by `to_json`.

        Raises:
            IntegrityBroken: not such a document.
        """
        try:
            fields = json.loads(data)
            if not isinstance(fields, dict) or fields.pop("schema") != SCHEMA:
                raise ValueError("unknown schema")
            head = cls(**fields)
            if type(head.seq) is not int or not all(
                isinstance(value, str) for value in (head.hash, head.key_id, head.signature)
            ):
                raise ValueError("wrong types")
            return head
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise IntegrityBroken(
                f"{where} is not a signed ledger head: {error}.",
                fix="Restore the file from a backup, then run `clr verify`.",
            ) from error


class Signer:
    """A private key in memory; it signs heads, and envelopes through `crypto_signer`."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key()
        self.key_id = key_id(self.public)

    def sign(self, seq: int, entry_hash: str) -> Head:
        """Return the signed head for entry `seq` with hash `entry_hash`."""
        signature = base64.b64encode(self._private.sign(_message(seq, entry_hash))).decode()
        return Head(seq, entry_hash, self.key_id, signature)

    def crypto_signer(self) -> CryptoSigner:
        """Return this key as securesystemslib signs DSSE envelopes with it.

        What an envelope signs starts with ``DSSEv1``, what a head signs is a JSON object: a
        signature of the one is never one of the other.
        """
        from securesystemslib.signer import CryptoSigner

        return CryptoSigner(self._private)


def key_id(public: Ed25519PublicKey) -> str:
    """Return ``sha256:<hex>`` of the 32 raw bytes of a public key."""
    return "sha256:" + hashlib.sha256(public.public_bytes_raw()).hexdigest()


def is_signed(head: Head, trusted: Mapping[str, Ed25519PublicKey]) -> bool:
    """Say whether a trusted key made the signature of `head`."""
    public = trusted.get(head.key_id)
    if public is None:
        return False
    try:
        public.verify(
            base64.b64decode(head.signature, validate=True), _message(head.seq, head.hash)
        )
    except (InvalidSignature, ValueError):
        return False
    return True


def load_signer(folder: Path) -> Signer:
    """Load the private key of `folder`, made there first if there is none.

    Safe among processes that all come first: one key wins, whole.

    Raises:
        IntegrityBroken: the key file is no Ed25519 key, or others may read it.
        ServiceUnavailable: the folder cannot be written or the key not read.
    """
    path = folder / PRIVATE_NAME
    data = private_key(path, Ed25519PrivateKey.generate)
    signer = Signer(_parse_private(data, path))
    _publish(signer.public, folder)
    return signer


def trusted_keys(folder: Path) -> dict[str, Ed25519PublicKey]:
    """Return the public keys of all ``.pub`` files in `folder`, by key id.

    Raises:
        IntegrityBroken: a ``.pub`` file is no Ed25519 public key.
        ServiceUnavailable: a file cannot be read.
    """
    keys: dict[str, Ed25519PublicKey] = {}
    for path in sorted(folder.glob("*.pub")):
        try:
            public = serialization.load_pem_public_key(path.read_bytes())
        except OSError as error:
            raise ServiceUnavailable(
                f"The public key {path} cannot be read: {error.strerror or error}.",
                fix="Make it readable for this user.",
            ) from error
        except (ValueError, UnsupportedAlgorithm):
            public = None
        if not isinstance(public, Ed25519PublicKey):
            raise IntegrityBroken(
                f"{path} is not an Ed25519 public key in PEM form.",
                fix="Restore it from a backup or remove it.",
                path=str(path),
            )
        keys[key_id(public)] = public
    return keys


def new_key(private: str = "") -> tuple[str, str]:
    """Return a private key and its public one, both as PEM; the key `private` where one is given.

    Raises:
        IntegrityBroken: `private` is no Ed25519 key.
    """
    key = (
        _parse_private(private.encode(), Path("the key"))
        if private
        else Ed25519PrivateKey.generate()
    )
    return private_pem(key).decode(), public_pem(key.public_key()).decode()


def place_keys(folder: Path, private: str, trusted: str) -> None:
    """Put keys that were made elsewhere into `folder`; putting them again changes nothing.

    Args:
        folder: of the keys of this installation.
        private: its own, PEM.
        trusted: public keys of all who write to the same ledger, PEM after PEM.

    Raises:
        UsageError: the folder has another private key.
        IntegrityBroken: something is no Ed25519 key.
        ServiceUnavailable: the folder cannot be written.
    """
    key, path = _parse_private(private.encode(), Path("the given key")), folder / PRIVATE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            place(path, private_pem(key), 0o600)
    except OSError as error:
        raise ServiceUnavailable(
            f"The keys of the ledger cannot be written to {folder}: {error.strerror or error}.",
            fix="Make the folder writable for this user.",
        ) from error
    signer = load_signer(folder)
    if signer.key_id != key_id(key.public_key()):
        raise UsageError(
            f"{path} is another key than the one given, which is {key_id(key.public_key())}.",
            fix="Give the key that this installation signed with so far.",
        )
    trust(folder, trusted)


def trust(folder: Path, pems: str) -> None:
    """Put public keys into the folder `folder`, from where they are trusted.

    Args:
        folder: is there.
        pems: PEM after PEM.

    Raises:
        IntegrityBroken: one is no Ed25519 public key.
        ServiceUnavailable: the folder cannot be written.
    """
    for pem in pems.split(_END)[:-1]:
        try:
            public = serialization.load_pem_public_key((pem + _END).encode())
        except (ValueError, UnsupportedAlgorithm):
            public = None
        if not isinstance(public, Ed25519PublicKey):
            raise IntegrityBroken(
                "Among the trusted keys is one that is no Ed25519 public key.",
                fix="Give the public keys of all who write to the ledger, in PEM form.",
            )
        _publish(public, folder)


def _message(seq: int, entry_hash: str) -> bytes:
    return rfc8785.dumps({"schema": SCHEMA, "seq": seq, "hash": entry_hash})


def _publish(public: Ed25519PublicKey, folder: Path) -> None:
    publish(folder / f"{key_id(public).removeprefix('sha256:')[:16]}.pub", public)


def _parse_private(data: bytes, path: Path) -> Ed25519PrivateKey:
    try:
        private: Any = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise IntegrityBroken(
            f"{path} is not an Ed25519 private key in PEM form.",
            fix="Restore it from a backup; a new key is made when the file is gone.",
            path=str(path),
        )
    return private
