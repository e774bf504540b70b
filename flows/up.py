"""``clr up registry``: the registry server and its release service, as long as the command runs."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from clr import errors
from clr.errors import ServiceUnavailable
from clr.registry.server import config, secrets
from clr.settings import Settings
from flows import output, running
from flows.running import Running
from flows.starting import only_one, see_idle, see_port, stop_on_signals, warn
from flows.supervise import Child, answers, free_port, stop

LOG = logging.getLogger("clr")
READY_SECONDS = 180.0
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Plan:
    """What is to run.

    Attributes:
        settings: of the workspace.
        host: address that the registry server listens on.
        port: its port.
        url: address at which this machine reaches it.
        service_port: port of the release service.
        service_host: address that it listens on.
    """

    settings: Settings
    host: str
    port: int
    url: str
    service_port: int
    service_host: str = "127.0.0.1"

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
    stopping = stop_on_signals()
    url = config.reachable_url(host, port)
    with only_one(settings, url):
        warn(settings)
        see_idle(settings)
        see_port(host, port, "Choose another: clr up registry --port P.")
        plan = Plan(settings, host, port, url, free_port())
        server, service = registry_child(plan), service_child(plan)
        try:
            if _prepare(plan, server, stopping) and _wait(plan, server, service, stopping):
                running.write(settings, Running(os.getpid(), plan.url, plan.service_url))
                _announce(plan, as_json)
                while not stopping.wait(0.2):
                    server.keep()
                    service.keep()
        finally:
            LOG.info("stop      …")
            stop((service, server), STOP_SECONDS)
    LOG.info("stopped")


def registry_child(plan: Plan) -> Child:
    """Return the registry server; `start_preparing` starts it the first time."""
    state = plan.settings.state
    config.write_auth(plan.settings)
    environment = config.server_environment(
        plan.settings,
        os.environ,
        secrets.ensure_secret(state, secrets.FLASK_KEY),
        secrets.ensure_secret(state, secrets.WEBHOOK_KEY),
    )
    command = [
        *(sys.executable, "-m", "clr.registry.server.launch"),
        *("--host", plan.host, "--port", str(plan.port)),
    ]
    return Child(
        "registry",
        command,
        environment,
        config.server_folder(state),
        state / "logs" / "registry.log",
    )


def service_child(plan: Plan, more: Mapping[str, str] | None = None) -> Child:
    """Return the release service, not started; `more` comes into its environment."""
    state = plan.settings.state
    environment = config.service_environment(
        plan.settings,
        os.environ,
        plan.url,
        secrets.ensure_secret(state, secrets.RELEASE_PASSWORD),
        secrets.ensure_secret(state, secrets.WEBHOOK_SECRET),
    )
    environment.update(more or {})
    command = [
        *(sys.executable, "-m", "flows.service"),
        *("--host", plan.service_host, "--port", str(plan.service_port)),
    ]
    return Child(
        "release-service",
        command,
        environment,
        plan.settings.workspace,
        state / "logs" / "release-service.log",
    )


def start_preparing(plan: Plan, server: Child) -> BinaryIO:
    """Start the server, which first prepares database, users and webhooks.

    Returns:
        its report: see `preparing`.
    """
    read, write = os.pipe()
    command = [
        *(*server.command, "--report", str(write)),
        *("--url", plan.url, "--service", plan.service_url),
    ]
    given = {one.variable: os.environ[one.variable] for one in secrets.ALL
             if os.environ.get(one.variable)}  # fmt: skip
    LOG.info("prepare   …")
    try:
        server.start(command, {**server.environment, **given}, (write,))
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    return os.fdopen(read, "rb")


def preparing(report: BinaryIO, seconds: float) -> bool:
    """Tell the next line of the report, if one comes in time; say whether more is to come.

    Raises:
        ClrError: what the process said is in the way.
    """
    if not select.select([report], [], [], seconds)[0]:
        return True
    line = report.readline()
    if line:
        _tell(json.loads(line))
    return bool(line)


def _prepare(plan: Plan, server: Child, stopping: threading.Event) -> bool:
    """Prepare the registry; False if a signal came. Whether it serves is seen next."""
    with start_preparing(plan, server) as report:
        while not stopping.is_set():
            if not preparing(report, 0.2):
                return True
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
            raise dead(server, "ended while it was starting")
        service.keep()
        for name, url in list(waiting.items()):
            if answers(url):
                del waiting[name]
                LOG.info("%-9s answers", name)
        if waiting and time.monotonic() > deadline:
            late = server if "server" in waiting else service
            raise dead(late, f"did not answer within {READY_SECONDS:.0f} s")
    return not waiting


def dead(child: Child, what: str) -> ServiceUnavailable:
    """Return an error that shows the end of the log of a child."""
    return ServiceUnavailable(
        f"The {child.name} {what}. The end of its log:\n{child.tail()}",
        fix=f"Read {child.log}, put right what it names, and start again.",
    )


def _announce(plan: Plan, as_json: bool) -> None:
    if as_json:
        known = {"url": plan.url, "service": plan.service_url, "pid": os.getpid()}
        print(json.dumps(known), flush=True)
        return
    lines = (
        f"registry  {plan.url} ready",
        f"sign in   as a user of `clr users add`, or as admin; its password is "
        f"{place_of(plan.settings, secrets.ADMIN_PASSWORD)}",
        f"stop      Ctrl-C, or kill {os.getpid()}",
    )
    print("\n".join(lines), flush=True)


def place_of(settings: Settings, secret: secrets.Secret) -> str:
    """Say where a person finds a secret."""
    if os.environ.get(secret.variable):
        return f"what {secret.variable} holds"
    return f"in {secrets.secrets_folder(settings.state) / secret.file}"
