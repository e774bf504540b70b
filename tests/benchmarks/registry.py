"""What the registry's policy costs: the same requests at a server with it and at one without.

Both servers are MLflow's own behind its basic auth, one worker each, with the cache of checked
passwords on, over equal SQLite databases, side by side on this machine. Requests go to both in
turn, in random order, so that whatever else the machine does slows both. Processor time, of all
processes of a server, says what a request costs on a machine that is idle.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from clr.settings import Settings
from flows.supervise import free_port
from tests.candidate import make_candidate
from tests.house import API

VERSIONS = 30
PAIRS = int(os.environ.get("CLR_BENCH_PAIRS", "200"))
WARM = 10
"""Pairs before those that count."""

START_SECONDS = 180
RESAMPLES = 2000
PASSWORD = "correct-horse-battery"
POLICY = """\
schema: clr.policy/1
users:
  tess: [trainer]
  alice: [reviewer]
"""


@dataclass(frozen=True)
class Server:
    """A running server and a client of it."""

    url: str
    client: requests.Session
    process: int

    def processor(self) -> float:
        """Return the processor time used so far, in milliseconds."""
        tree = psutil.Process(self.process)
        times = [one.cpu_times() for one in (tree, *tree.children(recursive=True))]
        return 1000 * sum(one.user + one.system for one in times)

    def call(
        self, user: str, method: str, path: str, json: Any = None, **options: Any
    ) -> requests.Response:
        """Send one request; see `tests.house.House.call`."""
        self.client.auth = (user, PASSWORD)
        where = path if path.startswith("/") else f"{API}/{path}"
        return self.client.request(method, self.url + where, json=json, timeout=60, **options)


Request = Callable[[Server, int], requests.Response]


def main() -> None:
    """Compare requests at a server with the policy and at one without, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder, _servers(Path(folder)) as (plain, guarded):
        for server in (plain, guarded):
            for _ in range(VERSIONS):
                make_candidate(server.call, task="bench")
        print("                           basic auth   with policy   ratio [95 %]   processor")
        for name, (request, refused) in REQUESTS.items():
            used = [server.processor() for server in (plain, guarded)]
            before, after = _pairs(plain, guarded, request, refused)
            used = [
                server.processor() - one for server, one in zip((plain, guarded), used, strict=True)
            ]
            was, now = statistics.median(before), statistics.median(after)
            low, high = _interval(before, after)
            print(
                f"  {name:<24} {was:>7.1f} ms {now:>10.1f} ms   "
                f"{now / was:.2f} [{low:.2f}, {high:.2f}]   "
                f"{used[0] / (PAIRS + WARM):.1f} -> {used[1] / (PAIRS + WARM):.1f} ms",
                flush=True,
            )


def _get(server: Server, number: int) -> requests.Response:
    query = {"name": "clr-bench", "version": 1 + number % VERSIONS}
    return server.call("alice", "GET", "model-versions/get", params=query)


def _search(server: Server, number: int) -> requests.Response:
    query = {"filter": "name = 'clr-bench'", "max_results": 20}
    return server.call("alice", "GET", "model-versions/search", params=query)


def _tag(key: str) -> Request:
    def request(server: Server, number: int) -> requests.Response:
        about = {"name": "clr-bench", "version": str(1 + number % VERSIONS)}
        body = {**about, "key": key, "value": f"{number}"}
        return server.call("tess", "POST", "model-versions/set-tag", body)

    return request


def _model_tag(server: Server, number: int) -> requests.Response:
    body = {"name": "clr-bench", "key": "line", "value": str(number)}
    return server.call("tess", "POST", "registered-models/set-tag", body)


REQUESTS: dict[str, tuple[Request, bool]] = {
    "get a version": (_get, False),
    "search versions": (_search, False),
    "set a tag of a version": (_tag("line"), False),
    "set a tag of a model": (_model_tag, False),
    "a tag that is refused": (_tag("clr.verdict"), True),
}
"""What is asked, and whether the policy refuses it (where basic auth alone does it)."""


def _pairs(
    plain: Server, guarded: Server, request: Request, refused: bool
) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    order = random.Random(0)
    for number in range(-WARM, PAIRS):
        for which in order.sample((0, 1), 2):
            started = time.perf_counter()
            answer = request((plain, guarded)[which], number)
            took = 1000 * (time.perf_counter() - started)
            expected = 403 if which and refused else 200
            assert answer.status_code == expected, answer.text
            if number >= 0:
                times[which].append(took)
    return times


def _interval(before: list[float], after: list[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the ratio of medians, pairs resampled."""
    order = random.Random(0)
    ratios = []
    for _ in range(RESAMPLES):
        chosen = order.choices(range(len(before)), k=len(before))
        ratios.append(
            statistics.median(after[one] for one in chosen)
            / statistics.median(before[one] for one in chosen)
        )
    ratios.sort()
    return ratios[int(0.025 * RESAMPLES)], ratios[int(0.975 * RESAMPLES)]


@contextmanager
def _servers(folder: Path) -> Iterator[tuple[Server, Server]]:
    """Start the server without the policy and the one with it, over equal databases."""
    from clr.data.workspace import init_workspace
    from clr.registry.server.config import database_url
    from clr.registry.server.database import ensure_release_model, prepare_database
    from clr.registry.server.users import ensure_services, open_logins

    root = folder / "guarded"
    init_workspace(root, {"mlflow/policy.yaml": POLICY})
    settings = Settings(workspace=root, home=root / ".clr")
    prepare_database(settings)
    ensure_release_model(database_url(settings))
    with open_logins(settings) as logins:
        ensure_services(settings, logins)
        for name in ("tess", "alice"):
            logins.put(name, PASSWORD)
    shutil.copytree(root, folder / "plain", symlinks=True)
    running = []
    try:
        for name, app in (("plain", "basic-auth"), ("guarded", "clr")):
            running.append(_start(folder / name, app))
        yield tuple(_ready(*one) for one in running)  # type: ignore[misc]
    finally:
        for process, _, _ in running:
            process.terminate()
            process.wait(timeout=30)


def _start(root: Path, app: str) -> tuple[subprocess.Popen[bytes], str, Path]:
    from cryptography.fernet import Fernet

    from clr.registry.server import config

    settings = Settings(workspace=root, home=root / ".clr")
    config.write_auth(settings)
    port, log = free_port(), root / "log"
    arguments = config.server_arguments(settings, "127.0.0.1", port)
    arguments[arguments.index("--app-name") + 1] = app
    environment = config.server_environment(
        settings, os.environ, secrets.token_hex(32), Fernet.generate_key().decode()
    )
    environment["MLFLOW_AUTH_ADMIN_PASSWORD"] = PASSWORD
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *arguments], stdout=out, stderr=out, env=environment
        )
    return process, f"http://127.0.0.1:{port}", log


def _ready(process: subprocess.Popen[bytes], url: str, log: Path) -> Server:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with suppress(requests.RequestException):
            if requests.get(f"{url}/health", timeout=5).status_code == 200:
                client = requests.Session()
                client.trust_env = False
                return Server(url, client, process.pid)
        time.sleep(0.2)
    raise RuntimeError(f"The server does not start: {log.read_text()[-3000:]}")
