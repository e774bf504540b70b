"""Write one onboarding into the registry and the ledger, once per key."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.core.files import canonical_json, sha256_file, write_atomic
from clr.registry.acts import LOCAL
from flows import facts, provenance
from flows.facts import RESULT_FILE
from flows.job import Job, Result
from flows.judge import Judged, record_judged
from flows.recorded import DATA_REFUSED, DATA_VERSIONED
from flows.seal import FILES_TAG, sealed_facts

if TYPE_CHECKING:
    from clr.registry.runs import Run
    from clr.registry.versions import Version
    from flows.session import Session

LOG = logging.getLogger("clr")


def finished(job: Job) -> tuple[Version, Result] | None:
    """Return version and result of this onboarding if its version is registered.

    What a killed process left undone after that is done here: the result was uploaded
    before the version was made.
    """
    from clr.registry.fetch import fetch
    from clr.registry.local import scratch
    from clr.registry.versions import find_version

    registry = job.session.registry
    version = find_version(registry, job.task.name, job.key)
    if version is None:
        return None
    try:
        kept: Result = json.loads((job.folder / RESULT_FILE).read_bytes())
    except (OSError, ValueError):
        with scratch(registry) as folder:
            path = fetch(registry, version.run_id, RESULT_FILE, folder)
            kept = complete(job, version, json.loads(path.read_bytes()))
    return version, kept


def latest(job: Job) -> tuple[Job, Version | None, Result | None]:
    """Return the newest attempt at this onboarding, with its version and result if registered."""
    found = finished(job)
    if found is None:
        return job, None, None
    following = latest(replace(job, attempt=job.attempt + 1))
    return (job, *found) if following[1] is None else following


def require_writable(session: Session, task: str) -> None:
    """See that the registry takes what this onboarding will write, before anything is changed.

    Raises:
        ServiceUnavailable: it is read-only, locked, not reached, or refuses this user.
    """
    from clr.registry.local import probe_write
    from clr.registry.store import ensure_experiment, experiment_name

    probe_write(session.registry)
    ensure_experiment(session.registry, experiment_name(task))


def record_data(session: Session, task: str, manifest: Any, digest: str) -> None:
    """Write into the ledger that a version of a task's data will be pinned; once a version.

    Args:
        session: the workspace.
        task: task name.
        manifest: of its images.
        digest: ``md5:<32 hex>.dir``.
    """
    session.record(
        DATA_VERSIONED,
        f"clr-{task}",
        {"data": digest, "manifest": manifest.digest, "images": len(manifest.rows)},
        f"{DATA_VERSIONED}:{task}:{digest}",
    )


def record_refused(
    session: Session, task: str, manifest: Any, validation: Any, place: Path
) -> None:
    """Write into the ledger which data was refused, why, and what its report says.

    Args:
        session: the workspace.
        task: task name.
        manifest: of its images.
        validation: what was found.
        place: its folder in the quarantine.
    """
    session.record(
        DATA_REFUSED,
        f"clr-{task}",
        {
            "manifest": manifest.digest,
            "failed": [one.name for one in validation.refused],
            "quarantine": f"{place.parent.name}/{place.name}",
            "validation": sha256_file(place / "validation.json"),
            "message": sha256_file(place / "message.txt"),
        },
    )


def start(job: Job) -> Run:
    """Return this onboarding's run, resumed if an earlier process was killed in it."""
    import torch

    from clr.registry.runs import find_or_start_run, log_dataset, log_params

    registry = job.session.registry
    run = find_or_start_run(registry, job.task.name, job.key, name=f"onboard {job.task.name}")
    log_dataset(registry, run, dataset(job))
    log_params(
        registry,
        run,
        {
            **job.recipe.as_dict(),
            "backbone": job.session.backbone.name,
            "backbone_digest": job.session.backbone.digest,
            "data_digest": job.data.digest,
            "device": job.session.device,
            "hardware": provenance.hardware(job.session.device),
            "threads": torch.get_num_threads(),
            "git_commit": job.data.commit or "none",
            "git_dirty": job.data.dirty,
            "code_digest": provenance.code_digest(),
            "environment_digest": provenance.environment_digest(),
        },
    )
    return run


def dataset(job: Job) -> Any:
    """Return the task's data as MLflow shows it."""
    from clr.data.dvc import remote_url
    from clr.registry.dataset import dvc_dataset
    from clr.registry.faults import redact

    profile = {
        "train": job.manifest.train,
        "test": job.manifest.test,
        "classes": list(job.manifest.classes),
        "manifest": job.manifest.digest,
    }
    source = {
        "remote": redact(remote_url(job.session.settings)),
        "git_commit": job.data.commit,
        "git_dirty": job.data.dirty,
        "data_dvc": job.data.dvc_file_sha256,
    }
    return dvc_dataset(job.task.name, job.data.digest, source=source, profile=profile)


def log_training(job: Job, run: Run | None, number: int, epoch: dict[str, float]) -> None:
    """Log an epoch's metrics, once."""
    from clr.registry.runs import log_epoch

    if run is not None:
        log_epoch(job.session.registry, run, number, epoch)


def interrupted(job: Job, run: Run) -> None:
    """Mark the run as failed; the same command takes it up again."""
    from clr.errors import ClrError
    from clr.registry.runs import finish

    try:
        finish(job.session.registry, run, "FAILED")
    except ClrError as error:
        LOG.warning("The run %s could not be marked as failed: %s", run.id, error)


def keep_report(folder: Path, judged: Judged) -> None:
    """Write ``gate.json`` and ``gate.html``."""
    from clr.gate.report import gate_html

    write_atomic(folder / "gate.json", judged.data)
    write_atomic(folder / "gate.html", gate_html(judged.report).encode())


def register(
    job: Job,
    run: Run,
    validation: Any,
    before: Result,
    trained: Result,
    measured: Result,
    judged: Judged,
    seconds: dict[str, float],
) -> Result:
    """Log, register, record; return what ``clr onboard --json`` prints."""
    from clr.core.evidence import read_evidence
    from clr.registry.versions import register_adapter

    started = time.perf_counter()
    registry = job.session.registry
    evidence = read_evidence(job.folder / "evidence.safetensors", measured["evidence"])
    case = facts.business(job, evidence, before, trained)
    result = facts.describe(job, run, validation, before, trained, evidence, judged, case)
    result["seconds"] = {**seconds, "total": round(sum(seconds.values()), 3)}
    card = facts.write_card(job, run, result, judged)
    files = facts.log_artifacts(job, run, validation, trained, evidence, judged, case, result)
    record_judged(job.session, f"clr-{job.task.name}", judged, run=run.id, data=job.data.digest)
    version = register_adapter(
        registry,
        run,
        job.training_folder / "adapter.safetensors",
        key=job.key,
        backbone=facts.reference(job),
        data_digest=job.data.digest,
        card=card,
        tags={**facts.tags(job, result, validation, measured, judged), FILES_TAG: files},
        metrics=facts.metrics(result, case, evidence, judged, seconds),
        dataset=dataset(job),
        title=job.task.title,
    )
    seconds["register"] = round(time.perf_counter() - started, 3)
    result["seconds"] = {**seconds, "total": round(sum(seconds.values()), 3)}
    return complete(job, version, result)


def complete(job: Job, version: Version, result: Result) -> Result:
    """Do what follows a registration: alias, ledger, end of the run, the kept result."""
    from clr.registry.runs import find_run, finish
    from clr.registry.versions import set_candidate

    registry = job.session.registry
    if result["verdict"] == "passed":
        set_candidate(registry, version)
    record(job, version, result)
    run = find_run(registry, job.task.name, job.key)
    if run is not None:
        finish(registry, run)
    result["version"] = result["mlflow"]["version"] = version.version
    write_atomic(job.folder / RESULT_FILE, canonical_json(result))  # last: nothing is left to do
    LOG.info("register  %s version %d: %s", job.task.name, version.version, result["verdict"])
    return result


def record(job: Job, version: Version, result: Result) -> None:
    """Write the registration into the ledger, once."""
    job.session.ledger.append(
        "adapter.registered",
        f"clr-{job.task.name}/{version.version}",
        {
            "verdict": result["verdict"],
            "adapter": version.adapter_digest,
            "data": version.data_digest,
            "backbone": job.session.backbone.digest,
            "evidence": version.tags.get("clr.evidence_digest", ""),
            "gate": version.tags.get("clr.gate_digest", ""),
            "code": version.tags.get("clr.code_digest", ""),
            "environment": version.tags.get("clr.environment_digest", ""),
            "manifest": version.tags.get("clr.manifest_digest", ""),
            "validation": version.tags.get("clr.validation_digest", ""),
            "release": version.tags.get("clr.gate_release", ""),
            "run": version.run_id,
            "commit": job.data.commit,
            "dirty": job.data.dirty,
            **sealed_facts(job.session, version),
        },
        actor=provenance.local_user(),
        authentication=LOCAL,
        key=f"registered:{job.key}",
    )
