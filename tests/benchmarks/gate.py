"""What the retention gate costs over 3, 30 and 300 registered tasks.

Real adapters over the default backbone, in a real registry, with real test
images; each task has 2 classes and 40 test images. `cold` is the first gate of
a process (it reads, checks and attaches every adapter), `warm` the second.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from clr.settings import Settings
from flows import embedded
from flows.session import Session

SIZES = (3, 30, 300)
CLASSES = ("left", "right")
IMAGES = 20
"""Test images of each class."""


def main() -> None:
    """Time one gate over 3, 30 and 300 earlier tasks, in milliseconds a task."""
    print("  tasks  identical  replayed  cold ms/task  warm ms/task")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(Path(folder), size)
        print(
            f"{size:>7} {row['identical']:>10} {row['replayed']:>9} "
            f"{row['cold']:>13.1f} {row['warm']:>13.1f}",
            flush=True,
        )


def measure(folder: Path, size: int) -> dict[str, Any]:
    """Register `size` tasks, make them one release, and time the gate for a newcomer."""
    from clr.registry.releases import current_release
    from flows.judge import judge

    session = _session(folder)
    for number in range(size):
        _images(folder / "data" / f"task-{number}", seed=number)
    _images(folder / "data" / "newcomer", seed=size)
    _pin(session)
    _release(session, [_register(session, f"task-{number}") for number in range(size)])
    newcomer, digest = _adapter(session, "newcomer")
    evidence = _evidence(session, newcomer, digest)
    row: dict[str, Any] = {}
    for name in ("cold", "warm"):
        if name == "cold":
            session = _session(folder)
            session.backbone
            session.network.attach(newcomer, digest)
        release = current_release(session.registry)
        started = time.perf_counter()
        judged = judge(session, evidence, release)
        row[name] = 1000 * (time.perf_counter() - started) / size
        assert judged.report["metrics"]["earlier_tasks"] == size
        broken = [key for key in judged.report["failed"] if not key.endswith(":newcomer")]
        assert not broken, broken
    checks = [one for one in judged.report["checks"] if one["name"] == "retention"]
    row["identical"] = sum(not one["facts"].get("replayed") for one in checks)
    row["replayed"] = size - row["identical"]
    return row


def _session(folder: Path) -> Session:
    from clr.data.workspace import init_workspace

    init_workspace(folder)
    settings = Settings(workspace=folder, home=folder / ".clr")
    embedded.prepare(settings)
    return Session(settings)


def _adapter(session: Session, task: str) -> tuple[Any, str]:
    import torch

    from clr.core.adapter import AdapterSpec, adapter_bytes, new_adapter
    from clr.core.files import sha256_bytes
    from clr.core.images import Preprocessing

    backbone = session.backbone
    way = Preprocessing(96, backbone.mean, backbone.std, backbone.interpolation)
    spec = AdapterSpec(task, CLASSES, backbone.name, backbone.digest, way)
    generator = torch.Generator().manual_seed(sum(task.encode()))
    head = torch.randn(2, backbone.channels, generator=generator), torch.zeros(2)
    adapter = new_adapter(spec, backbone, head)
    for name, tensor in adapter.tensors.items():
        if name.startswith("kernels."):
            tensor.add_(0.01 * torch.randn(tensor.shape, generator=generator))
    return adapter, sha256_bytes(adapter_bytes(adapter))


def _evidence(session: Session, adapter: Any, digest: str) -> Any:
    from clr.core.evaluate import predicted, run
    from clr.core.evidence import Evidence, canary_logits, preprocessing_digest
    from clr.core.routing import statistics
    from flows.job import images_of
    from flows.measure import numeric_environment, router_features, test_digest

    spec = adapter.spec
    folder = session.settings.workspace / "data" / spec.task
    images = images_of(session, folder, "test", spec)
    session.network.attach(adapter, digest)
    logits = run(
        lambda batch: session.network.logits(batch, digest),
        images,
        spec.preprocessing,
        session.backbone.device,
    )
    features, labels = router_features(session, folder, "test", spec)
    about = {
        "task": spec.task,
        "labels": list(spec.labels),
        "adapter": digest,
        "backbone": session.backbone.digest,
        "majority": 0,
        "params_pct": 1.7,
        "adapter_bytes": 340_000,
        "latency": {"p50": 1.0, "p95": 1.0, "bare_p50": 1.0, "bare_p95": 1.0},
        "digests": dict.fromkeys(
            ("data", "code", "environment", "backbone", "adapter", "recipe"), digest
        ),
        "preprocessing": preprocessing_digest(spec.preprocessing),
        "environment": numeric_environment(session),
        "test": test_digest(images, folder),
        "test_files": [path.relative_to(folder).as_posix() for path in images.paths],
    }
    evidence = Evidence(
        about,
        images.labels.numpy(),
        predicted(logits),
        np.zeros(len(images), dtype=np.int64),
        features,
        statistics(features, labels, len(CLASSES)),
        canary_logits(session.network, digest),
    )
    session.network.detach(digest)
    return evidence


def _images(folder: Path, seed: int) -> None:
    from PIL import Image

    generator = np.random.default_rng(seed)
    for name in CLASSES:
        place = folder / "test" / name
        place.mkdir(parents=True, exist_ok=True)
        for number in range(IMAGES):
            pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number:02d}.png")


def _pin(session: Session) -> None:
    from clr.data import dvc, objects

    with dvc.open_repo(session.settings) as repo:
        objects.add(repo)


def _register(session: Session, task: str) -> Any:
    from clr.core.adapter import save_adapter
    from clr.core.files import sha256_bytes, write_atomic
    from clr.data.check import task_digest
    from clr.registry.package import BackboneReference
    from clr.registry.release import ChampionRef
    from clr.registry.runs import find_or_start_run
    from clr.registry.versions import register_adapter

    adapter, digest = _adapter(session, task)
    data = _evidence(session, adapter, digest).to_bytes()
    write_atomic(session.evidence_copy(sha256_bytes(data)), data)
    path = session.settings.state / "adapter.safetensors"
    save_adapter(adapter, path)
    run = find_or_start_run(session.registry, task, digest)
    backbone = session.backbone
    version = register_adapter(
        session.registry,
        run,
        path,
        key=digest,
        backbone=BackboneReference(backbone.name, backbone.digest),
        data_digest=task_digest(session.settings.workspace, task),
        card="",
        tags={},
    )
    return ChampionRef(
        task, version.version, digest, version.data_digest, run.id, sha256_bytes(data)
    )


def _release(session: Session, champions: list[Any]) -> None:
    from clr.core.files import sha256_bytes
    from clr.core.routing import Router
    from clr.registry.release import Release
    from clr.registry.releases import activate, write_release

    report = json.dumps({"matrix": None}).encode()
    router = Router({one.task: session.evidence(one).statistics for one in champions})
    tasks = {one.task: one for one in champions}
    release = Release(session.backbone.digest, tasks, router.digest, sha256_bytes(report))
    activate(session.registry, write_release(session.registry, release, {"gate.json": report}))
