"""Digests, canonical JSON and files that are whole or absent."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clr.errors import UsageError

_CHUNK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Return ``sha256:<64 hex>`` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return ``sha256:<64 hex>`` of a file's bytes.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return "sha256:" + digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return `value` as JSON with sorted keys and no white space, UTF-8.

    Equal values give equal bytes, so that a digest of them means something.

    Raises:
        UsageError: not JSON, or a number that is not finite.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"This cannot be written as JSON: {error}.", fix="Use plain finite values."
        ) from error


def write_atomic(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file that after any crash is the old one or the new one, never a part.

    Args:
        path: of the file; its folder is made.
        data: all of it.
        mode: permissions, of which the umask takes some away.

    Raises:
        OSError: the disk is full, the folder is not writable, …; the old file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    # opened so that the system applies the umask, which a thread cannot read without setting it
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made; who else holds it so is waited for.

    The folder itself is locked, so that no file for it lies around; the system frees it if this
    process dies.

    Raises:
        OSError: it cannot be made or opened, or its file system locks no folders (NFS).
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
