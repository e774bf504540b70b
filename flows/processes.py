"""How each process of the system is started: its command and its environment, in one place.

``clr up`` starts them as its children, a container runs one of them (flows/entry.py). Each
gets the secrets that it needs, and none of those that it does not.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clr.errors import UsageError
from clr.registry.server import config, secrets
from clr.registry.server.config import common_environment

if TYPE_CHECKING:
    from clr.settings import Settings

Environment = Mapping[str, str]
RELEASE_PORT = 5001
LEASES = "prefect.server.concurrency.lease_storage.filesystem"
POOLS = ("cpu", "gpu", "registry")
_EVERYWHERE = "0.0.0.0"  # noqa: S104

_SERVER_SECRETS = frozenset({one.variable for one in secrets.ALL} | {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "CLR_LEDGER_URL", "CLR_PREFECT_DATABASE", "CLR_REGISTRY_DATABASE",
    "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
})  # fmt: skip


@dataclass(frozen=True)
class Start:
    """What starts one process.

    Attributes:
        command: program and arguments.
        environment: all of it.
    """

    command: tuple[str, ...]
    environment: dict[str, str]


def registry(settings: Settings, given: Environment, url: str, service: str) -> Start:
    """Return how the MLflow server with the policy is started; it prepares its database first.

    Args:
        settings: where it listens, its database, its store of files.
        given: the caller's environment.
        url: address at which its clients reach it.
        service: address of the release service, which it tells of reviews.

    Raises:
        UsageError: a secret, a setting or ``mlflow/auth.ini`` cannot be used.
        ServiceUnavailable: a secret cannot be written.
    """
    state = settings.state
    config.write_auth(settings)
    own = (secrets.ADMIN_PASSWORD, secrets.RELEASE_PASSWORD, secrets.TRAINER_PASSWORD,
           secrets.WEBHOOK_SECRET)  # fmt: skip
    environment = {
        **config.server_environment(
            settings,
            given,
            secrets.ensure_secret(state, secrets.FLASK_KEY),
            secrets.ensure_secret(state, secrets.WEBHOOK_KEY),
        ),
        # for the accounts that it makes before it serves; it forgets them then
        **{one.variable: given[one.variable] for one in own if given.get(one.variable)},
    }
    command = (
        *(sys.executable, "-m", "clr.registry.server.launch"),
        *("--host", settings.registry_host, "--port", str(settings.registry_port)),
        *("--url", url, "--service", service),
    )
    return Start(command, environment)


def release_service(settings: Settings, given: Environment, registry_url: str) -> Start:
    """Return how the release service is started; it alone can sign in as ``clr-release``.

    It listens where ``CLR_RELEASE_SERVICE`` says: on loopback if that is an address there,
    else on every address of this machine or container.

    Raises:
        UsageError, ServiceUnavailable: see `registry`.
    """
    environment = config.service_environment(
        settings,
        given,
        registry_url,
        secrets.ensure_secret(settings.state, secrets.RELEASE_PASSWORD),
        secrets.ensure_secret(settings.state, secrets.WEBHOOK_SECRET),
    )
    url = settings.release_service or f"http://127.0.0.1:{RELEASE_PORT}"
    host = "127.0.0.1" if config.is_loopback(url) else _EVERYWHERE
    port = str(urlsplit(url).port or RELEASE_PORT)
    command = (sys.executable, "-m", "flows.service", "--host", host, "--port", port)
    return Start(command, environment)


def prefect_server(settings: Settings, given: Environment) -> Start:
    """Return how Prefect's server is started: with a password, its leases on disk.

    Raises:
        UsageError: ``CLR_PREFECT_DATABASE`` is no PostgreSQL database; or see `registry`.
        ServiceUnavailable: see `registry`.
    """
    host, port, home = settings.prefect_host, settings.prefect_port, settings.state / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    own = config.reachable_url(host, port)
    environment = {
        **{name: value for name, value in given.items() if name not in _SERVER_SECRETS},
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_API_AUTH_STRING": secrets.ensure_secret(
            settings.state, secrets.PREFECT_AUTH
        ),
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
        # a page of another origin gets no answer, whatever password the browser knows
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": own,
        "PREFECT_SERVER_UI_API_URL": f"{own}/api",
        "PREFECT__SERVER_FINAL": "1",
        "PYTHONUNBUFFERED": "1",
        **_prefect_database(settings),
    }
    command = (
        *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
        *("--host", host, "--port", str(port), "--log-level", "warning", "--lifespan", "on"),
        *("--timeout-graceful-shutdown", "5"),
    )
    return Start(command, environment)


def _prefect_database(settings: Settings) -> dict[str, str]:
    url = settings.prefect_database
    if not url:
        return {}
    scheme, separator, rest = url.partition("://")
    if scheme.partition("+")[0] != "postgresql" or not separator:
        raise UsageError(
            "CLR_PREFECT_DATABASE is not the address of a PostgreSQL database.",
            fix="Write postgresql://user:password@host:port/name, or unset it for SQLite.",
        )
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{rest}"}


def worker(
    settings: Settings, given: Environment, pool: str, limit: int, health_port: int = 0
) -> Start:
    """Return how a worker of one pool is started; it starts each flow run as a process.

    Args:
        settings: of the workspace.
        given: the caller's environment, with ``PREFECT_API_URL``.
        pool: one of `POOLS`.
        limit: flow runs at once.
        health_port: on loopback, where it says whether it polls; 0: nowhere.

    Raises:
        UsageError: no such pool.
    """
    if pool not in POOLS:
        raise UsageError(f"There is no work pool {pool}.", fix=f"Name one of {', '.join(POOLS)}.")
    kept = {name: given[name] for name in _of_flows(pool) if given.get(name)}
    environment = {
        **common_environment(settings, given),
        **kept,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    command: tuple[str, ...] = (
        *(sys.executable, "-m", "prefect", "worker", "start", "--pool", pool),
        *("--type", "process", "--limit", str(limit), "--install-policy", "never"),
    )
    if health_port:
        environment |= {
            "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
            "PREFECT_WORKER_WEBSERVER_PORT": str(health_port),
        }
        command = (*command, "--with-healthcheck")
    return Start(command, environment)


def _of_flows(pool: str) -> tuple[str, ...]:
    """Return the secrets of who runs flows: the trainer's, or what asks the release service."""
    return ("CLR_TRAINER_PASSWORD", *(("CLR_WEBHOOK_SECRET",) if pool == "registry" else ()))


def deployments(settings: Settings, given: Environment) -> Start:
    """Return how pools, deployments and automations are written to Prefect's server, once."""
    return Start((sys.executable, "-m", "flows.deployments"), common_environment(settings, given))


def watcher(settings: Settings, given: Environment) -> Start:
    """Return how the watcher is started, which serves ``/health`` and ``/metrics``."""
    command = (sys.executable, "-m", "flows.watch", "--port", str(settings.metrics_port))
    return Start(command, common_environment(settings, given))
