"""The common start of all methods on one task: measured once, kept on disk, shared."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from clr.core.files import canonical_json, write_atomic
from clr.errors import IntegrityBroken
from flows.compare.plan import folder
from flows.compare.tasks import File, Task, files_digest
from flows.session import Session
from flows.steps import digest_of

if TYPE_CHECKING:
    from torch import Tensor

    from clr.core.baseline import Baseline
    from clr.core.images import ImageSet, Preprocessing

WAIT_SECONDS = 3600.0


def baseline_of(
    session: Session,
    task: Task,
    files: tuple[File, ...],
    images: ImageSet,
    preprocessing: Preprocessing,
    seed: int,
    code: str,
) -> tuple[Baseline, float]:
    """Return split, probe, class weights and symmetries, and the seconds they took.

    Args:
        session: the workspace.
        task: which.
        files: the training images that are used.
        images: the same, decoded.
        preprocessing: of the task.
        seed: of the split.
        code: digest of what measures.

    Raises:
        IntegrityBroken: the kept file is damaged.
    """
    from filelock import FileLock

    from clr.core.baseline import measure_baseline
    from clr.core.recipe import Recipe

    about = files_digest(files, task.labels, task.size)
    backbone = session.backbone
    key = digest_of([about, seed, backbone.digest, session.device, code])
    path = folder(session.settings) / "baselines" / f"{key.removeprefix('sha256:')}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=WAIT_SECONDS):
        if path.is_file():
            return _read(path)
        started = time.perf_counter()
        recipe = Recipe(seed=seed, image_size=task.size)
        made = measure_baseline(backbone, images, preprocessing, recipe, len(task.labels))
        seconds = time.perf_counter() - started
        write_atomic(path, _to_bytes(made, seconds))
        return made, seconds


def _to_bytes(baseline: Baseline, seconds: float) -> bytes:
    import safetensors.torch

    tensors = {
        "probe.weight": baseline.probe.weight,
        "probe.bias": baseline.probe.bias,
        "whole.weight": baseline.whole.weight,
        "whole.bias": baseline.whole.bias,
        "train": baseline.train,
        "validation": baseline.validation,
        "weights": baseline.weights,
    }
    facts = {
        "strength": baseline.probe.strength,
        "turns": list(baseline.turns),
        "seconds": seconds,
    }
    kept: Mapping[str, Tensor] = {name: one.contiguous() for name, one in tensors.items()}
    data: bytes = safetensors.torch.save(dict(kept), {"facts": canonical_json(facts).decode()})
    return data


def _read(path: Path) -> tuple[Baseline, float]:
    import json

    import safetensors.torch
    from safetensors import SafetensorError

    from clr.core.baseline import Baseline
    from clr.core.probe import Probe

    data = path.read_bytes()
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts = json.loads(header["__metadata__"]["facts"])
        one = safetensors.torch.load(data)
        probe, whole = (
            Probe(one[f"{name}.weight"], one[f"{name}.bias"], facts["strength"])
            for name in ("probe", "whole")
        )
        turns, parts = tuple(facts["turns"]), (one["train"], one["validation"])
        found = Baseline(probe, whole, *parts, turns, one["weights"])
        return found, float(facts["seconds"])
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise IntegrityBroken(
            f"{path} is damaged: {error}.", fix="Delete it; it is made again."
        ) from error
