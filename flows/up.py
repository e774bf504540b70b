"""``clr up registry``: the registry server and its release service, as long as the command runs."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clr import errors
from clr.errors import ClrError, ServiceUnavailable, UsageError
from clr.registry.roles import load_policy, policy_path, warnings
from clr.registry.server import config, secrets
from clr.settings import Settings
from flows import output
from flows.supervise import Child, answers, free_port, stop

LOG = logging.getLogger("clr")
READY_SECONDS = 180.0
STOP_SECONDS = 10.0
PORT_SECONDS = 5.0
"""How long a server that was killed a moment ago may still hold its port."""


@dataclass(frozen=True)
class Plan:
    """What is to run.

    Attributes:
        settings: of the workspace.
        host: address that the registry server listens on.
        port: its port.
        url: address at which this machine reaches it.
        service_port: port of the release service on the loopback address.
    """

    settings: Settings
    host: str
    port: int
    url: str
    service_port: int

    @property
    def service_url(self) -> str:
        """Address of the release service."""
        return f"http://127.0.0.1:{self.service_port}"


def run_registry(settings: Settings, host: str, port: int, *, as_json: bool) -> None:
    """Start the registry server of a workspace and keep it running until a signal comes.

    Args:
        settings: of the workspace.
        host: address to listen on.
        port: to listen on.
        as_json: whether stdout gets one JSON line when all is ready: {url, service, pid}.

    Raises:
        UsageError: policy, webhooks, a setting or a secret cannot be used.
        ServiceUnavailable: the port is taken, the server runs already, its database is not
            reachable, or it does not start.
    """
    output.log_to_stderr()
    stopping = _stop_on_signals()
    url = config.reachable_url(host, port)
    with _only_one(config.server_folder(settings.state), url):
        _warn(settings)
        _see_idle(settings)
        _see_port(host, port)
        plan = Plan(settings, host, port, url, free_port())
        server, service = _server(plan), _service(plan)
        try:
            if _prepare(plan, server, stopping) and _wait(plan, server, service, stopping):
                _announce(plan, as_json)
                while not stopping.wait(0.2):
                    server.keep()
                    service.keep()
        finally:
            LOG.info("stop      …")
            stop((service, server), STOP_SECONDS)
    LOG.info("stopped")


def _stop_on_signals() -> threading.Event:
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


@contextmanager
def _only_one(folder: Path, url: str) -> Iterator[None]:
    """Hold the lock of this workspace's server; the system frees it if this process dies."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "up.lock").open("a+", encoding="utf-8") as lock:
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
        yield


def _warn(settings: Settings) -> None:
    for warning in warnings(load_policy(policy_path(settings.workspace))):
        LOG.warning("policy    %s", warning)
    embedded = settings.state / "mlflow.db"
    if settings.registry_database and embedded.exists():
        LOG.warning("database  %s is not used: the registry is in PostgreSQL", embedded)


def _see_idle(settings: Settings) -> None:
    """At the first start, let no command go on in the registry that was embedded so far."""
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


def _see_port(host: str, port: int) -> None:
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
            raise _no_port(host, port, error) from error


def _no_port(host: str, port: int, error: OSError) -> ClrError:
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
        why = "is taken" if error.errno == errno.EADDRINUSE else "may not be used by this user"
        return ServiceUnavailable(
            f"Port {port} of {host} {why}.", fix="Choose another: clr up registry --port P."
        )
    return UsageError(
        f"The server cannot listen on {host}: {error.strerror or error}.",
        fix="Give an address of this machine: 127.0.0.1 for itself, 0.0.0.0 for the network.",
    )


def _server(plan: Plan) -> Child:
    state = plan.settings.state
    config.write_auth(plan.settings)
    environment = config.server_environment(
        plan.settings,
        os.environ,
        secrets.ensure_secret(state, secrets.FLASK_KEY),
        secrets.ensure_secret(state, secrets.WEBHOOK_KEY),
    )
    arguments = config.server_arguments(plan.settings, plan.host, plan.port)
    command = [sys.executable, "-m", "mlflow", *arguments]
    return Child(
        "registry",
        command,
        environment,
        config.server_folder(state),
        state / "logs" / "registry.log",
    )


def _service(plan: Plan) -> Child:
    state = plan.settings.state
    environment = config.service_environment(
        plan.settings,
        os.environ,
        plan.url,
        secrets.ensure_secret(state, secrets.RELEASE_PASSWORD),
        secrets.ensure_secret(state, secrets.WEBHOOK_SECRET),
    )
    command = [sys.executable, "-m", "flows.service", "--port", str(plan.service_port)]
    return Child(
        "release-service",
        command,
        environment,
        plan.settings.workspace,
        state / "logs" / "release-service.log",
    )


def _prepare(plan: Plan, server: Child, stopping: threading.Event) -> bool:
    """Start the server's process and tell what it prepares; False if a signal came."""
    read, write = os.pipe()
    command = [
        *(sys.executable, "-m", "clr.registry.server.launch", "--report", str(write)),
        *("--host", plan.host, "--port", str(plan.port)),
        *("--url", plan.url, "--service", plan.service_url),
    ]
    given = {one.variable: os.environ[one.variable] for one in secrets.ALL
             if os.environ.get(one.variable)}  # fmt: skip
    LOG.info("prepare   …")
    with os.fdopen(read, "rb") as report:
        try:
            server.start(command, {**server.environment, **given}, (write,))
        finally:
            os.close(write)
        while not stopping.is_set():
            if not select.select([report], [], [], 0.2)[0]:
                continue
            line = report.readline()
            if not line:
                return True  # all told; whether it serves is seen next
            _tell(json.loads(line))
    return False


def _tell(said: dict[str, str]) -> None:
    if "error" in said:
        kind: Any = getattr(errors, said["error"], ServiceUnavailable)
        raise kind(said["message"], fix=said["fix"])
    LOG.info("%-9s %s", said["stage"], said["text"])


def _wait(plan: Plan, server: Child, service: Child, stopping: threading.Event) -> bool:
    """Wait until both answer; False if a signal came first."""
    LOG.info("start     …")
    service.start()
    waiting = {
        "server": f"{plan.url}/health",
        "service": f"{plan.service_url}/health",
    }
    deadline = time.monotonic() + READY_SECONDS
    while waiting and not stopping.wait(0.3):
        if not server.running:
            raise _dead(server, "ended while it was starting")
        service.keep()
        for name, url in list(waiting.items()):
            if answers(url):
                del waiting[name]
                LOG.info("%-9s answers", name)
        if waiting and time.monotonic() > deadline:
            late = server if "server" in waiting else service
            raise _dead(late, f"did not answer within {READY_SECONDS:.0f} s")
    return not waiting


def _dead(child: Child, what: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"The {child.name} {what}. The end of its log:\n{child.tail()}",
        fix=f"Read {child.log}, put right what it names, and start again.",
    )


def _announce(plan: Plan, as_json: bool) -> None:
    if as_json:
        known = {"url": plan.url, "service": plan.service_url, "pid": os.getpid()}
        print(json.dumps(known), flush=True)
        return
    secret = secrets.ADMIN_PASSWORD
    folder = secrets.secrets_folder(plan.settings.state)
    given = os.environ.get(secret.variable)
    where = f"what {secret.variable} holds" if given else f"in {folder / secret.file}"
    lines = (
        f"registry  {plan.url} ready",
        f"sign in   as a user of `clr users add`, or as admin; its password is {where}",
        f"stop      Ctrl-C, or kill {os.getpid()}",
    )
    print("\n".join(lines), flush=True)
