"""Locks: of a workspace, and of everything that shares one Prefect server.

A workspace's lock is a file's, which the system frees when its holder dies. Machines that work
on one registry exclude each other by a global concurrency limit of Prefect's server with one
slot: its holder renews a lease, and once the holder is gone the slot is free again after
`LEASE_SECONDS` and a look of the server. ``python -m flows.deployments`` makes the limits; on a
server that has none (one that is started for a single command) the file is enough.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from clr.errors import ServiceUnavailable
from clr.settings import Settings
from flows import prefect_api, running

LOG = logging.getLogger("clr")
SECONDS = 3600.0
"""How long a lock is waited for."""

LEASE_SECONDS = 60.0
"""The shortest that Prefect's server lends a slot for."""

RENEW_SECONDS = LEASE_SECONDS / 4

SHARED = ("registry", "promote")
"""Locks that machines share."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
_LATER = (423, 429, 503)
"""Answers that may be another one soon: lent to somebody, too many asked, its database busy."""

_TOLD_SECONDS = 60.0
_PREFIX = "clr-"
_LEASES = "concurrency_leases"
"""Below the home of Prefect's server: see flows/prefect_server.py."""


def limit_of(name: str) -> str:
    """Return the name of a lock's global concurrency limit."""
    return f"{_PREFIX}{name}"


@contextmanager
def hold(settings: Settings, name: str) -> Iterator[None]:
    """Hold the lock `name`, of the workspace and, where it is one of `SHARED`, of all machines.

    Raises:
        ServiceUnavailable: somebody else held it for an hour, or Prefect's server, which
            lends it, cannot be reached.
    """
    deadline = time.monotonic() + SECONDS
    with _file(settings, name, deadline):
        if name in SHARED and os.environ.get(running.API):
            with _slot(settings, name, deadline):
                yield
        else:
            yield


def leases(settings: Settings) -> Path:
    """Return where a Prefect server of this machine keeps its leases; missing: none runs here."""
    return Path(os.environ.get("PREFECT_HOME") or settings.state / "prefect") / _LEASES


def settle(settings: Settings) -> None:
    """Free the slots that nobody holds, where Prefect's server keeps its leases on this machine.

    The lease of a holder that died lasts for days once the clock went back, and a server that is
    killed between a slot and its lease has lent it for ever. Call it before anything works.

    Raises:
        ServiceUnavailable: Prefect's server cannot be reached.
    """
    folder = leases(settings)
    if not folder.is_dir():
        return
    lent = [json.loads(file.read_bytes()) for file in folder.glob("*-*.json")]
    longest = datetime.now(UTC) + timedelta(seconds=2 * LEASE_SECONDS)
    for limit in prefect_api.post(settings, "/v2/concurrency_limits/filter", {}):
        name = limit["name"].removeprefix(_PREFIX)
        if limit["name"] != limit_of(name) or not limit["active_slots"]:
            continue
        mine = [one for one in lent if limit["id"] in one["resource_ids"]]
        for one in mine:
            if datetime.fromisoformat(one["expiration"]) > longest:
                LOG.warning("lock      the lease of %s would last for too long: freed", name)
                _release(settings, name, one["id"])
        if not mine:
            LOG.warning("lock      %s was lent to nobody: freed", name)
            body = {"names": [limit["name"]], "slots": 1}
            _give_back(settings, "decrement", body)


@contextmanager
def _file(settings: Settings, name: str, deadline: float) -> Iterator[None]:
    from filelock import FileLock, Timeout

    folder = settings.state / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            LOG.info("waiting   for another clr process that holds %s", lock.lock_file)
            lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
    except Timeout as error:
        raise _busy(name, f"{settings.workspace}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _slot(settings: Settings, name: str, deadline: float) -> Iterator[None]:
    """Hold the one slot of a lock at Prefect's server, its lease renewed by a thread."""
    lease = _acquire(settings, name, deadline)
    if not lease:
        yield
        return
    done = threading.Event()
    keeper = threading.Thread(
        target=_renew, args=(settings, name, lease, done), name=f"lease-{name}", daemon=True
    )
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        _release(settings, name, lease)


def _acquire(settings: Settings, name: str, deadline: float) -> str:
    """Return the id of a lease; empty where the server has no such limit.

    Raises:
        ServiceUnavailable: not free in time, or the server cannot be reached.
    """
    body = {"names": [limit_of(name)], "slots": 1, "lease_duration": LEASE_SECONDS}
    told, pause = 0.0, FIRST_PAUSE
    while True:
        try:
            given: Any = prefect_api.post(
                settings, "/v2/concurrency_limits/increment-with-lease", body
            )
            return str(given["lease_id"]) if given["limits"] else ""
        except ServiceUnavailable as error:
            if error.data.get("status") not in _LATER:
                raise
        now = time.monotonic()
        if now > deadline:
            raise _busy(name, "all machines on this Prefect server")
        if now - told > _TOLD_SECONDS:
            LOG.info("waiting   for another machine that holds the lock %s", name)
            told = now
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _renew(settings: Settings, name: str, lease: str, done: threading.Event) -> None:
    """Renew a lease until told to end; a server that is away for a moment loses nothing."""
    wait = RENEW_SECONDS
    body = {"lease_duration": LEASE_SECONDS}
    while not done.wait(wait):
        try:
            prefect_api.post(settings, f"/v2/concurrency_limits/leases/{lease}/renew", body)
            wait = RENEW_SECONDS
        except ServiceUnavailable as error:
            LOG.warning("lock      the lease of %s was not renewed: %s", name, error.message)
            if error.data.get("status") == 410:
                return  # what it guards checks for itself that nobody was faster
            wait = RENEW_SECONDS / 3


def _release(settings: Settings, name: str, lease: str) -> None:
    body = {"lease_id": str(uuid.UUID(lease))}
    try:
        _give_back(settings, "decrement-with-lease", body)
    except ServiceUnavailable as error:
        LOG.warning("lock      %s is free after %.0f s: %s", name, LEASE_SECONDS, error.message)


def _give_back(settings: Settings, how: str, body: dict[str, Any]) -> None:
    """Ask Prefect's server to free a slot, again while its database is busy.

    Raises:
        ServiceUnavailable: it is still busy after `LEASE_SECONDS`, or it cannot be reached.
    """
    deadline, pause = time.monotonic() + LEASE_SECONDS, FIRST_PAUSE
    while True:
        try:
            prefect_api.post(settings, f"/v2/concurrency_limits/{how}", body)
            return
        except ServiceUnavailable as error:
            if error.data.get("status") not in _LATER or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _busy(name: str, where: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"The lock {name} of {where} was not free within an hour.",
        fix="See which clr process still runs there.",
    )
