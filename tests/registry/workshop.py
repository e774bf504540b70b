"""One process that has imported everything and forks a fresh one for every act.

Reads one JSON line a batch of jobs, runs them at once, and answers with one line.
A job may be killed by SIGKILL before its nth call that changes the registry, may
be limited in the size of files it writes, and may run as another user.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import mlflow.artifacts
import mlflow.models
import mlflow.pyfunc
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
from mlflow import MlflowClient

import clr.core.backbone
import clr.registry.model  # noqa: F401
from clr.errors import ClrError

CHANGING = [
    "create_experiment",
    "create_logged_model",
    "create_model_version",
    "create_registered_model",
    "create_run",
    "delete_registered_model_alias",
    "finalize_logged_model",
    "log_artifacts",
    "log_batch",
    "log_inputs",
    "log_model_artifacts",
    "log_outputs",
    "set_registered_model_alias",
    "set_terminated",
    "update_run",
]


def count_calls(kill_at: int | None) -> list[str]:
    """Note every changing call, and die before the one numbered `kill_at` (from 1)."""
    seen: list[str] = []

    def counted(name: str, call: Any) -> Any:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            seen.append(name)
            if len(seen) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapper

    for name in CHANGING:
        setattr(MlflowClient, name, counted(name, getattr(MlflowClient, name)))
    return seen


def act(actions: Any, job: dict[str, Any], answer_to: int) -> int:
    """Do one job in this process and write down what came of it."""
    calls = count_calls(job.get("kill_at"))
    if limit := job.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if job.get("unprivileged") and os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    code = 0
    try:
        answer: Any = {"result": getattr(actions, job["do"])(**job["args"])}
    except ClrError as error:
        answer, code = {"error": error.as_dict()}, error.exit_code
    except BaseException:
        answer, code = {"error": {"error": "bug", "message": traceback.format_exc()}}, 1
    os.write(answer_to, json.dumps({**answer, "calls": calls}, default=str).encode())
    return code


def fork(actions: Any, job: dict[str, Any], out: Path) -> int:
    """Start a job and return its process id."""
    answer_to = os.open(out, os.O_CREAT | os.O_WRONLY, 0o600)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = act(actions, job, answer_to)
        finally:
            os._exit(code)
    os.close(answer_to)
    return pid


def main() -> None:
    """Serve batches until standard input ends."""
    sys.path.insert(0, str(Path(__file__).parent))
    import actions

    from tests.templates import sync_never

    sync_never()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints goes to the log
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            jobs = json.loads(line)
            if jobs[0].get("here"):  # so that all later processes find it imported
                result = getattr(actions, jobs[0]["do"])(**jobs[0]["args"])
                print(json.dumps([{"code": 0, "result": result}]), file=answers, flush=True)
                continue
            outs = [Path(folder, str(number)) for number in range(len(jobs))]
            pids = [fork(actions, job, out) for job, out in zip(jobs, outs, strict=True)]
            batch = []
            for pid, out in zip(pids, outs, strict=True):
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                batch.append({"code": status, **json.loads(out.read_bytes() or b"{}")})
        print(json.dumps(batch), file=answers, flush=True)


if __name__ == "__main__":
    main()
