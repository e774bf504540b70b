"""A watcher as a process of its own over a real folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clr.settings import Settings
from flows import arrivals
from flows.arrivals import Arrival
from tests.waiting import until

ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9/api"
"""Where no Prefect server listens."""


@contextmanager
def watcher(settings: Settings, *, port: int = 0, **environment: str) -> Iterator[Path]:
    """Run a watcher; yield the file that its log goes to."""
    log = settings.workspace / "watch.log"
    values = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CLR_", "PREFECT_API"))
    }
    values |= {
        "CLR_WORKSPACE": str(settings.workspace),
        "CLR_SETTLE_SECONDS": str(settings.settle_seconds),
        "CLR_GIT_POLL_SECONDS": str(settings.git_poll_seconds),
        "PREFECT_API_URL": NOBODY,
        **environment,
    }
    command = [sys.executable, "-m", "flows.watch", "--port", str(port)]
    with log.open("a") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=values, stdout=out, stderr=out)
        try:
            assert until(lambda: "looks at" in log.read_text(), 60), log.read_text()
            yield log
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


def known(settings: Settings) -> dict[str, Arrival]:
    """Records by task, or by path where there is no task."""
    return {one.task or one.path: one for one in arrivals.read_all(settings)}


def slowly(source: Path, target: Path, pause: float) -> None:
    """Copy a folder file by file, as a slow network does."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes()
            with place.open("wb") as file:
                file.write(data[: len(data) // 2])
                file.flush()
                time.sleep(pause)
                file.write(data[len(data) // 2 :])


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def git(folder: Path, *arguments: object) -> str:
    """Run git as somebody with a name; return what it says."""
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", *identity, *map(str, arguments)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
