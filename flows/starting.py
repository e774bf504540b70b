"""What every start of servers does first: signals, the lock of the workspace, warnings, ports."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from clr.errors import ClrError, ServiceUnavailable, UsageError
from clr.registry.roles import load_policy, policy_path, warnings
from clr.settings import Settings
from flows import running

LOG = logging.getLogger("clr")
PORT_SECONDS = 5.0
"""How long a server that was killed a moment ago may still hold its port."""


def stop_on_signals() -> threading.Event:
    """Return what Ctrl-C, SIGTERM and SIGHUP set from now on."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


@contextmanager
def only_one(settings: Settings, url: str) -> Iterator[None]:
    """Hold the lock of this workspace's servers; the system frees it if this process dies.

    What an earlier start told the commands is forgotten.

    Args:
        settings: of the workspace.
        url: shown to whoever tries a second start.

    Raises:
        ServiceUnavailable: it is held.
    """
    path = running.lock_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ServiceUnavailable(
                f"The registry server of this workspace runs already: {lock.read().strip()}.",
                fix="Use that one, or stop it first: `kill` with its process number.",
            ) from error
        lock.truncate(0)
        lock.write(f"{url}, process {os.getpid()}")
        lock.flush()
        running.path(settings).unlink(missing_ok=True)
        try:
            yield
        finally:
            running.path(settings).unlink(missing_ok=True)


def warn(settings: Settings) -> None:
    """Say what is weak in the policy, and which database is not used."""
    for warning in warnings(load_policy(policy_path(settings.workspace))):
        LOG.warning("policy    %s", warning)
    embedded = settings.state / "mlflow.db"
    if settings.registry_database and embedded.exists():
        LOG.warning("database  %s is not used: the registry is in PostgreSQL", embedded)


def see_idle(settings: Settings) -> None:
    """At the first start, let no command go on in the registry that was embedded so far.

    Raises:
        ServiceUnavailable: one does.
    """
    from filelock import FileLock, Timeout

    if settings.registry_file.exists():
        return
    for file in sorted((settings.state / "locks").glob("*.lock")):
        try:
            with FileLock(file, timeout=0):
                pass
        except Timeout as error:
            raise ServiceUnavailable(
                f"A clr command works in this workspace ({file.stem}).",
                fix="Wait for it to end: from now on the registry is the server's.",
            ) from error


def see_port(host: str, port: int, fix: str) -> None:
    """See that a server can listen there.

    Args:
        host: address.
        port: on it.
        fix: how to choose another port.

    Raises:
        ServiceUnavailable: the port is taken, or not for this user.
        UsageError: this machine has no such address.
    """
    deadline = time.monotonic() + PORT_SECONDS
    while True:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socket.create_server((host, port), family=family).close()
            return
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            raise _no_port(host, port, error, fix) from error


def _no_port(host: str, port: int, error: OSError, fix: str) -> ClrError:
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
        why = "is taken" if error.errno == errno.EADDRINUSE else "may not be used by this user"
        return ServiceUnavailable(f"Port {port} of {host} {why}.", fix=fix)
    return UsageError(
        f"The server cannot listen on {host}: {error.strerror or error}.",
        fix="Give an address of this machine: 127.0.0.1 for itself, 0.0.0.0 for the network.",
    )
