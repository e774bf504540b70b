"""``clr up``: every service of one machine, started side by side, watched, stopped in order."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from contextlib import closing
from dataclasses import asdict
from typing import BinaryIO

from clr.core.files import canonical_json, write_atomic
from clr.registry.server import config, secrets
from clr.settings import Settings
from flows import output, running
from flows.parts import Addresses, Part, parts
from flows.running import API, Running
from flows.starting import only_one, see_idle, see_port, stop_on_signals, warn
from flows.supervise import answers, stop, unused_ports
from flows.up import Plan, dead, place_of, preparing, start_preparing

LOG = logging.getLogger("clr")
READY_SECONDS = 300.0
ATTEMPTS = 3
"""How often what is to end well is tried again."""

RUNS_SECONDS, SERVERS_SECONDS = 8.0, 6.0
"""How long flow runs, then servers, have to end when all is stopped."""

Parts = dict[str, Part]


def run_all(settings: Settings, *, free_ports: bool = False, as_json: bool = False) -> None:
    """Start every service of a workspace and keep it running until a signal comes.

    Args:
        settings: of the workspace.
        free_ports: let the system choose all ports.
        as_json: whether stdout gets one JSON line when all is ready: see `Running`.

    Raises:
        UsageError: policy, webhooks, a setting or a secret cannot be used.
        ServiceUnavailable: a port is taken, the servers run already, or one does not start.
    """
    output.log_to_stderr()
    began, stopping = time.monotonic(), stop_on_signals()
    at = addresses(settings, free_ports)
    with only_one(settings, at.plan.url):
        warn(settings)
        see_idle(settings)
        if not free_ports:
            _see_ports(at)
        made = parts(at)
        try:
            if _start(at.plan, made, stopping):
                LOG.info("ready     after %.1f s", time.monotonic() - began)
                told = _tell(at, made)
                _announce(settings, told, as_json)
                while not stopping.wait(0.2):
                    _keep(settings, made)
        finally:
            LOG.info("stop      …")
            _stop(made, settings.serve_drain_seconds)
    LOG.info("stopped")


def addresses(settings: Settings, free_ports: bool) -> Addresses:
    """Return where everything is to be: as configured, or at ports that are free now.

    A Prefect server that the environment names (``PREFECT_API_URL``) is used, and none started.
    """
    free = iter(unused_ports(5))

    def port(configured: int) -> int:
        return next(free) if free_ports and configured else configured

    host, number = settings.registry_host, port(settings.registry_port)
    plan = Plan(settings, host, number, config.reachable_url(host, number), next(free))
    elsewhere = os.environ.get(API, "").rstrip("/").removesuffix("/api")
    own = port(settings.prefect_port)
    return Addresses(
        plan,
        "" if elsewhere else settings.prefect_host,
        own,
        elsewhere or config.reachable_url(settings.prefect_host, own),
        port(settings.metrics_port),
        port(settings.serve_port),
    )


def _see_ports(at: Addresses) -> None:
    wanted = {
        "CLR_REGISTRY_PORT": (at.plan.host, at.plan.port),
        "CLR_METRICS_PORT": (at.settings.metrics_host, at.metrics_port),
        "CLR_SERVE_PORT": (at.settings.serve_host, at.serve_port),
    }
    if at.prefect_host:
        wanted["CLR_PREFECT_PORT"] = (at.prefect_host, at.prefect_port)
    for name, (host, port) in wanted.items():
        if port:
            fix = f"Set {name} to another, or let all be chosen: clr up --free-ports."
            see_port(host, port, fix)


def _start(plan: Plan, made: Parts, stopping: threading.Event) -> bool:
    """Start each as soon as what it needs works; False if a signal came first.

    Raises:
        ClrError: the registry cannot be prepared, or something does not start.
    """
    deadline = time.monotonic() + READY_SECONDS
    for name, part in made.items():
        if name not in ("registry", "release-service") and not part.after:
            part.child.start()
    with closing(start_preparing(plan, made["registry"].child)) as report:
        more = True
        while not stopping.is_set() and not all(part.up for part in made.values()):
            more = _prepared(report, made, more, stopping)
            for name, part in made.items():
                _advance(name, part, made)
            if not made["registry"].child.running and not more:
                raise dead(made["registry"].child, "ended while it was starting")
            if time.monotonic() > deadline:
                late = next(part for part in made.values() if not part.up)
                raise dead(late.child, f"did not answer within {READY_SECONDS:.0f} s")
    return not stopping.is_set()


def _prepared(report: BinaryIO, made: Parts, more: bool, stopping: threading.Event) -> bool:
    """Tell what the registry prepares; once it has, start the release service."""
    if not more:
        stopping.wait(0.2)
        return False
    more = preparing(report, 0.2)
    if not more:
        made["release-service"].child.start()
    return more


def _advance(name: str, part: Part, made: Parts) -> None:
    """Start a part whose turn it is, start it again if it ended, see whether it works."""
    child = part.child
    if part.up:
        if not part.once:
            child.keep()
        return
    if child.process is None:
        if part.after and all(made[one].up for one in part.after):
            child.start()
        return
    if part.once:
        part.up = not child.running and child.process.returncode == 0
    elif part.online:
        part.up = child.running and part.online(child)
    else:
        part.up = answers(part.health, 1.0) if part.health else child.running
    if part.up:
        LOG.info("%-15s %s", name, part.address or ("done" if part.once else "runs"))
    elif part.once and child.restarts >= ATTEMPTS and not child.running:
        raise dead(child, f"failed {ATTEMPTS + 1} times")
    elif name != "registry":
        child.keep()


def _tell(at: Addresses, made: Parts) -> Running:
    """Tell the commands of this workspace what runs."""
    watcher, serving = made.get("watcher"), made.get("serving")
    told = Running(
        os.getpid(),
        at.plan.url,
        at.plan.service_url,
        f"{at.prefect}/api",
        watcher.address if watcher else "",
        serving.address if serving else "",
    )
    _note(at.settings, made)
    running.write(at.settings, told)
    return told


def _keep(settings: Settings, made: Parts) -> None:
    before = [part.child.started_at for part in made.values()]
    for part in made.values():
        if not part.once:
            part.child.keep()
    if before != [part.child.started_at for part in made.values()]:
        _note(settings, made)


def _note(settings: Settings, made: Parts) -> None:
    """Write what `clr status` tells of each part."""
    known = {
        name: {
            "address": part.address,
            "health": part.health,
            "pid": part.child.process.pid if part.child.process else None,
            "since": part.child.started_at,
            "restarts": part.child.restarts,
        }
        for name, part in made.items()
        if not part.once
    }
    write_atomic(running.parts_path(settings), canonical_json(known))


def _announce(settings: Settings, told: Running, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(told)), flush=True)
        return
    lines = [
        f"registry  {told.registry}",
        f"          sign in as a user of `clr users add`, or as admin; its password is "
        f"{place_of(settings, secrets.ADMIN_PASSWORD)}",
        f"prefect   {told.prefect.removesuffix('/api')}",
    ]
    if not os.environ.get(API):
        lines.append(f"          user:password is {place_of(settings, secrets.PREFECT_AUTH)}")
    lines += [f"metrics   {told.metrics}/metrics"] * bool(told.metrics)
    lines += [f"serving   {told.serving}"] * bool(told.serving)
    lines += [
        f"incoming  {settings.inbox}",
        f"logs      {settings.state / 'logs'}",
        f"stop      Ctrl-C, or kill {told.pid}",
    ]
    print("\n".join(lines), flush=True)


def _stop(made: Parts, drain_seconds: float) -> None:
    """Stop what starts runs, then what carries out decisions, then what all of them need.

    The prediction server gets `drain_seconds` for the requests that it has in work.
    """
    servers = ("registry", "prefect")
    deciding = ("release-service", "serving")
    first = [part.child for name, part in made.items() if name not in servers + deciding]
    stop(first, RUNS_SECONDS)
    seconds = max(SERVERS_SECONDS, drain_seconds + 1)
    stop([made[name].child for name in deciding if name in made], seconds)
    stop([made[name].child for name in servers if name in made], SERVERS_SECONDS)
