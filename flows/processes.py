"""How a process that runs alone, in a container, is started: as `clr up` starts its children.

Each gets the secrets that it needs, and none of those that it does not.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clr.errors import UsageError
from clr.registry.server import config, secrets
from flows import embedded, parts, prefect_server
from flows.up import Plan, registry_child, service_child

if TYPE_CHECKING:
    from clr.settings import Settings
    from flows.supervise import Child

RELEASE_PORT, HEALTH_PORT = 5001, 8081
"""Of the release service where no address says another; of a worker, on loopback."""

POOLS = ("cpu", "gpu", "registry")
_ACCOUNTS = (
    secrets.ADMIN_PASSWORD, secrets.RELEASE_PASSWORD, secrets.TRAINER_PASSWORD,
    secrets.SERVER_PASSWORD, secrets.WEBHOOK_SECRET,
)  # fmt: skip


@dataclass(frozen=True)
class Start:
    """What starts one process.

    Attributes:
        command: program and arguments.
        environment: all of it.
    """

    command: tuple[str, ...]
    environment: dict[str, str]


def start(settings: Settings, name: str, about: str = "") -> Start:
    """Return how the process `name` is started.

    Args:
        settings: of the workspace.
        name: see flows/entry.py.
        about: the pool of a worker.

    Raises:
        UsageError: no such process or pool; a setting or secret cannot be used.
        ServiceUnavailable: a secret cannot be written.
    """
    if name == "registry":
        return _registry(settings)
    if name == "release-service":
        service = service_child(_plan(settings), embedded.defaults(settings))
        parts.without_servers(service.environment)
        return _as_it_is(service)
    if name == "prefect":
        host, port = settings.prefect_host, settings.prefect_port
        auth = secrets.ensure_secret(settings.state, secrets.PREFECT_AUTH)
        url = config.reachable_url(host, port)
        return _as_it_is(prefect_server.lasting(settings, host, port, url, auth))
    if name == "serving":
        return _as_it_is(
            parts.serving(settings, settings.registry, settings.serve_host, settings.serve_port)
        )
    common = parts.flow_environment(settings, settings.registry, settings.release_service, {})
    if name == "worker":
        return _worker(settings, about, common)
    modules = {
        "deployments": ("flows.deployments",),
        "watcher": ("flows.watch", "--port", str(settings.metrics_port)),
    }
    if name not in modules:
        raise UsageError(
            f"There is no process {name!r}.", fix="See `python -c 'help(\"flows.entry\")'`."
        )
    return Start((sys.executable, "-m", *modules[name]), common)


def _as_it_is(child: Child) -> Start:
    return Start(tuple(child.command), child.environment)


def _plan(settings: Settings) -> Plan:
    """Return what `clr up` would; the release service listens as far as its address reaches."""
    service = settings.release_service or f"http://127.0.0.1:{RELEASE_PORT}"
    return Plan(
        settings,
        settings.registry_host,
        settings.registry_port,
        settings.registry,
        urlsplit(service).port or RELEASE_PORT,
        "127.0.0.1" if config.is_loopback(service) else "0.0.0.0",  # noqa: S104
    )


def _registry(settings: Settings) -> Start:
    """Return the process that prepares database, users and webhooks and becomes the server."""
    plan = _plan(settings)
    server = registry_child(plan)
    environment = {
        **server.environment,
        # for the accounts that it makes before it serves; it forgets them then
        **{one.variable: os.environ[one.variable] for one in _ACCOUNTS
           if os.environ.get(one.variable)},
    }  # fmt: skip
    service = settings.release_service or plan.service_url
    return Start((*server.command, "--url", plan.url, "--service", service), environment)


def _worker(settings: Settings, pool: str, common: dict[str, str]) -> Start:
    if pool not in POOLS:
        raise UsageError(f"There is no work pool {pool!r}.", fix=f"Name one of {', '.join(POOLS)}.")
    child = parts.worker(settings, pool, common)
    health = {
        "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
        "PREFECT_WORKER_WEBSERVER_PORT": str(HEALTH_PORT),
    }
    command = (*child.command, "--with-healthcheck", "--install-policy", "never")
    return Start(command, {**health, **child.environment})
