"""Onboard a task: validate, version, baseline, train, measure, gate, register.

Every step (flows/stages.py) finishes once, so a killed run is finished by the same
command.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect import flow
from prefect.states import Completed

from clr.registry.faults import redact
from flows import artifacts, output, prefect_api, register, tracking
from flows.asked import check_request
from flows.job import Job, Result
from flows.session import Session
from flows.stages import (
    measure_adapter,
    measure_before,
    register_version,
    retention_gate,
    train_adapter,
    validate_images,
    version_images,
)

LOG = logging.getLogger("clr")
T = TypeVar("T")


def run_onboard(path: Path, name: str | None, session: Session) -> Result:
    """Run the flow `onboard` here; its result is what ``clr onboard --json`` prints.

    Args:
        path: task folder.
        name: task name where the folder's is not one.
        session: the workspace.

    Raises:
        UsageError, ServiceUnavailable, IntegrityBroken: see the steps.
    """
    output.log_to_stderr()
    arguments = str(Path(path).absolute()), name, str(session.settings.workspace)
    with prefect_api.reaching():
        return cast("Result", onboard(*arguments))


def _run_name() -> str:
    from prefect.runtime import flow_run

    given = flow_run.parameters
    return f"onboard-{given.get('name') or Path(given['path']).name}"


@flow(name="onboard", flow_run_name=_run_name, validate_parameters=False)
def onboard(
    path: str,
    name: str | None = None,
    workspace: str | None = None,
    arrival: str | None = None,
) -> Any:
    """Bring one task folder through the pipeline; data that is refused changes nothing.

    Args:
        path: task folder: train/<class>/ and test/<class>/ with images. Absolute, or relative
            to the workspace. A worker reads what lies in incoming/ and in the workspace only.
        name: task name, where the folder's is not one: lower-case letters, digits, hyphens.
        workspace: folder that holds data.dvc. Leave it empty: it is the worker's.
        arrival: digest of the content, as the event clr.task.arrived tells it. The same content
            is onboarded once; leave it empty to onboard whatever the folder holds.
    """
    session = tracking.opened(workspace)
    tracking.say_where()
    place = tracking.folder(session.settings, path, arrival)
    if not arrival:
        return _onboard(session, place, name)
    over = tracking.take(session.settings, arrival, name or place.name, place)
    if over:
        LOG.info("onboard   nothing to do: %s", over)
        return Completed(name=tracking.DUPLICATE, message=f"Nothing to do: {over}.")
    work = partial(_onboard, session, place, name, arrival)
    return tracking.through(session.settings, arrival, work)


def _onboard(session: Session, path: Path, name: str | None, arrival: str | None = None) -> Result:
    tracking.require_same(session.settings, arrival, path, name)
    folder = check_request(session, path, name)
    with output.log_context(task=folder.name), session.lock(f"task-{folder.name}"):
        session.sweep(folder.name)
        seconds: dict[str, float] = {}
        manifest, validation = _timed(seconds, "validate", validate_images, session, folder)
        if not validation.success:
            return _refused(session, manifest, validation, seconds)
        tracking.require_same(session.settings, arrival, path, name)  # what was scanned is that
        register.require_writable(session, folder.name)
        data: Any = _timed(seconds, "version", version_images, session, folder, manifest)
        job, version, kept = register.latest(Job(session, folder, manifest, data))
        if version is None or kept is None:
            return _train_and_judge(job, validation, seconds)
        again = replace(job, attempt=job.attempt + 1)
        if version.review == "rejected" or (kept["verdict"] != "passed" and _passes_now(again)):
            return _train_and_judge(again, validation, seconds)
        LOG.info("onboard   %s is already version %s", folder.name, kept["version"])
        return {**kept, "already": True}


def _passes_now(job: Job) -> bool:
    """Ask the gate again about what it refused: a limit, a repair, or a calmer hour may tell.

    Nothing is registered unless the answer is another one.
    """
    LOG.info("onboard   %s was refused: the gate is asked again", job.task.name)
    before = measure_before(job)
    trained = train_adapter(job, None)
    judged = retention_gate(job, measure_adapter(job, trained, before))
    if judged.report["verdict"] == "pass":
        return True
    shutil.rmtree(job.folder)  # the next time measures anew
    return False


def _train_and_judge(job: Job, validation: Any, seconds: dict[str, float]) -> Result:
    run = register.start(job)
    try:
        output.log_also(run=run.id)
        before = _timed(seconds, "baseline", measure_before, job)
        trained = _timed(seconds, "train", train_adapter, job, run)
        measured = _timed(seconds, "measure", measure_adapter, job, trained, before)
        judged = _timed(seconds, "gate", retention_gate, job, measured)
        _show(job, run, judged)
        seconds["register"] = 0.0
        return _timed(  # its own seconds are in the result that it returns
            seconds, "", register_version,
            job, run, validation, before, trained, measured, judged, seconds,
        )  # fmt: skip
    except BaseException:
        register.interrupted(job, run)
        raise


def _show(job: Job, run: Any, judged: Any) -> None:
    """Show in Prefect's UI what the gate said, and where the rest is."""
    task, registry = job.task.name, redact(job.session.settings.registry)
    artifacts.gate(task, judged.report)
    artifacts.links(task, {"MLflow run": f"{registry}/{run.link()}" if registry else ""})


def _timed(seconds: dict[str, float], name: str, step: Callable[..., T], *arguments: Any) -> T:
    started = time.perf_counter()
    if name:
        LOG.info("%-9s …", name)
    result = step(*arguments)
    kept = result.get("seconds") if isinstance(result, dict) else None
    if name:
        # a step that an earlier process finished took that process's time
        seconds[name] = round(kept or time.perf_counter() - started, 3)
    return result


def _refused(session: Session, manifest: Any, validation: Any, seconds: dict[str, float]) -> Result:
    from clr.data.quarantine import quarantine

    place = quarantine(manifest, validation, session.settings)
    register.record_refused(session, manifest.task, manifest, validation, place)
    refusal = validation.refusal(place)
    return {
        "task": manifest.task,
        "version": None,
        "verdict": "data-refused",
        "message": refusal.message,
        "fix": refusal.fix,
        **dict.fromkeys(
            ("accuracy", "accuracy_ci", "baseline", "gate", "adapter", "mlflow", "roi")
        ),
        "failed": [finding.name for finding in validation.refused],
        "files": refusal.data["files"],
        "data": {
            "digest": None,
            "train": manifest.train,
            "test": manifest.test,
            "classes": list(manifest.classes),
        },
        "seconds": {**seconds, "total": round(sum(seconds.values()), 3)},
        "reports": {
            "quarantine": str(place),
            "data_docs": str(place / "data-docs" / "index.html"),
            "message": str(place / "message.txt"),
        },
    }
