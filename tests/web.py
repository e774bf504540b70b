"""The prediction server as a pytest plugin: a real engine behind real HTTP on a real port.

One serves the three tasks of the template for the whole session, with keys; tests that need
other limits start one of their own (`serving`), in a thread.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.waiting import until

HOST = "127.0.0.1"
ALL = ("predict", "feedback", "metrics")


@dataclass(frozen=True, eq=False)
class Web:
    """A running server.

    Attributes:
        plant: the workspace that it serves.
        port: where it listens.
        app: the FastAPI app.
        key: may predict, give feedback and read metrics.
    """

    plant: Any
    port: int
    app: Any
    key: str = field(repr=False, default="")

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.port}"

    def new_key(self, name: str, *scopes: str, **more: Any) -> str:
        """Make an API key, as a user would."""
        options = [part for scope in scopes for part in ("--scope", scope)]
        options += [part for task in more.get("tasks", ()) for part in ("--task", task)]
        options += ["--expires", more["expires"]] if "expires" in more else []
        made = self.plant.clr("keys", "add", name, *options, "--json")
        assert made.code == 0, made
        return str(made.json["key"])

    def call(
        self, method: str, path: str, *, key: str | None = None, **how: Any
    ) -> requests.Response:
        """Send a request with a key: `self.key`, or another one, or none where it is empty."""
        headers = dict(how.pop("headers", None) or {})
        key = self.key if key is None else key
        if key:
            headers.setdefault("Authorization", f"Bearer {key}")
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.url + path, headers=headers, timeout=60, **how)

    def predict(self, *images: bytes, key: str | None = None, **fields: Any) -> requests.Response:
        """Send images as a form."""
        files = [("files", (f"{at}.png", data)) for at, data in enumerate(images)]
        return self.call("POST", "/v1/predict", key=key, files=files, data=fields)

    def raw(self, data: bytes, seconds: float = 30) -> bytes:
        """Send bytes as they are, and return all that comes until the server closes."""
        with socket.create_connection((HOST, self.port), timeout=seconds) as connection:
            connection.sendall(data)
            found = b""
            while part := connection.recv(65_536):
                found += part
            return found


@contextmanager
def serving(plant: Any, **settings: Any) -> Iterator[Web]:
    """Serve a plant in this process, with settings of its own."""
    with running(plant.session().settings.model_copy(update=settings)) as (port, app):
        found = Web(plant, port, app)
        assert until(lambda: found.call("GET", "/v2/health/ready").status_code == 200, 60)
        yield found


@contextmanager
def running(settings: Any) -> Iterator[tuple[int, Any]]:
    """Run a prediction server in this process; yield its port and its app."""
    from uvicorn import Server

    from clr.serving.app import create_app
    from clr.serving.engine import Engine
    from clr.serving.listening import configuration

    listening = socket.create_server((HOST, 0))
    port = listening.getsockname()[1]
    failed: list[BaseException] = []
    there: list[Any] = []

    async def run() -> None:
        engine = Engine(settings)
        await engine.start()
        try:
            app = create_app(engine, settings)
            there.append((Server(configuration(app)), app))
            await there[0][0].serve(sockets=[listening])
        finally:
            await engine.close()

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert until(lambda: failed or (there and there[0][0].started), 60)
        if failed:
            raise failed[0]
        yield port, there[0][1]
    finally:
        if there:
            there[0][0].should_exit = True
        thread.join(60)
        listening.close()


@pytest.fixture(scope="session")
def web(
    template: Any, copy_of: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Web]:
    """A server of three tasks that asks for keys; its plant is nobody else's."""
    plant = copy_of(template.plant, tmp_path_factory.mktemp("web") / "plant")
    with serving(plant) as found:
        key = found.new_key("tests", *ALL)
        yield Web(found.plant, found.port, found.app, key)


@pytest.fixture(scope="session")
def new_web(
    template: Any, copy_of: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Web]]:
    """Function (**settings) -> a server without keys and with other settings, until the end."""
    with ExitStack() as stack:

        def build(**settings: Any) -> Web:
            plant = copy_of(template.plant, tmp_path_factory.mktemp("web") / "plant")
            return stack.enter_context(serving(plant, **{"serve_keys": False, **settings}))

        yield build


@pytest.fixture(scope="session")
def pictures(template: Any) -> dict[str, bytes]:
    """An image file of each task, and its true class: {task/class: bytes}."""
    found = {}
    for path in sorted(Path(template.tasks).glob("*/test/*/00.png")):
        found[f"{path.parts[-4]}/{path.parts[-2]}"] = path.read_bytes()
    return found
