"""The file beside the ledger with the newest signed head that this machine has seen."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

from clr.audit.signing import Head
from clr.core.files import write_atomic
from clr.errors import ServiceUnavailable

LOG = logging.getLogger(__name__)


def read_head(path: Path) -> Head | None:
    """Return the kept head; None where there is none yet.

    Raises:
        IntegrityBroken: the file is not one.
        ServiceUnavailable: it cannot be read.
    """
    try:
        return Head.from_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServiceUnavailable(
            f"The ledger head {path} cannot be read: {error.strerror or error}.",
            fix="Make it readable for this user.",
        ) from error


def keep_head(path: Path, head: Head, *, strictly: bool = False) -> None:
    """Write `head` to its file unless a newer one is there.

    Args:
        path: of the file.
        head: whose entry is durable already.
        strictly: whether it matters that it cannot be written; else the next one does it.

    Raises:
        ServiceUnavailable: it cannot be written, strictly.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = read_head(path)
            if kept is None or kept.seq < head.seq:
                write_atomic(path, head.to_json())
    except OSError as error:
        if strictly:
            raise ServiceUnavailable(
                f"The ledger head {path} cannot be written: {os.strerror(error.errno or 0)}.",
                fix="Free some disk space, or make the folder writable for this user.",
            ) from error
        LOG.warning("The ledger head %s could not be updated: %s", path, error)
