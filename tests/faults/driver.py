"""Run ``clr`` commands in forked children of one warm process, each perhaps killed at a point.

Everything heavy is imported and used once. Each line on stdin is a JSON list of jobs that run
at the same time; the answer is one line with how each of them ended. A job:

    {"root": workspace, "settings": {…}, "arguments": […],
     "kill": ["module:attribute.path", call, "before" | "after"] or null,
     "keep": folder or null}

A child with a point replaces that one function by one that kills the child (SIGKILL, as
``kill -9`` does) before or after its n-th call, and is otherwise the program itself. One with a
folder lives, and copies the workspace into it before every change of registry or ledger
(`CHANGING`): what a kill at that moment would leave.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from typing import Any

import dvc.repo  # noqa: F401  before any child
import dvc_data.hashfile.build  # noqa: F401
import great_expectations  # noqa: F401
import mlflow.pyfunc
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
import prefect.flow_engine
import prefect.task_engine
import prefect.utilities.visualization  # noqa: F401
import timm  # noqa: F401
import torchvision  # noqa: F401
from PIL import Image

import flows.onboard
import flows.review  # noqa: F401
from clr.data.folder import read_task
from clr.data.manifest import scan
from clr.data.suite import validate
from clr.data.versioning import version_task
from clr.data.workspace import init_workspace
from clr.registry import plots, runs
from clr.registry.store import open_registry
from clr.settings import load_settings
from flows.cli import main
from flows.provenance import environment_digest
from tests.templates import beat_never, compile_once, measure_briefly, migrate_once, sync_never


def warm(folder: Path) -> None:
    """Use what loads most of itself on first use, so that every child finds it loaded."""
    root, labels = folder / "plant", ("dark", "light")
    init_workspace(root)
    for number, label in enumerate(2 * labels):
        place = folder / "task" / ("train" if number < 2 else "test") / label / "0.png"
        place.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(place)
    settings, task = load_settings(root), read_task(folder / "task")
    manifest = scan(task, max_pixels=64)
    validate(manifest, min_images_per_class=1, out=folder / "validation")
    version_task(task, manifest, settings)
    runs.find_or_start_run(open_registry(settings), "warm", "sha256:warm")
    plots.confusion(labels, [[1, 0], [0, 1]])
    environment_digest()


CLIENT = "mlflow.tracking.client:MlflowClient"
CHANGING = [
    *(f"{CLIENT}.{name}" for name in (
        "create_logged_model", "create_model_version", "create_registered_model", "create_run",
        "delete_registered_model_alias", "finalize_logged_model", "log_model_artifacts",
        "log_outputs", "set_model_version_tag", "set_registered_model_alias", "set_terminated",
    )),
    "clr.audit.ledger:Ledger.append",
]  # fmt: skip


def arm(point: str, call: int, when: str) -> None:
    """Replace the function at `point` so that its n-th call ends this process."""
    calls = 0

    def armed(real: Callable[..., Any]) -> Callable[..., Any]:
        def deadly(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            mine = calls
            if mine == call and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **named)
            if mine == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return deadly

    replace(point, armed)


def keep(root: Path, folder: Path) -> None:
    """Copy the workspace `root` to ``folder/01``, ``02``, …, before each change of it."""
    numbers = count(1)

    def kept(real: Callable[..., Any]) -> Callable[..., Any]:
        def copying(*arguments: Any, **named: Any) -> Any:
            shutil.copytree(root, folder / f"{next(numbers):02}", symlinks=True)
            return real(*arguments, **named)

        return copying

    for point in CHANGING:
        replace(point, kept)


def replace(point: str, made: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the function at `point` by what is made of it."""
    module, _, attribute = point.partition(":")
    *parents, name = attribute.split(".")
    owner: Any = importlib.import_module(module)
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, name, made(getattr(owner, name)))


def start(job: dict[str, Any], out: Path) -> int:
    """Fork a child that runs the job with its output in `out`; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        with out.with_suffix(".out").open("w") as stdout, out.with_suffix(".err").open("w") as err:
            os.dup2(stdout.fileno(), 1)
            os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = _text(1), _text(2)
        os.environ.update(job["settings"])
        os.chdir(job["root"])
        if job.get("kill"):
            arm(*job["kill"])
        if job.get("keep"):
            keep(Path(job["root"]), Path(job["keep"]))
        try:
            main(job["arguments"], prog_name="clr")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _text(handle: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(handle, "w", closefd=False), encoding="utf-8")


def run(jobs: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Run jobs at the same time and return how each ended."""
    outs = [folder / str(number) for number in range(len(jobs))]
    pids = [start(job, out) for job, out in zip(jobs, outs, strict=True)]
    answers = []
    for pid, out in zip(pids, outs, strict=True):
        _, status = os.waitpid(pid, 0)
        texts = {k: out.with_suffix(f".{k}").read_text(encoding="utf-8") for k in ("out", "err")}
        answers.append({"code": os.waitstatus_to_exitcode(status), **texts})
    return answers


if __name__ == "__main__":
    compile_once()
    migrate_once()
    measure_briefly()
    sync_never()
    beat_never()
    with tempfile.TemporaryDirectory() as name:
        with redirect_stdout(sys.stderr):
            warm(Path(name))
        gc.freeze()  # else each child copies all memory when it looks for garbage
        for line in sys.stdin:
            print(json.dumps(run(json.loads(line), Path(name))), flush=True)
