"""Private keys in files of their own: made once, whole or absent, readable by their owner only."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from clr.errors import IntegrityBroken, ServiceUnavailable

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey
PublicKey = Ed25519PublicKey | EllipticCurvePublicKey


def private_key(path: Path, make: Callable[[], PrivateKey]) -> bytes:
    """Return the bytes of the private key at `path`, which `make` makes if there is none.

    Safe among processes that all come first: one key wins, whole.

    Raises:
        IntegrityBroken: others may read the file.
        ServiceUnavailable: the folder cannot be written or the key not read.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            place(path, private_pem(make()), 0o600)
        mode = stat.S_IMODE(path.stat().st_mode)
        data = path.read_bytes()
    except OSError as error:
        raise ServiceUnavailable(
            f"The signing key {path} cannot be used: {error.strerror or error}.",
            fix="Make the folder writable for this user, or free some disk space.",
            path=str(path),
        ) from error
    if mode & 0o077:
        raise IntegrityBroken(
            f"The signing key {path} has mode {mode:04o}: others may read or write it.",
            fix=f"See who could have read it, then run `chmod 600 {path}`.",
            path=str(path),
        )
    return data


def publish(path: Path, key: PublicKey) -> None:
    """Write the public key `key` to `path` for everybody, unless a file is there.

    Raises:
        ServiceUnavailable: it cannot be written.
    """
    if path.exists():
        return
    try:
        place(path, public_pem(key), 0o644)
    except OSError as error:
        raise ServiceUnavailable(
            f"The public key {path} cannot be written: {error.strerror or error}.",
            fix="Make the folder writable for this user, or free some disk space.",
            path=str(path),
        ) from error


def private_pem(key: PrivateKey) -> bytes:
    """Return a private key as PEM (PKCS #8, not encrypted)."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(key: PublicKey) -> bytes:
    """Return a public key as PEM (SubjectPublicKeyInfo)."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def place(path: Path, data: bytes, mode: int) -> None:
    """Put a whole file at `path` unless one is there: a link, unlike a rename, never replaces.

    Raises:
        OSError: the folder is not there or not writable, or the disk is full.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()
