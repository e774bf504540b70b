"""Seconds from a folder in ``incoming/`` of a running `clr up` to the champion, leg by leg.

A task of `CLR_BENCH_IMAGES` pictures (2,000) with the default settings and backbone
(`CLR_BENCH_BACKBONE=small`: one of half a million weights), registered with no other act, approved
through the address that MLflow's page uses, served. Orchestration is whatever is not validation,
training, measuring or the gate: waiting, starting, loading, versions of data and registry.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from clr.data.workspace import init_workspace
from clr.registry.server.templates import TEMPLATES
from clr.settings import Settings
from flows import arrivals
from tests import factory
from tests.waiting import until

IMAGES = int(os.environ.get("CLR_BENCH_IMAGES", "2000"))
EPOCHS = int(os.environ.get("CLR_BENCH_EPOCHS", "12"))
TASKS = int(os.environ.get("CLR_BENCH_DROPS", "2"))
SMALL = os.environ.get("CLR_BENCH_BACKBONE", "default") == "small"
WORK = ("validate", "baseline", "train", "measure", "gate")
Legs = dict[str, float]


def main() -> None:
    """Print seconds of wall time, and what orchestration costs."""
    with tempfile.TemporaryDirectory(prefix="clr-legs-") as name:
        folder = Path(name)
        plant, password = _plant(folder)
        running = factory.start(plant)
        print(f"  clr up is ready after {running.seconds:.1f} s\n", flush=True)
        try:
            for number in range(TASKS):
                _show(number, legs(running, _task(folder, number), password))
        finally:
            factory.end(running)


def _plant(folder: Path) -> tuple[Any, str]:
    from tests.conftest import ARCHITECTURE, WEIGHTS, Plant, _make_weights

    settings = {"CLR_DEVICE": "cpu"}
    if SMALL:
        (folder / "weights").mkdir()
        settings |= {
            "CLR_BACKBONE_SHA256": _make_weights(folder / "weights"),
            "CLR_BACKBONE": f"file:{folder / 'weights' / WEIGHTS}",
            "CLR_BACKBONE_ARCHITECTURE": ARCHITECTURE,
        }
    plant, password = Plant(folder / "plant", settings), secrets.token_hex(12)
    init_workspace(plant.root, TEMPLATES)
    done = plant.clr("users", "add", "alice", "--role", "reviewer", CLR_PASSWORD=password)
    assert done.code == 0, done
    return plant, password


def _task(folder: Path, number: int) -> Path:
    from tests.conftest import make_task

    train = int(IMAGES * 0.8) // 2
    place = folder / "tasks" / f"caps-{number}"
    return make_task(place, number, train=train, test=IMAGES // 2 - train, epochs=EPOCHS)


def legs(running: factory.Factory, folder: Path, password: str) -> Legs:
    """Drop a task, approve it, wait until it serves; return the seconds of each leg."""
    name = folder.name
    settings = Settings(workspace=running.plant.root)

    def record() -> arrivals.Arrival | None:
        time.sleep(0.1)
        known = arrivals.read_all(settings)
        return next((one for one in known if one.task == name and one.finished), None)

    running.drop(folder)
    dropped = time.time()
    done = until(record, 3600)
    ended = time.time()
    assert done.state == "done", done
    run = running.api("GET", f"/flow_runs/{done.flow_run}")
    states = running.api("GET", f"/flow_run_states/?flow_run_id={run['id']}")
    at = {one["name"]: _time(one["timestamp"]) for one in reversed(states)}
    began = min(_time(line["timestamp"]) for line in _lines(running, run["id"], "validate  …"))
    took = done.result["seconds"]
    work = sum(took[step] for step in WORK)
    found: Legs = {
        "folder complete, seen": _time(done.seen_at) - dropped,
        "told to Prefect": _time(done.announced_at) - _time(done.seen_at),
        "event to flow run": _time(run["created"]) - _time(done.announced_at),
        "a worker takes it": at["Pending"] - _time(run["created"]),
        "its process begins": at["Running"] - at["Pending"],
        "loads, until validation": began - at["Running"],
        **{step: took[step] for step in WORK},
        "data version": took["version"],
        "registration": took["register"],
    }
    found["between steps, end"] = ended - began - sum(took[one] for one in (*WORK, "version",
                                                                        "register"))  # fmt: skip
    found["folder to candidate"] = ended - dropped
    found["of it orchestration"] = ended - dropped - work
    found["approval to champion"] = _approve(running, name, password)
    return found


def _lines(running: factory.Factory, run: str, start: str) -> list[dict[str, Any]]:
    def there() -> list[dict[str, Any]]:
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200}
        lines = running.api("POST", "/logs/filter", body)
        return [line for line in lines if line["message"].startswith(start)]

    return list(until(there, 30))


def _approve(running: factory.Factory, task: str, password: str) -> float:
    """Approve version 1 as MLflow's page does; return the seconds until it serves."""
    began = time.monotonic()
    body = {"name": f"clr-{task}", "version": "1", "key": "review", "value": "approved"}
    answer = requests.post(
        f"{running.registry}/ajax-api/2.0/mlflow/model-versions/set-tag",
        json=body,
        auth=("alice", password),
        timeout=60,
    )
    assert answer.ok, answer.text

    def serves() -> bool:
        known = running.mlflow("registered-models/get", name=f"clr-{task}")["registered_model"]
        return any(one["alias"] == "champion" for one in known.get("aliases", ()))

    assert until(serves, 120), running.said()[-4000:]
    return time.monotonic() - began


def _time(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _show(number: int, found: Legs) -> None:
    which = "first task" if number == 0 else f"task {number + 1}"
    print(f"  {which}: {IMAGES} images, {EPOCHS} epochs, load {os.getloadavg()[0]:.1f}")
    for leg, seconds in found.items():
        print(f"    {leg:26} {seconds:8.2f} s")
    share = found["of it orchestration"] / found["folder to candidate"]
    print(f"    {'share of orchestration':26} {100 * share:8.1f} %\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
