"""What a pilot does that an onboarding does not; none of it is pinned, registered or recorded."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clr.core.files import sha256_bytes, sha256_file
from clr.errors import DataRefused, IntegrityBroken, UsageError
from clr.pilot import criteria
from clr.pilot.criteria import Criterion, Pairs
from flows.job import Job, Result
from flows.pilot_set import repeated
from flows.session import Session
from flows.steps import once

if TYPE_CHECKING:
    from clr.data.folder import TaskFolder
    from clr.data.manifest import Manifest
    from clr.data.versioning import DataVersion

LOG = logging.getLogger("clr")
EPOCHS = 8
"""Of the trainings behind the learning curve, as `clr plan` has by default."""


def pilot_folder(session: Session, task: TaskFolder, manifest: Manifest) -> DataVersion:
    """Return the images as trainings read them: the folder itself, or a copy with the split made.

    Raises:
        IntegrityBroken: a file changed since it was scanned.
    """
    from clr.data.versioning import DataVersion

    folder = manifest.root
    if manifest.split_made:
        short = manifest.digest.removeprefix("sha256:")[:16]
        folder = session.settings.state / "pilots" / task.name / f"data-{short}"
        for row in manifest.rows:
            _copy(manifest.root / row.path, folder / row.split / row.path.split("/", 1)[1],
                  row.sha256)  # fmt: skip
    return DataVersion(
        task=task.name, digest=manifest.digest, folder=folder, train=manifest.train,
        test=manifest.test, files=len(manifest.rows), pushed=False, commit="", dirty=False,
        dvc_file_sha256="",
    )  # fmt: skip


def _copy(source: Path, target: Path, digest: str) -> None:
    if target.is_file() and sha256_file(target) == digest:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    if sha256_file(target) != digest:
        raise IntegrityBroken(
            f"{source} changed while the pilot read it.", fix="Run the same command again."
        )


def judge_pilot(job: Job, measured: Result) -> Result:
    """Show the retention gate the adapter and every task in the release; return its report."""
    from clr.core.evidence import read_evidence
    from clr.registry.releases import current_release
    from flows.judge import judge, limits
    from flows.register import keep_report
    from flows.status import has_registry

    session = job.session
    release = current_release(session.registry) if has_registry(session) else None

    def compute() -> Result:
        evidence = read_evidence(job.folder / "evidence.safetensors", measured["evidence"])
        judged = judge(session, evidence, release)
        keep_report(job.folder, judged)
        return {"files": ["gate.json", "gate.html"], "report": dict(judged.report)}

    inputs = {
        "evidence": measured["evidence"],
        "release": release.digest if release else "",
        "limits": asdict(limits(session)),
    }
    report: Result = once(job.folder, "pilot-gate", inputs, compute)["report"]
    LOG.info("gate      %s: %s", job.task.name, report["sentence"])
    return report


def enough_data(job: Job, path: str, target: float, minutes: float) -> Criterion:
    """Draw the learning curve of the folder, as `clr plan` does, and ask it."""
    from flows.plan import run_plan

    def compute() -> Result:
        try:
            place, name = job.folder / "plan", job.task.name
            plan = run_plan(job.session, Path(path), target, EPOCHS, minutes, place, name)
        except DataRefused as error:  # too few images for a curve, which is an answer, too
            return {"curve": None, "reason": error.message}
        return {
            "curve": plan["curves"].get("clr", plan["curves"]["probe"]),
            "reason": "",
            "files": ["plan/plan.json", "plan/plan.png"],
        }

    inputs = {"training": job.training_key, "target": target, "minutes": minutes}
    drawn = once(job.folder, "pilot-curve", inputs, compute)
    return criteria.data(drawn["curve"], target, job.manifest.train, drawn["reason"])


def measure_site(job: Job, folder: Path, adapter: str) -> Result:
    """Compare probe and adapter on labelled images of the line.

    Args:
        job: the task; its network has the adapter attached under its digest.
        folder: holds a folder of images for each class; a class may be missing.
        adapter: digest.

    Returns:
        images a class and `pairs`, the fields of `clr.pilot.criteria.Pairs`.

    Raises:
        UsageError: no such folder, no images, or a class that the task does not have.
        DataRefused: an image cannot be read, is there more than once, or is one of the pilot's own.
    """
    files = site_files(
        folder, job.task.name, job.spec.labels, job.session.settings.max_image_pixels
    )

    def compute() -> Result:
        import numpy as np

        from clr.core.evaluate import predicted, run
        from clr.core.images import ImageSet

        settings, backbone, network = (
            job.session.settings,
            job.session.backbone,
            job.session.network,
        )
        labels = np.array([job.spec.labels.index(one.label) for one in files], dtype=np.int64)
        images = ImageSet(
            [one.path for one in files], labels.tolist(), job.preprocessing,
            cache_mb=settings.image_cache_mb, max_pixels=settings.max_image_pixels,
        )  # fmt: skip
        features = run(backbone.module, images, job.preprocessing, backbone.device)
        logits = run(
            lambda batch: network.logits(batch, adapter), images, job.preprocessing, backbone.device
        )
        probe = predicted(job.baseline.whole.logits(features))
        pairs = Pairs.of(labels, probe, predicted(logits))
        counts = {name: int((labels == at).sum()) for at, name in enumerate(job.spec.labels)}
        return {"classes": counts, "pairs": asdict(pairs)}

    own = {row.sha256 for row in job.manifest.rows}
    seen = [str(one.path) for one in files if one.sha256 in own]
    if seen:
        raise DataRefused(
            f"{len(seen)} of the {len(files)} site images are images of the pilot itself, "
            f"first {seen[0]}.",
            fix="Give new images, taken on the line after the pilot's.",
            files=seen,
        )
    inputs = {"adapter": adapter, "images": [[one.label, one.sha256] for one in files]}
    site: Result = once(job.folder, "pilot-site", inputs, compute)
    return {**site, "folder": str(folder.absolute())}


class SiteImage(NamedTuple):
    """One file below a class folder of the line."""

    label: str
    path: Path
    sha256: str


def site_files(folder: Path, task: str, classes: Sequence[str], max_pixels: int) -> list[SiteImage]:
    """Return every image below the class folders; each is read, and none is decoded.

    Raises:
        UsageError: no such folder, no images, or a folder that is none of the task's classes.
        DataRefused: a path leads to no file that can be read, or one image is there several times.
    """
    from clr.data.folder import visible
    from clr.data.listing import walk

    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.", fix="Give --site FOLDER/CLASS/IMAGES.")
    entries = list(visible(folder))
    names = [one.name for one in entries if Path(one.path).is_dir()]  # or a link leads to one
    lost = [one.name for one in entries if one.is_symlink() and not Path(one.path).exists()]
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise UsageError(
            f"{folder / unknown[0]} is no class of {task}.",
            fix=f"Its classes are {', '.join(classes)}.",
        )
    places = [(name, folder / name / path) for name in names for path, _ in walk(folder / name)]
    places += [(name, folder / name) for name in lost]  # refused with what else cannot be read
    if not places:
        raise UsageError(f"{folder} has no images.", fix="Give --site FOLDER/CLASS/IMAGES.")
    files = _read(sorted(places), max_pixels)
    _refuse_copies(files)
    return files


def _read(places: Sequence[tuple[str, Path]], max_pixels: int) -> list[SiteImage]:
    """Return the files with their digests; a link may lead out of the folder of the line.

    Raises:
        DataRefused: a path is no regular file, is larger than any image, or cannot be read.
    """
    from clr.data.inspect import UnreadableError, max_bytes, read_confined

    files: list[SiteImage] = []
    bad: dict[str, str] = {}
    for label, path in places:
        real = Path(os.path.realpath(path))  # resolve() raises where links lead in a circle
        try:
            data = read_confined(real.parent, real.name, limit=max_bytes(max_pixels))
        except UnreadableError as error:
            bad[str(path)] = str(error)
        else:
            files.append(SiteImage(label, path, sha256_bytes(data)))
    if bad:
        first = next(iter(bad))
        raise DataRefused(
            f"{len(bad)} of the {len(places)} site images cannot be used, first {first}: "
            f"{bad[first]}.",
            fix="Replace or remove them.",
            files=list(bad),
        )
    return files


def _refuse_copies(files: Sequence[SiteImage]) -> None:
    """Refuse images with the same bytes: they would narrow the interval as if they were new ones.

    Raises:
        DataRefused: there are some, in one class or in several.
    """
    labels = repeated((one.sha256, one.label) for one in files)
    paths = repeated((one.sha256, str(one.path)) for one in files)
    for several, where, fix in (
        (labels, "under several classes", "Decide on one class for each."),
        (paths, "more than once", "Keep one of each: an image counts once."),
    ):
        copies = [str(one.path) for one in files if one.sha256 in several]
        if copies:
            raise DataRefused(
                f"{len(copies)} of the {len(files)} site images are there {where} with the same "
                f"bytes, first {copies[0]}.",
                fix=fix,
                files=copies,
            )
