"""The steps of an onboarding as Prefect tasks: each keyed by digests, finished once.

A step leaves its result beside digests of its inputs and its files (flows/steps.py);
the flow that joins them is flows/onboard.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import quote

from clr.errors import ServiceUnavailable
from flows import artifacts, register
from flows.job import Job, Result
from flows.judge import Judged, judge
from flows.session import Session
from flows.steps import made_by, once

LOG = logging.getLogger("clr")

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def _may_pass(_: Any, __: Any, state: Any) -> bool:
    """Say whether trying again can help: services come back, refusals stay."""
    try:
        state.result()
    except ServiceUnavailable:
        return True
    except BaseException:
        return False
    return False


_AGAIN: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": exponential_backoff(2),
    "retry_jitter_factor": 0.5,  # several that a service turned away do not return at once
    "retry_condition_fn": _may_pass,
}
"""Of steps that need a service: network, lock, database."""


def step(
    name: str, minutes: str = "step_minutes", **options: Any
) -> Callable[[Callable[Given, Answer]], Callable[Given, Answer]]:
    """Make a Prefect task that ends when its time is over.

    Args:
        name: of the task.
        minutes: the setting that says how long it may take.
        options: of the task.

    Returns:
        A decorator of functions whose first argument is a session or a job.
    """

    def made(work: Callable[Given, Answer]) -> Callable[Given, Answer]:
        body = task(name=name, cache_policy=NO_CACHE, persist_result=False, **options)(work)

        @wraps(work)
        def run(*given: Given.args, **named: Given.kwargs) -> Answer:
            first: Any = given[0]
            settings = (first if isinstance(first, Session) else first.session).settings
            limit = float(getattr(settings, minutes))
            timed: Any = body.with_options(timeout_seconds=60 * limit)
            try:
                # quoted: Prefect would look for futures in every row of a manifest, twice a step
                answer: Answer = timed(
                    *map(quote, given), **{name: quote(one) for name, one in named.items()}
                )
            except TimeoutError as error:
                from prefect.task_engine import TaskRunTimeoutError

                if not isinstance(error, TaskRunTimeoutError):  # of a connection, say
                    raise
                raise ServiceUnavailable(
                    f"The step {name} was ended after {limit:g} minutes.",
                    fix=f"See what it waited for, or raise CLR_{minutes.upper()}. "
                    "The same command goes on where it was.",
                    step=name,
                ) from error
            return answer

        return run

    return made


@step("validate")
def validate_images(session: Session, folder: Any) -> tuple[Any, Any]:
    """Scan every image and judge the task by the suite of expectations."""
    from clr.data.manifest import scan
    from clr.data.suite import validate
    from flows.job import progress

    manifest = scan(
        folder,
        max_pixels=session.settings.max_image_pixels,
        on_progress=progress(f"validate  {folder.name}"),
    )
    short = manifest.digest.removeprefix("sha256:")[:16]
    out = session.settings.state / "validations" / folder.name / short
    validation = validate(
        manifest, min_images_per_class=session.settings.min_images_per_class, out=out
    )
    LOG.info(
        "validate  %s: %d train and %d test images in %d classes, %s",
        folder.name, manifest.train, manifest.test, len(manifest.classes),
        "accepted" if validation.success else "REFUSED",
    )  # fmt: skip
    for finding in validation.warnings:
        LOG.info("validate  warning: %s", finding.message)
    return manifest, validation


@step("version", **_AGAIN)
def version_images(session: Session, folder: Any, manifest: Any) -> Any:
    """Put the images under ``data/`` and pin them with DVC."""
    from clr.data.versioning import version_task
    from flows.register import record_data

    data = version_task(
        folder, manifest, session.settings, partial(record_data, session, folder.name, manifest)
    )
    LOG.info("version   %s is %s, %d files pushed", folder.name, data.digest, data.files)
    return data


@step("baseline")
def measure_before(job: Job) -> Result:
    """Measure majority class and linear probe on the test split, once."""

    def compute() -> Result:
        import numpy as np

        from clr.core.evaluate import predicted, run

        started = time.perf_counter()
        base, labels = job.baseline, job.test_images.labels.numpy()
        device = job.session.backbone.device
        features = run(job.session.backbone.module, job.test_images, job.preprocessing, device)
        answers = predicted(base.whole.logits(features))
        majority = int(np.bincount(job.train_images.labels.numpy()).argmax())
        return {
            "probe": answers.tolist(),
            "linear_probe": float((answers == labels).mean()),
            "majority": float((labels == majority).mean()),
            "strength": base.probe.strength,
            "turns": list(base.turns),
            "seconds": round(time.perf_counter() - started, 3),
        }

    before = once(job.training_folder, "baseline", {"training": job.training_key}, compute)
    LOG.info(
        "baseline  %s: majority class %.1f %%, linear probe %.1f %%",
        job.task.name, 100 * before["majority"], 100 * before["linear_probe"],
    )  # fmt: skip
    return before


@step("train", "train_minutes")
def train_adapter(job: Job, run: Any) -> Result:
    """Train the adapter, from its last finished epoch if an earlier run was cut off."""
    from clr.core.adapter import save_adapter
    from clr.core.train import fit

    checkpoint = job.training_folder / f"{made_by()[-12:]}.checkpoint"
    started = time.perf_counter()
    show = artifacts.progress(job.task.name)
    told: set[int] = set()

    def tell(number: int, epoch: dict[str, float]) -> None:
        told.add(number)
        register.log_training(job, run, number, epoch)
        show(number / job.recipe.epochs)
        LOG.info(
            "train     %s epoch %d of %d: loss %.3f, validation %.1f %%, %.0f s",
            job.task.name, number, job.recipe.epochs, epoch["val_loss"],
            100 * epoch["val_accuracy"], time.perf_counter() - started,
        )  # fmt: skip

    def compute() -> Result:
        trained = fit(
            job.session.backbone,
            job.train_images,
            job.baseline,
            job.spec,
            job.recipe,
            on_epoch=tell,
            checkpoint=checkpoint,
        )
        digest = save_adapter(trained.adapter, job.training_folder / "adapter.safetensors")
        checkpoint.unlink(missing_ok=True)
        return {
            "files": ["adapter.safetensors"],
            "adapter": digest,
            "history": list(trained.history),
            "best": trained.best,
            "seconds": round(time.perf_counter() - started, 3),
        }

    trained = once(job.training_folder, "train", {"training": job.training_key}, compute)
    for number, epoch in enumerate(trained["history"]):
        if number not in told:  # what a kill kept from the run
            register.log_training(job, run, number, epoch)
    return trained


@step("measure")
def measure_adapter(job: Job, trained: Result, before: Result) -> Result:
    """Run the adapter over the test split; write its evidence."""
    from clr.core.adapter import load_adapter
    from clr.core.files import sha256_bytes, write_atomic
    from flows.measure import measure, numeric_environment

    path = job.training_folder / "adapter.safetensors"
    adapter = load_adapter(path, job.session.backbone, trained["adapter"])
    job.session.network.attach(adapter, trained["adapter"])

    def compute() -> Result:
        started = time.perf_counter()
        data = measure(job, trained["adapter"], before["probe"]).to_bytes()
        digest = sha256_bytes(data)
        write_atomic(job.folder / "evidence.safetensors", data)
        write_atomic(job.session.evidence_copy(digest), data)
        return {
            "files": ["evidence.safetensors"],
            "evidence": digest,
            "seconds": round(time.perf_counter() - started, 3),
        }

    inputs = {
        "key": job.key,
        "adapter": trained["adapter"],
        "environment": numeric_environment(job.session),
    }
    return once(job.folder, "measure", inputs, compute)


@step("retention-gate", **_AGAIN)
def retention_gate(job: Job, measured: Result) -> Judged:
    """Show the gate the newcomer and every task in the release; keep its report."""
    from clr.core.evidence import read_evidence
    from clr.registry.releases import current_release

    evidence = read_evidence(job.folder / "evidence.safetensors", measured["evidence"])
    judged = judge(job.session, evidence, current_release(job.session.registry))
    register.keep_report(job.folder, judged)
    LOG.info("gate      %s: %s", job.task.name, judged.report["sentence"])
    return judged


@step("register", **_AGAIN)
def register_version(
    job: Job,
    run: Any,
    validation: Any,
    before: Result,
    trained: Result,
    measured: Result,
    judged: Judged,
    seconds: dict[str, float],
) -> Result:
    """Log everything to the run, register the adapter, and record it in the ledger."""
    with job.session.lock("registry"):  # one after another, over all machines
        return register.register(job, run, validation, before, trained, measured, judged, seconds)
