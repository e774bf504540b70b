"""Measure a trained adapter on its test split and write its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows import provenance
from flows.job import Job, Result, images_of
from flows.session import Session

if TYPE_CHECKING:
    from clr.core.adapter import Adapter, AdapterSpec
    from clr.core.evidence import Evidence
    from clr.core.images import ImageSet
    from clr.core.routing import Floats

ROUTER_IMAGES_PER_CLASS = 400
"""Training images of each class that describe a task to the router."""


def numeric_environment(session: Session) -> str:
    """Return what bit-equal logits may depend on in this process."""
    import torch

    return provenance.numeric_environment(session.device, torch.get_num_threads())


def test_digest(images: ImageSet, folder: Path) -> str:
    """Return the digest of test files as they were read, by path below ``data/<task>``."""
    from clr.core.evidence import files_digest

    names = [path.relative_to(folder).as_posix() for path in images.paths]
    return files_digest(list(zip(names, images.digests, strict=True)))


def measure(job: Job, adapter_digest: str, probe_predictions: list[int]) -> Evidence:
    """Run the adapter over the test split and describe the task to the router.

    Args:
        job: the task, its adapter attached to the session's network under its digest.
        adapter_digest: of the adapter file.
        probe_predictions: the linear probe's, one a test image.
    """
    from clr.core.described import describe
    from clr.core.evaluate import confidences, predicted, run
    from clr.core.evidence import Evidence, canary_logits, preprocessing_digest
    from clr.core.latency import measure_latency

    session, network = job.session, job.session.network
    images = job.test_images
    logits = run(
        lambda batch: network.logits(batch, adapter_digest),
        images,
        job.preprocessing,
        session.backbone.device,
    )
    latency = measure_latency(network, adapter_digest)
    adapter = network.adapter(adapter_digest)
    train, train_labels = router_features(session, job.data.folder, "train", job.spec)
    test, _ = router_features(session, job.data.folder, "test", job.spec)
    labels = images.labels.numpy().astype(np.int64)
    about = _about(job, adapter, adapter_digest) | {
        "preprocessing": preprocessing_digest(job.preprocessing),
        "environment": numeric_environment(session),
        "test": test_digest(images, job.data.folder),
        "test_files": [path.relative_to(job.data.folder).as_posix() for path in images.paths],
        "latency": {
            "p50": latency.p50, "p95": latency.p95,
            "bare_p50": latency.bare_p50, "bare_p95": latency.bare_p95,
        },
    }  # fmt: skip
    return Evidence(
        about=about,
        labels=labels,
        predicted=predicted(logits),
        probe=np.array(probe_predictions, dtype=np.int64),
        features=test,
        statistics=describe(train, train_labels, len(job.spec.labels)),
        canary=canary_logits(network, adapter_digest),
        confidence=confidences(logits),
    )


def _about(job: Job, adapter: Adapter, adapter_digest: str) -> Result:
    from clr.core.adapter import adapter_bytes

    counts = np.bincount(job.train_images.labels.numpy(), minlength=len(job.spec.labels))
    return {
        "task": job.task.name,
        "labels": list(job.spec.labels),
        "adapter": adapter_digest,
        "backbone": job.session.backbone.digest,
        "majority": int(counts.argmax()),
        "train": len(job.train_images),
        "params": adapter.added_parameters,
        "params_pct": 100 * adapter.added_parameters / job.session.backbone.parameters,
        "adapter_bytes": len(adapter_bytes(adapter)),
        "digests": {
            "data": job.data.digest,
            "code": provenance.code_digest(),
            "environment": provenance.environment_digest(),
            "backbone": job.session.backbone.digest,
            "adapter": adapter_digest,
            "recipe": job.training_key,
        },
    }


def router_features(
    session: Session, folder: Path, split: str, spec: AdapterSpec
) -> tuple[Floats, Any]:
    """Return projected features [n, d] and labels [n] of a split, as the router sees them."""
    from clr.core.evaluate import run
    from clr.core.routing import project

    preprocessing = router_preprocessing(session)
    most = ROUTER_IMAGES_PER_CLASS if split == "train" else None
    images = images_of(session, folder, split, spec, preprocessing=preprocessing, per_class=most)
    backbone = session.backbone
    features = run(backbone.module, images, preprocessing, backbone.device)
    return project(features.numpy()), images.labels.numpy()


def router_preprocessing(session: Session) -> Any:
    """Return the one way in which the router sees every image."""
    from clr.core.routing import preprocessing

    return preprocessing(session.backbone)
