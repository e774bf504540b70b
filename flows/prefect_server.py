"""Prefect's server: the lasting one of `clr up`, and that of a process which was given none."""

from __future__ import annotations

import os
import signal
import sys
import time

from clr.errors import ServiceUnavailable, UsageError
from clr.registry.faults import redact
from clr.registry.server.config import common_environment
from clr.settings import Settings
from flows import embedded, locks
from flows.supervise import Child, answers, free_port

START_SECONDS = 180.0
_API = "PREFECT_API_URL"


def start(settings: Settings) -> Child | None:
    """Start a Prefect server for this process and wait for it; None where one is given.

    It ends with the thread that calls this. Call it before Prefect is first imported, which
    reads ``PREFECT_API_URL`` then.

    Raises:
        ServiceUnavailable: it does not start.
    """
    if os.environ.get(_API):
        return None
    port = free_port()
    address = f"http://127.0.0.1:{port}/api"
    command = _command("127.0.0.1", port)
    environment = {
        **os.environ,
        "PREFECT_SERVER_UI_ENABLED": "false",
        # what Prefect itself sets for a temporary server
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }
    log = settings.state / "logs" / "prefect.log"
    server = Child("prefect", command, environment, settings.workspace, log)
    server.orphaned = signal.SIGKILL  # asked, it would first finish starting; it keeps nothing
    server.start()
    wait(server, address)
    os.environ[_API] = address
    return server


def wait(server: Child, address: str = "") -> None:
    """Wait until a server answers; start it again if it ended.

    Raises:
        ServiceUnavailable: it does not within three minutes.
    """
    address = address or os.environ[_API]
    deadline = time.monotonic() + START_SECONDS
    while not answers(f"{address}/health"):
        server.keep()
        if time.monotonic() > deadline:
            server.end(0)
            raise ServiceUnavailable(
                f"Prefect's server does not start. The end of its log:\n{server.tail()}",
                fix="Put right what it names, or set PREFECT_API_URL to a server that runs.",
            )
        time.sleep(0.2)


def lasting(settings: Settings, host: str, port: int, url: str, auth: str) -> Child:
    """Return the server of `clr up`, not started: what it holds outlives it.

    Args:
        settings: of the workspace.
        host: address that it listens on.
        port: on it.
        url: address at which a browser of this machine reaches it.
        auth: ``user:password`` that every call needs.

    Raises:
        UsageError: ``CLR_PREFECT_DATABASE`` is not PostgreSQL.
    """
    environment = {
        **common_environment(settings, os.environ),
        **embedded.defaults(settings),
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        # an open API would let any page in a browser of this machine start flows
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": url,
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": _database(settings),
        "PREFECT_SERVER_DATABASE_TIMEOUT": "30",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
        "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "5",
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_UI_ENABLED": "true",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        environment.pop(name, None)
    # by this folder `locks.settle` knows that the server is here, also before the first lease
    locks.leases(settings).mkdir(parents=True, exist_ok=True)
    return Child(
        "prefect",
        _command(host, port),
        environment,
        settings.workspace,
        settings.state / "logs" / "prefect.log",
    )


_LEASES = "prefect.server.concurrency.lease_storage.filesystem"


def _command(host: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", "--factory", "flows.prefect_app:create_app"),
        *("--host", host, "--port", str(port), "--log-level", "error", "--lifespan", "on"),
        *("--timeout-graceful-shutdown", "3"),
    ]


def _database(settings: Settings) -> str:
    url = settings.prefect_database
    if not url:
        return f"sqlite+aiosqlite:///{settings.state / 'prefect' / 'prefect.db'}"
    scheme, there, rest = url.partition("://")
    if scheme.partition("+")[0] != "postgresql" or not there:
        raise UsageError(
            f"CLR_PREFECT_DATABASE is not the address of a PostgreSQL database: {redact(url)!r}.",
            fix="Write postgresql://user:password@host:port/name, or unset it for SQLite.",
        )
    return f"postgresql+asyncpg://{rest}"
