"""The Prefect server of a process that lives long and was given none: started once, kept alive."""

from __future__ import annotations

import os
import sys
import time

from clr.errors import ServiceUnavailable
from clr.settings import Settings
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
    command = [
        *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
        *("--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"),
    ]
    environment = {
        **os.environ,
        "PREFECT_SERVER_UI_ENABLED": "false",
        # what Prefect itself sets for a temporary server
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }
    log = settings.state / "logs" / "prefect.log"
    server = Child("prefect", command, environment, settings.workspace, log)
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
