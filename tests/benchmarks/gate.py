"""What the retention gate costs over 3, 30 and 300 registered tasks.

Real adapters over the default backbone, in a real registry, with real test
images; each task has 2 classes and 40 test images. `cold` is the first gate of
a process (it reads, checks and attaches every adapter), `warm` the second.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from tests import synthetic

SIZES = (3, 30, 300)
IMAGES = 20
"""Test images of each class."""

SIDE = 96
"""What they are resized to, in pixels."""


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
    from clr.core.files import sha256_bytes
    from clr.registry.releases import current_release
    from flows.judge import judge

    session = synthetic.workspace(folder, small=False, threads=0)
    tasks = [f"task-{number}" for number in range(size)]
    for number, task in enumerate([*tasks, "newcomer"]):
        synthetic.images(folder / "data" / task, number, IMAGES)
    synthetic.pin(session)
    synthetic.release(session, synthetic.register(session, tasks, SIDE))
    newcomer, data = synthetic.adapter(session, "newcomer", SIDE)
    digest = sha256_bytes(data)
    evidence = synthetic.evidence(session, newcomer, digest)
    row: dict[str, Any] = {}
    for name in ("cold", "warm"):
        if name == "cold":
            session = synthetic.workspace(folder, small=False, threads=0)
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
