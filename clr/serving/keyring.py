"""The keys as a running server knows them: each change of the file counts at once."""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from clr.errors import ClrError, ServiceUnavailable, UsageError
from clr.serving.errors import Problem
from clr.serving.keys import (
    METRICS_KEY,
    SCOPES,
    Key,
    digest,
    id_of,
    keys_path,
    metrics_key,
    read_keys,
)
from clr.settings import Settings

LOG = logging.getLogger("clr")

LOCAL = Key("0" * 12, "local", "", SCOPES)
"""Who everybody is on a loopback address without keys."""

_NOBODY = "0" * 64


class KeyRing:
    """The keys of one file, read again whenever it changes.

    A file that is gone lets nobody in. One that cannot be read changes nothing, and the log
    says so: a slip of an editor must not stop a line.
    """

    def __init__(
        self,
        path: Path,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        more: Sequence[Key] = (),
    ) -> None:
        """Read the file.

        Args:
            path: of the file.
            now: the time.
            more: keys that are in no file.

        Raises:
            ClrError: see `read_keys`.
        """
        self._path, self._now, self._more = path, now, tuple(more)
        self._seen = self._signature()
        self._keys = self._read()
        self._problem = ""

    def find(self, written: str) -> Key:
        """Return the key that somebody shows.

        Raises:
            Problem: it is not known, revoked or expired.
        """
        self._follow()
        key = self._keys.get(id_of(written))
        # compared in any case, so that time does not tell which ids there are
        same = hmac.compare_digest(digest(written), key.sha256 if key else _NOBODY)
        if key is None or not same or key.revoked:
            raise Problem("key-refused", "The API key is not known or was revoked.")
        if key.has_expired(self._now()):
            raise Problem("key-expired", f"The API key expired at {key.expires}.")
        return key

    def usable(self) -> int:
        """Return how many keys let somebody in now."""
        self._follow()
        now = self._now()
        return sum(not one.revoked and not one.has_expired(now) for one in self._keys.values())

    def _follow(self) -> None:
        seen = self._signature()
        if seen == self._seen:
            return
        try:
            self._keys, self._seen, problem = self._read(), seen, ""
        except ServiceUnavailable as error:  # too many open files, say: the next request tries
            problem = str(error)
        except ClrError as error:
            self._seen, problem = seen, str(error)
        if problem and problem != self._problem:
            LOG.error("keys      unchanged: %s", problem)
        self._problem = problem

    def _read(self) -> dict[str, Key]:
        return {one.id: one for one in (*read_keys(self._path), *self._more)}

    def _signature(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def open_keys(settings: Settings, host: str) -> KeyRing | None:
    """Return the keys for a server on an address; None where it needs none.

    Args:
        settings: ``serve_keys`` says whether keys are asked for.
        host: where it listens.

    Raises:
        UsageError: others than this machine could call it without a key, or nobody at all.
        ClrError: the file of keys cannot be used.
    """
    local = is_loopback(host)
    if not settings.serve_keys:
        if local:
            return None
        raise UsageError(
            f"CLR_SERVE_KEYS is false, and {host} can be reached from other machines.",
            fix="Set CLR_SERVE_KEYS=true and make a key (clr keys add NAME), or listen on "
            "127.0.0.1.",
        )
    written = os.environ.get(METRICS_KEY, "")
    ring = KeyRing(keys_path(settings.state), more=[metrics_key(written)] if written else [])
    if not local and not ring.usable():
        raise UsageError(
            f"There is no API key that works, so nobody could call the server on {host}.",
            fix="Make one first: clr keys add NAME",
        )
    return ring


def is_loopback(host: str) -> bool:
    """Say whether an address can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
