"""A workspace with any number of synthetic tasks in seconds: for measurements of growth.

Adapters, evidence, images, DVC's objects and files of the registry are real ones. One task goes
through the registry's own functions; its rows are the pattern for those of the others, which are
inserted at once, with their own names, numbers and digests.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clr.settings import Settings
from flows import embedded
from flows.session import EVIDENCE_FILE, Session

CLASSES = ("left", "right")
IMAGES = int(os.environ.get("CLR_BENCH_IMAGES", "5"))
"""Test images of each class."""

SMALL = "test_resnet"
SIDE = 32


@dataclass(frozen=True)
class Names:
    """What tells the rows and files of one task from those of another."""

    task: str
    run: str
    model: str
    adapter: str
    data: str
    evidence: str
    experiment: str

    def rewrite(self, value: Any, pattern: Names) -> Any:
        """Return a column's value of the pattern as it is for this task."""
        if value == pattern.task:
            return self.task
        if not isinstance(value, str):
            return value
        for name in ("run", "model", "adapter", "data", "evidence"):
            value = value.replace(getattr(pattern, name), getattr(self, name))
        return value.replace(f"clr-{pattern.task}", f"clr-{self.task}").replace(
            f"clr/{pattern.task}", f"clr/{self.task}"
        )


def workspace(folder: Path, *, small: bool = True, **settings: Any) -> Session:
    """Return a session of a new (or known) workspace, by default with a small seeded backbone."""
    from clr.data.workspace import init_workspace

    init_workspace(folder)
    values = {"threads": 1, **settings}  # two threads on so small a network wait for each other
    if small:
        path = folder.parent / f"{SMALL}.safetensors"
        values |= {
            "backbone": f"file:{path}",
            "backbone_architecture": SMALL,
            "backbone_sha256": _weights(path),
        }
    made = Settings(workspace=folder, home=folder / ".clr", device="cpu", **values)
    embedded.prepare(made)
    return Session(made)


def _weights(path: Path) -> str:
    if not path.is_file():
        import safetensors.torch
        import timm
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(0)
            state = timm.create_model(SMALL, pretrained=False).state_dict()
        safetensors.torch.save_file(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def images(folder: Path, seed: int, count: int = IMAGES) -> None:
    """Write a test split, `count` images a class, whose colours no other task has."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    tint = generator.integers(20, 200, (2, 1, 1, 3))
    for number, name in enumerate(CLASSES):
        place = folder / "test" / name
        place.mkdir(parents=True, exist_ok=True)
        for image in range(count):
            noise = generator.integers(0, 56, (SIDE, SIDE, 3))
            pixels = (noise + tint[number]).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{image:02d}.png", compress_level=1)


def pin(session: Session) -> None:
    """Let DVC know all of ``data/``."""
    from clr.data import dvc, objects

    with dvc.open_repo(session.settings) as repo:
        objects.add(repo)


def adapter(session: Session, task: str, side: int = SIDE) -> tuple[Any, bytes]:
    """Return an adapter of random kernels near identity, for images of `side`, and its bytes."""
    import torch

    from clr.core.adapter import AdapterSpec, adapter_bytes, new_adapter
    from clr.core.images import Preprocessing

    backbone = session.backbone
    way = Preprocessing(side, backbone.mean, backbone.std, backbone.interpolation)
    spec = AdapterSpec(task, CLASSES, backbone.name, backbone.digest, way)
    generator = torch.Generator().manual_seed(
        int(hashlib.sha256(task.encode()).hexdigest()[:8], 16)
    )
    head = torch.randn(2, backbone.channels, generator=generator), torch.zeros(2)
    made = new_adapter(spec, backbone, head)
    for name, tensor in made.tensors.items():
        if name.startswith("kernels."):
            tensor.add_(0.01 * torch.randn(tensor.shape, generator=generator))
    return made, adapter_bytes(made)


def evidence(session: Session, made: Any, digest: str, data: str = "") -> Any:
    """Return the evidence of an adapter on its test images in ``data/``, whose digest is `data`."""
    import torch

    from clr.core.described import describe
    from clr.core.evaluate import confidences, predicted
    from clr.core.evidence import Evidence, canary_logits, preprocessing_digest
    from clr.core.images import prepare
    from clr.core.routing import project
    from flows.job import images_of
    from flows.measure import numeric_environment, router_preprocessing, test_digest

    spec = made.spec
    folder = session.settings.workspace / "data" / spec.task
    found = images_of(session, folder, "test", spec)
    session.network.attach(made, digest)
    everything = found.batch(torch.arange(len(found)))
    logits = session.network.logits(prepare(everything, spec.preprocessing), digest)
    way = router_preprocessing(session)
    seen = images_of(session, folder, "test", spec, preprocessing=way)
    batch = prepare(seen.batch(torch.arange(len(seen))), way)
    features = project(session.network.features(batch).numpy())
    labels = found.labels.numpy()
    about = {
        "task": spec.task,
        "labels": list(spec.labels),
        "adapter": digest,
        "backbone": session.backbone.digest,
        "majority": 0,
        "params_pct": 1.7,
        "adapter_bytes": 340_000,
        "latency": {"p50": 1.0, "p95": 1.0, "bare_p50": 1.0, "bare_p95": 1.0},
        "digests": {
            **dict.fromkeys(("code", "environment", "adapter", "recipe"), digest),
            "backbone": session.backbone.digest,
            "data": data or digest,
        },
        "preprocessing": preprocessing_digest(spec.preprocessing),
        "environment": numeric_environment(session),
        "test": test_digest(found, folder),
        "test_files": [path.relative_to(folder).as_posix() for path in found.paths],
    }
    probe = np.zeros(len(found), dtype=np.int64)
    canary = canary_logits(session.network, digest)
    session.network.detach(digest)
    described = describe(features, labels, len(CLASSES))
    sure = confidences(logits)
    return Evidence(about, labels, predicted(logits), probe, features, described, canary, sure)


def register(session: Session, tasks: list[str], side: int = SIDE) -> list[Any]:
    """Register tasks whose images are pinned; return them as champions of a release.

    The first through the registry's own functions, the others by its pattern.
    """
    from clr.core.files import sha256_bytes, write_atomic
    from clr.data.check import task_digests
    from clr.registry.release import ChampionRef
    from flows.measure import numeric_environment  # noqa: F401 - imported before the clock runs

    digests = task_digests(session.settings.workspace)
    known: list[Names] = []
    files: dict[str, bytes] = {}
    for number, task in enumerate(tasks):
        made, data = adapter(session, task, side)
        digest = sha256_bytes(data)
        shown = evidence(session, made, digest, digests[task]).to_bytes()
        seen = sha256_bytes(shown)
        write_quickly(session.evidence_copy(seen), shown)
        if not number:
            path = session.settings.state / "adapter.safetensors"
            write_atomic(path, data)
            first = _register_one(session, task, path, digest, digests[task], seen)
            known.append(first)
        else:
            token = hashlib.md5(task.encode(), usedforsecurity=False).hexdigest()
            known.append(
                Names(task, token, f"m-{token}", digest, digests[task], seen, str(number + 1))
            )
        files[task] = data
    _clone_rows(session, known)
    _clone_files(session, known, files)
    return [ChampionRef(one.task, 1, one.adapter, one.data, one.run, one.evidence) for one in known]


def write_quickly(path: Path, data: bytes) -> None:
    """Write a file that nobody has to find whole after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def register_version(
    session: Session, task: str, path: Path, digest: str, data: str, tags: dict[str, str]
) -> tuple[Any, Any]:
    """Register an adapter as an onboarding does; return its run and its version.

    Args:
        session: its workspace.
        task: name.
        path: of the adapter's file.
        digest: of that file.
        data: digest of the task's data.
        tags: of the version.
    """
    from clr.registry.package import BackboneReference
    from clr.registry.runs import find_or_start_run, finish
    from clr.registry.versions import register_adapter

    run = find_or_start_run(session.registry, task, digest)
    finish(session.registry, run)
    backbone = session.backbone
    version = register_adapter(
        session.registry,
        run,
        path,
        key=digest,
        backbone=BackboneReference(
            backbone.name, backbone.digest, architecture=backbone.architecture
        ),
        data_digest=data,
        card="",
        tags=tags,
    )
    return run, version


def _register_one(
    session: Session, task: str, path: Path, digest: str, data: str, seen: str
) -> Names:
    tags = {"clr.evidence_digest": seen, "clr.verdict": "passed", "clr.accuracy": "0.5"}
    run, version = register_version(session, task, path, digest, data, tags)
    session.registry.client.set_registered_model_alias(f"clr-{task}", "champion", "1")
    return Names(task, run.id, version.model_id, digest, data, seen, run.experiment_id)


_TABLES = {
    "experiments": "experiment_id",
    "runs": "experiment_id",
    "tags": "",
    "latest_metrics": "",
    "inputs": "input_uuid",
    "logged_models": "experiment_id",
    "logged_model_tags": "experiment_id",
    "registered_models": "",
    "registered_model_aliases": "",
    "model_versions": "",
    "model_version_tags": "",
}
"""Tables with rows of a task, and the column that is numbered anew."""


def _clone_rows(session: Session, known: list[Names]) -> None:
    first = known[0]
    with closing(sqlite3.connect(session.settings.state / "mlflow.db")) as database, database:
        for table, numbered in _TABLES.items():
            cursor = database.execute(f"SELECT * FROM {table}")
            columns = [one[0] for one in cursor.description]
            rows = [row for row in cursor.fetchall() if _is_about(row, first)]
            marks = ", ".join("?" * len(columns))
            database.executemany(
                f"INSERT INTO {table} VALUES ({marks})",
                [
                    tuple(
                        _numbered(column, one, value)
                        if column == numbered
                        else one.rewrite(value, first)
                        for column, value in zip(columns, row, strict=True)
                    )
                    for one in known[1:]
                    for row in rows
                ],
            )


def _is_about(row: tuple[Any, ...], one: Names) -> bool:
    wanted = {one.task, one.run, one.model, f"clr-{one.task}", f"clr/{one.task}"}
    return any(value in wanted for value in row if isinstance(value, str))


def _numbered(column: str, one: Names, value: Any) -> Any:
    if column == "experiment_id":
        return int(one.experiment)
    return hashlib.md5(f"{value}{one.run}".encode(), usedforsecurity=False).hexdigest()


def _clone_files(session: Session, known: list[Names], files: dict[str, bytes]) -> None:
    from clr.registry.fetch import remember_adapter
    from clr.registry.package import ADAPTER_FILE

    artifacts, first = session.settings.state / "artifacts", known[0]
    package = artifacts / f"clr-{first.task}" / "models" / first.model / "artifacts"
    for one in known:
        home = artifacts / f"clr-{one.task}"
        copy = home / "models" / one.model / "artifacts"
        if one is not first:
            shutil.copytree(package, copy, copy_function=os.link)
            (copy / "artifacts" / "adapter.safetensors").unlink()
            write_quickly(copy / "artifacts" / "adapter.safetensors", files[one.task])
            reference = copy / "artifacts" / "backbone.json"
            told = reference.read_text().replace(first.adapter, one.adapter)
            reference.unlink()
            write_quickly(reference, told.encode())
        remember_adapter(session.registry, copy / ADAPTER_FILE, one.adapter)  # as promotion does
        shown = home / one.run / "artifacts" / EVIDENCE_FILE
        shown.parent.mkdir(parents=True)
        os.link(session.evidence_copy(one.evidence), shown)


def release(session: Session, champions: list[Any], before: Any = None) -> Any:
    """Return a release of these champions, which serves.

    Args:
        session: its workspace.
        champions: of its tasks.
        before: release that it follows; None: it is the first.
    """
    from clr.core.files import canonical_json, sha256_bytes
    from clr.core.routing import Router
    from clr.registry.release import Release
    from clr.registry.releases import activate, write_release

    report = canonical_json({"matrix": None})
    router = Router({one.task: session.evidence(one).statistics for one in champions})
    tasks = {one.task: one for one in champions}
    previous = before.digest if before else ""
    made = Release(session.backbone.digest, tasks, router.digest, sha256_bytes(report), previous)
    written = write_release(session.registry, made, {"gate.json": report})
    activate(session.registry, written)
    return written


def record(session: Session, champions: list[Any]) -> None:
    """Write into the ledger how each came in, registered then approved, and tag what it says."""
    seen: list[tuple[str, str, str]] = []
    who = {"authentication": "local-os-user"}
    for one in champions:
        subject = f"clr-{one.task}/1"
        about = {
            "verdict": "passed",
            "adapter": one.adapter_digest,
            "data": one.data_digest,
            "evidence": one.evidence_digest,
            "run": one.run_id,
        }
        session.ledger.append("adapter.registered", subject, about, actor="bench", **who)
        said = {"adapter": one.adapter_digest, "source": source(session, one)}
        entry = session.ledger.append("review.approved", subject, said, actor="alice", **who)
        seen.append((f"clr-{one.task}", "clr.reviewed_at", entry.time))
        seen.append((f"clr-{one.task}", "clr.reviewed_by", "alice"))
        seen.append((f"clr-{one.task}", "review", "approved"))
    with closing(sqlite3.connect(session.settings.state / "mlflow.db")) as database, database:
        database.executemany(
            "INSERT OR REPLACE INTO model_version_tags (name, version, workspace, key, value) "
            "VALUES (?, 1, 'default', ?, ?)",
            seen,
        )


def source(session: Session, champion: Any) -> str:
    """Return where the files of a champion are, as the registry has it."""
    found: str = session.registry.client.get_model_version(f"clr-{champion.task}", "1").source
    return found
