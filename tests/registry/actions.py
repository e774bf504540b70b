"""What other processes do in these tests; run by workshop.py, one process an act."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from clr.registry import releases, runs, store, versions
from clr.registry.package import BackboneReference
from clr.settings import Settings

DATA = "md5:" + "d" * 32 + ".dir"


def open_at(state: str, url: str = "") -> store.Registry:
    """Open the registry of a state folder or of a server."""
    return store.open_registry(Settings(workspace=Path(state), home=Path(state), registry_url=url))


def look(state: str, url: str = "") -> str:
    """Open a registry and list its tasks."""
    return ",".join(versions.tasks(open_at(state, url)))


def register(
    state: str, task: str, adapter: str, backbone: dict[str, Any], *, url: str = "", key: str = ""
) -> dict[str, Any]:
    """Do all that a run does to the registry, from first to last."""
    from clr.registry.dataset import dvc_dataset

    registry, key = open_at(state, url), key or f"sha256:{task}"
    run = runs.find_or_start_run(registry, task, key, name=task)
    data = dvc_dataset(task, DATA, profile={"images": 3})
    runs.log_dataset(registry, run, data)
    runs.log_params(registry, run, {"seed": 0})
    for epoch in range(2):
        runs.log_epoch(registry, run, epoch, {"train_loss": 1.0 - epoch / 2})
    runs.log_bytes(registry, run, {"plots/a.png": b"png", "gate.json": b"{}"})
    version = versions.register_adapter(
        registry,
        run,
        Path(adapter),
        key=key,
        backbone=BackboneReference(**backbone),
        data_digest=DATA,
        card="# Card",
        tags={"clr.verdict": "pass"},
        metrics={"accuracy": 0.75},
        dataset=data,
    )
    versions.set_candidate(registry, version)
    runs.finish(registry, run)
    return {"run": run.id, "version": version.version, "model_id": version.model_id}


def promote(state: str, task: str, digest: str, gate: str, *, url: str = "") -> dict[str, Any]:
    """Promote version 1 of a task."""
    registry = open_at(state, url)
    champion = releases.ChampionRef(task, 1, digest, DATA, "run")
    made = releases.promote(registry, champion, gate_release=gate, backbone="sha256:b")
    return {"version": made.version, "digest": made.digest}


def load_without_pickle(state: str, task: str) -> list[str]:
    """Load and use the candidate while every unpickling of a class is an error."""
    from clr.registry.model import load_version

    registry, found = open_at(state), []

    def forbid(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "pickle.find_class":
            found.append(f"{arguments[0]}.{arguments[1]}")

    sys.addaudithook(forbid)
    load_version(registry, task, "candidate")
    return found
