"""`clr audit` of one adapter among 100 and 1,000 tasks; `clr verify` against what it hashes.

Workspaces as in the benchmark `growth`. The audit is a process of its own, its imports included;
`CLR_BENCH_TASKS=100,1000` chooses the sizes. Seconds are of processor time, wall-clock beside it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flows.session import Session
from flows.verify import run_verify
from tests.benchmarks import growth

SIZES = tuple(int(one) for one in os.environ.get("CLR_BENCH_TASKS", "100,1000").split(","))
LIMIT = 5.0
"""Seconds that an audit of one adapter may take."""


def main() -> None:
    """Time `clr audit TASK` as a command, and `clr verify` against the bytes that it hashes."""
    print(
        "| tasks | clr audit, s (wall) | clr verify, s | MB hashed | ms a MB |\n"
        + "|---:" * 5
        + "|"
    )
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            session = growth.build(Path(folder), size)[0]
            push(session)
            used, lasted = audit(session, f"task-{size // 2}")
            started = time.process_time()
            report = run_verify(session)
            assert not report["problems"], report["problems"][:5]
            seconds, megabytes = time.process_time() - started, hashed(session) / 1e6
            print(
                f"| {size:,} | {used:.2f} ({lasted:.2f}) | {seconds:.2f} | {megabytes:.1f} "
                f"| {1000 * seconds / megabytes:.1f} |",
                flush=True,
            )
            if size <= 1000 and used > LIMIT:
                raise SystemExit(f"An audit among {size} tasks took {used:.2f} s, not {LIMIT}.")


def push(session: Session) -> None:
    """Bring the images into DVC's remote, as onboarding does."""
    from clr.data import dvc, objects
    from clr.data.check import pinned_files

    with dvc.open_repo(session.settings) as repo:
        objects.push(repo, set(pinned_files(session.settings.workspace).values()))


def audit(session: Session, task: str) -> tuple[float, float]:
    """Return the seconds of processor time, and by the clock, of one `clr audit TASK --json`."""
    settings = session.settings
    environment = {
        **os.environ,
        "CLR_BACKBONE": settings.backbone,
        "CLR_BACKBONE_ARCHITECTURE": settings.backbone_architecture,
        "CLR_BACKBONE_SHA256": settings.backbone_sha256,
    }
    command = [str(Path(sys.executable).with_name("clr")), "audit", task, "--json"]
    before, started = _children(), time.perf_counter()
    done = subprocess.run(
        command, cwd=settings.workspace, env=environment, capture_output=True, text=True
    )
    lasted = time.perf_counter() - started
    answer = json.loads(done.stdout)
    assert done.returncode == 0, answer["verdict"]
    assert answer["data"]["same_bytes"] is True, answer["data"]
    assert len(answer["service"]) == 1, answer["service"]
    return _children() - before, lasted


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def hashed(session: Session) -> int:
    """Return how many bytes `clr verify` reads: images thrice, adapters and evidence."""
    workspace, state = session.settings.workspace, session.settings.state
    folders = [workspace / "data", workspace / ".dvc" / "cache", state / "remote"]
    folders.append(state / "artifacts")
    return sum(one.stat().st_size for each in folders for one in each.rglob("*") if one.is_file())
