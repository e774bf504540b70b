"""Run ``clr`` commands in forked children of one warm process, each perhaps killed at a point.

Everything heavy is imported once. Each line on stdin is a JSON list of jobs that run at the
same time; the answer is one line with how each of them ended. A job:

    {"root": workspace, "settings": {…}, "arguments": […],
     "kill": ["module:attribute.path", call, "before" | "after"] or null}

A child with a point replaces that one function by one that kills the child (SIGKILL, as
``kill -9`` does) before or after its n-th call, and is otherwise the program itself.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dvc.repo  # noqa: F401  before any child
import dvc_data.hashfile.build  # noqa: F401
import great_expectations  # noqa: F401
import matplotlib.figure  # noqa: F401
import mlflow.pyfunc
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
import timm  # noqa: F401
import torchvision  # noqa: F401

import clr.data.suite
import clr.data.versioning
import clr.registry.plots  # noqa: F401
import flows.onboard
import flows.review  # noqa: F401
from flows.cli import main


def arm(point: str, call: int, when: str) -> None:
    """Replace the function at `point` so that its n-th call ends this process."""
    module, _, attribute = point.partition(":")
    *parents, name = attribute.split(".")
    owner: Any = importlib.import_module(module)
    for parent in parents:
        owner = getattr(owner, parent)
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def deadly(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


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
    with tempfile.TemporaryDirectory() as name:
        for line in sys.stdin:
            print(json.dumps(run(json.loads(line), Path(name))), flush=True)
