"""The services of ``clr up``: what each is started with, and what it may know.

Only the release service gets the release password; the registry server and Prefect's server
get their own secrets; nobody else gets any of these. Flows sign in at the registry as
``clr-trainer``.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from clr.errors import ServiceUnavailable
from clr.registry.server import secrets
from clr.registry.server.config import common_environment, reachable_url
from clr.serving.keys import METRICS_KEY
from clr.settings import Settings
from flows import embedded, prefect_server, warm
from flows.prefect_api import send
from flows.running import API, AUTH
from flows.supervise import Child
from flows.up import Plan, registry_child, service_child

MOST_AT_ONCE = 4
REGISTRY_RUNS = 2
"""Flow runs at once in the pool ``registry``, which wait more than they work."""

_OF_SERVERS = frozenset(
    {
        "CLR_PREFECT_DATABASE",
        "CLR_REGISTRY_DATABASE",
        secrets.FLASK_KEY.variable,
        secrets.WEBHOOK_KEY.variable,
    }
)


@dataclass(frozen=True)
class Addresses:
    """Where everything is to be.

    Attributes:
        plan: of the registry server and its release service.
        prefect_host: address that Prefect's server listens on; empty: one elsewhere is used.
        prefect_port: on it.
        prefect: its address, without ``/api``.
        metrics_port: of the watcher; 0: none.
        serve_port: of the prediction server; 0: none.
    """

    plan: Plan
    prefect_host: str
    prefect_port: int
    prefect: str
    metrics_port: int
    serve_port: int

    @property
    def settings(self) -> Settings:
        """Of the workspace."""
        return self.plan.settings


@dataclass(eq=False)
class Part:
    """One service.

    Attributes:
        child: its process.
        address: for people and other programs; empty: it has none.
        health: answers 200 when it works; empty: it works while it runs.
        online: says whether it works, where no address does.
        after: parts that have to work before it is started.
        once: it is to end, with exit code 0, and then has done its work.
        up: it has worked since this command began.
    """

    child: Child
    address: str = ""
    health: str = ""
    online: Callable[[Child], bool] | None = None
    after: tuple[str, ...] = ()
    once: bool = False
    up: bool = False


def parts(at: Addresses) -> dict[str, Part]:
    """Return all services by name, none started, in the order in which they start.

    Raises:
        UsageError: a setting or secret cannot be used.
        ServiceUnavailable: a secret cannot be written or read.
    """
    plan, settings = at.plan, at.settings
    auth = os.environ.get(AUTH, "") if not at.prefect_host else _own_auth(settings)
    known = {API: f"{at.prefect}/api", **({AUTH: auth} if auth else {})}
    made: dict[str, Part] = {}
    if at.prefect_host:
        server = prefect_server.lasting(
            settings, at.prefect_host, at.prefect_port, at.prefect, auth
        )
        made["prefect"] = Part(server, at.prefect, f"{at.prefect}/api/health")
    made["registry"] = Part(registry_child(plan), plan.url, f"{plan.url}/health")
    service = service_child(plan, {**embedded.defaults(settings), **known})
    without_servers(service.environment)
    made["release-service"] = Part(service, plan.service_url, f"{plan.service_url}/health")
    common = flow_environment(
        settings, plan.url, settings.release_service or plan.service_url, known
    )
    later = ("prefect",) if at.prefect_host else ()
    if importlib.util.find_spec("flows.deployments"):
        child = _child(settings, "deployments", ["flows.deployments"], common)
        made["deployments"] = Part(child, after=later, once=True)
        later = ("deployments",)
    warm_socket = settings.state / "server" / "warm.sock"
    if sys.platform.startswith("linux"):  # elsewhere a fork of what has loaded this much is unsafe
        command = ["flows.warm", "serve", str(warm_socket)]
        loaded = _child(settings, "warm", command, worker(settings, "cpu", common).environment)
        made["warm"] = Part(loaded, after=later)
        common = {**common, warm.VARIABLE: str(warm_socket)}
    for pool in pools(settings):
        child, online = worker(settings, pool, common), _polls(pool, known[API], auth)
        made[f"worker-{pool}"] = Part(child, online=online, after=later)
    if importlib.util.find_spec("flows.watch"):
        command = ["flows.watch", "--port", str(at.metrics_port)]
        address = reachable_url(settings.metrics_host, at.metrics_port) if at.metrics_port else ""
        child = _child(settings, "watcher", command, common)
        made["watcher"] = Part(child, address, address and f"{address}/health", after=later)
    if at.serve_port:
        child = serving(settings, plan.url, settings.serve_host, at.serve_port)
        address = reachable_url(settings.serve_host, at.serve_port)
        made["serving"] = Part(child, address, f"{address}/v2/health/live", after=("registry",))
    return made


def pools(settings: Settings) -> tuple[str, ...]:
    """Return the work pools that this machine has workers for."""
    return ("gpu", "cpu", "registry") if _has_cuda(settings) else ("cpu", "registry")


def at_once(settings: Settings) -> int:
    """Return how many onboardings this machine runs at once."""
    return settings.parallel or min(MOST_AT_ONCE, max(1, _cores() // 2))


def _own_auth(settings: Settings) -> str:
    return secrets.ensure_secret(settings.state, secrets.PREFECT_AUTH)


def _has_cuda(settings: Settings) -> bool:
    if settings.device in ("cpu", "mps") or not Path("/dev/nvidiactl").exists():
        return settings.device == "cuda"
    import torch  # takes seconds: only where there is a driver

    return bool(torch.cuda.is_available())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def flow_environment(
    settings: Settings, registry: str, service: str, known: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of whatever runs or starts flows.

    Args:
        settings: of the workspace.
        registry: address of the registry server.
        service: address of the release service.
        known: what Prefect's client needs to know.
    """
    given = os.environ
    environment = {
        **common_environment(settings, given),
        **embedded.defaults(settings),
        "CLR_REGISTRY_URL": registry,
        "CLR_RELEASE_SERVICE": service,
        # a pool's command says `python`: the one that has all this, whoever is first in PATH
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), given.get("PATH", os.defpath))),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        **known,
    }
    for secret in (secrets.TRAINER_PASSWORD,):
        if given.get(secret.variable):
            environment[secret.variable] = given[secret.variable]
    without_servers(environment)
    return environment


def serving(settings: Settings, registry: str, host: str, port: int) -> Child:
    """Return the prediction server, not started; of all secrets it gets its own password alone.

    Args:
        settings: of the workspace.
        registry: address of the registry server.
        host: address to listen on.
        port: on it.
    """
    environment = {
        **common_environment(settings, os.environ),
        "CLR_REGISTRY_URL": registry,
    }
    own = (secrets.SERVER_PASSWORD.variable, METRICS_KEY)
    environment |= {name: os.environ[name] for name in own if os.environ.get(name)}
    without_servers(environment)
    command = ["flows.cli", "serve", "--host", host, "--port", str(port)]
    return _child(settings, "serving", command, environment)


def without_servers(environment: dict[str, str]) -> None:
    """Take out of `environment` what only the servers may know."""
    for name in [
        one for one in environment if one in _OF_SERVERS or one.startswith("PREFECT_SERVER_")
    ]:
        if name != "PREFECT_SERVER_ANALYTICS_ENABLED":
            del environment[name]


def worker(settings: Settings, pool: str, common: Mapping[str, str]) -> Child:
    """Return the worker of a pool, not started; `common` is `flow_environment`."""
    limit = REGISTRY_RUNS if pool == "registry" else at_once(settings)
    environment = {
        **common,
        "CLR_THREADS": str(settings.threads or max(1, _cores() // at_once(settings))),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
        "PREFECT_WORKER_QUERY_SECONDS": "0.7",
    }
    secret = secrets.WEBHOOK_SECRET  # signs what asks the release service to look
    if pool == "registry" and os.environ.get(secret.variable):
        environment[secret.variable] = os.environ[secret.variable]
    command = [
        *("prefect", "worker", "start", "--type", "process", "--pool", pool),
        *("--limit", str(limit), "--name", _machine()),
    ]
    # the job templates say `python`, wherever a worker's is (flows/deployments.py)
    own = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join((own, environment.get("PATH", os.defpath)))
    child = _child(settings, f"worker-{pool}", command, environment)
    child.orphaned = signal.SIGKILL  # asked, it would first tell a server that is gone, too
    return child


def _machine() -> str:
    return platform.node() or "clr"


def _polls(pool: str, api: str, auth: str) -> Callable[[Child], bool]:
    """Return what says whether Prefect's server has heard of a worker since it was started."""

    def online(child: Child) -> bool:
        try:
            found = send(api, auth, f"/work_pools/{pool}/workers/filter", {}, 2.0)
        except ServiceUnavailable:
            return False
        heard = (one["last_heartbeat_time"] for one in found if one["name"] == _machine())
        return any(
            datetime.fromisoformat(time) >= datetime.fromisoformat(child.started_at)
            for time in heard
            if time
        )

    return online


def _child(
    settings: Settings, name: str, command: list[str], environment: Mapping[str, str]
) -> Child:
    log = settings.state / "logs" / f"{name}.log"
    return Child(name, [sys.executable, "-m", *command], environment, settings.workspace, log)
