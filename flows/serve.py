"""``clr serve``: the prediction server, as long as the command runs.

It listens at once and says on ``/health`` that it is starting; backbone and release are loaded
meanwhile. SIGTERM or Ctrl-C ends it after what is in work; SIGUSR1 makes it look for another
release now.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from typing import TYPE_CHECKING

from clr.errors import UsageError
from clr.registry.server.config import reachable_url
from clr.settings import Settings
from flows import output
from flows.release_role import signed_in_as
from flows.starting import see_port

if TYPE_CHECKING:
    import uvicorn

    from clr.serving.engine import Engine

LOG = logging.getLogger("clr")


def run_server(settings: Settings, host: str, port: int, *, as_json: bool) -> None:
    """Serve predictions until a signal comes.

    Args:
        settings: of the workspace.
        host: address to listen on.
        port: on it.
        as_json: whether stdout gets one JSON line when it answers: {url, release, pid}.

    Raises:
        UsageError: a setting is wrong, or others than this machine could ask without a key.
        IntegrityBroken: the backbone is not the one whose digest is pinned.
        ServiceUnavailable: the port is taken, or the journal cannot be written.
    """
    from clr.core.allocation import keep_freed_memory
    from clr.registry.acts import SERVER_USER
    from clr.registry.server.secrets import SERVER_PASSWORD

    output.log_to_stderr()
    keep_freed_memory()
    # read when PyTorch is loaded: threads that wait for images leave the cores to others
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not port:
        raise UsageError(
            "CLR_SERVE_PORT is 0: no prediction server is wanted here.", fix="clr serve --port P"
        )
    see_port(host, port, "Choose another: clr serve --port P.")
    settings = settings.model_copy(update={"serve_host": host, "serve_port": port})
    with signed_in_as(settings, SERVER_USER, SERVER_PASSWORD):
        asyncio.run(_serve(settings, as_json))
    LOG.info("stopped")


async def _serve(settings: Settings, as_json: bool) -> None:
    from clr.serving.app import create_app
    from clr.serving.engine import Engine
    from clr.serving.listening import Listening, configuration

    engine = Engine(settings)
    config = configuration(
        create_app(engine, settings),
        host=settings.serve_host,
        port=settings.serve_port,
        timeout_graceful_shutdown=round(settings.serve_drain_seconds),
        lifespan="off",
    )
    server = Listening(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    loop.add_signal_handler(signal.SIGUSR1, engine.nudge)
    starting = asyncio.create_task(_start(engine, settings, as_json))
    starting.add_done_callback(lambda task: _failed(task, server))
    try:
        await server.serve()
    finally:
        LOG.info("stop      after what is in work")
        starting.cancel()
        await engine.close()
    with contextlib.suppress(asyncio.CancelledError):
        await starting


async def _start(engine: Engine, settings: Settings, as_json: bool) -> None:
    await engine.start()
    known = engine.health()
    told = {
        "url": reachable_url(settings.serve_host, settings.serve_port),
        "release": known.release,
        "pid": os.getpid(),
    }
    if as_json:
        print(json.dumps(told), flush=True)
    else:
        print(f"serving   {told['url']}  release {known.release or 'none yet'}", flush=True)
        print(f"stop      Ctrl-C, or kill {told['pid']}", flush=True)


def _failed(task: asyncio.Task[None], server: uvicorn.Server) -> None:
    if not task.cancelled() and task.exception() is not None:
        server.should_exit = True
