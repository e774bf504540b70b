"""Give one task's network to others: written, read back, compared, recorded, published."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.errors import DataRefused, IntegrityBroken, UsageError
from flows.asked import require_writable

if TYPE_CHECKING:
    from torch import Tensor

    from clr.core.adapter import Adapter
    from clr.core.export_formats import Form
    from clr.registry.release import ChampionRef
    from flows.session import Session

EXPORTED = "adapter.exported"
LIMIT = 1e-4
"""Largest difference of logits, as a share of the largest: sums of floats in another order."""
NOISE_IMAGES = 16
Result = dict[str, Any]
Logits = Callable[["Tensor"], "Tensor"]


def run_export(
    session: Session, task: str, version: int | None, form: Form, output: Path
) -> Result:
    """Write the folded network of a version; what differs from the registry's is refused.

    Args:
        session: the workspace.
        task: task name.
        version: its number; None: the one that serves.
        form: ``onnx``, ``torchscript`` or ``safetensors-bundle``.
        output: folder to write into.

    Returns:
        What ``clr export --json`` prints.

    Raises:
        UsageError: no such version, packages missing, or the file is there already.
        ServiceUnavailable: `output` is no folder that can be written.
        IntegrityBroken: the adapter is not the registered one, or the exported network
            answers otherwise than it does; nothing is written then.
    """
    from clr.core import export_formats
    from clr.core.exporting import standalone
    from clr.registry.local import scratch

    export_formats.require(form)
    chosen = _choose(session, task, version)
    target = output / export_formats.name_of(form, task, chosen.version)
    if target.exists():
        raise _there(target)
    require_writable(output)  # now, not after a minute of work
    adapter = _adapter(session, chosen)
    spec = _spec(session, chosen, adapter)
    size = adapter.spec.preprocessing.size
    files = export_formats.write(form, standalone(session.backbone, adapter), size, spec)
    with scratch(session.registry) as folder:
        written = folder / target.name
        _put(files, written)
        compared = compare(session, chosen, adapter, export_formats.read(form, written))
        digest = _digest(files)
        about = {
            "format": form,
            "digest": digest,
            "bytes": sum(map(len, files.values())),
            "adapter": chosen.adapter_digest,
            "backbone": session.backbone.digest,
            "compared": compared,
        }
        entry = session.record(EXPORTED, f"clr-{task}/{chosen.version}", about)
    _publish(files, target)
    return {
        "task": task,
        "version": chosen.version,
        "path": str(target),
        "files": sorted(str(target / name) if name else str(target) for name in files),
        **about,
        "by": entry.actor,
        "entry": entry.seq,
    }


def _choose(session: Session, task: str, version: int | None) -> ChampionRef:
    from clr.registry.releases import current_release
    from clr.registry.versions import champion_of, get_version

    if version is not None:
        return champion_of(get_version(session.registry, task, version))
    release = current_release(session.registry)
    if release is None or task not in release.tasks:
        raise UsageError(
            f"No version of {task} serves.", fix=f"Name one: clr export {task}@1 --format …"
        )
    return release.tasks[task]


def _adapter(session: Session, chosen: ChampionRef) -> Adapter:
    from clr.core.adapter import load_adapter
    from clr.registry.fetch import adapter_path

    path = adapter_path(session.registry, chosen.task, chosen.version, chosen.adapter_digest)
    return load_adapter(path, session.backbone, chosen.adapter_digest)


def _spec(session: Session, chosen: ChampionRef, adapter: Adapter) -> Result:
    from dataclasses import asdict

    from clr import __version__

    return {
        "schema": "clr.export/1",
        "task": chosen.task,
        "version": chosen.version,
        "labels": list(adapter.spec.labels),
        "preprocessing": asdict(adapter.spec.preprocessing),
        "adapter": chosen.adapter_digest,
        "backbone": session.backbone.name,
        "backbone_digest": session.backbone.digest,
        "data": chosen.data_digest,
        "library": __version__,
    }


def compare(session: Session, chosen: ChampionRef, adapter: Adapter, exported: Logits) -> Result:
    """Return how the exported network and the registered adapter differ on the same images.

    Raises:
        IntegrityBroken: by more than `LIMIT`, or in a label, or a logit is no number.
    """
    import torch

    def both(batch: Tensor) -> Tensor:
        wanted = session.network.logits(batch, chosen.adapter_digest).float().cpu()
        return torch.stack((wanted, exported(batch.cpu().contiguous())), 1)

    session.network.attach(adapter, chosen.adapter_digest)
    try:
        kind, logits = _answers(session, chosen, adapter, both)
    finally:
        session.network.detach(chosen.adapter_digest)
    wanted, found = logits.unbind(1)
    differences, largest = float((found - wanted).abs().max()), float(wanted.abs().max())
    same, count = int((found.argmax(1) == wanted.argmax(1)).sum()), len(logits)
    told = {
        "on": kind,
        "images": count,
        "largest_difference": differences,
        "largest_logit": largest,
        "same_label": same,
    }
    if not differences <= LIMIT * largest or same < count:
        raise IntegrityBroken(
            f"The exported network of {chosen.task} answers otherwise than the registered one: "
            f"{count - same} of {count} labels differ, logits by up to {differences:.3g} "
            f"of {largest:.3g}.",
            fix="Nothing was written. Export in another format, and report this one.",
            compared={one: None if value != value else value for one, value in told.items()},
        )
    return told


def _answers(
    session: Session, chosen: ChampionRef, adapter: Adapter, function: Logits
) -> tuple[str, Tensor]:
    """Return what `function` says of the task's test images, or of noise where they are not here.

    Returns:
        a word for the images, and [images, …], its results.
    """
    import torch

    from clr.core.evaluate import run
    from clr.core.images import prepare
    from flows.job import images_of
    from flows.replay import test_folder

    way, device = adapter.spec.preprocessing, session.backbone.device
    try:
        with test_folder(session, chosen.task, chosen.data_digest) as folder:
            if len(found := images_of(session, folder, "test", adapter.spec)):
                return "test images", run(function, found, way, device)
    except (DataRefused, UsageError):
        pass  # not here, or not readable
    generator = torch.Generator().manual_seed(0)
    shape = (NOISE_IMAGES, 3, way.size, way.size)
    noise = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    with torch.inference_mode():
        return "seeded noise", function(prepare(noise, way, device))


def _digest(files: dict[str, bytes]) -> str:
    """Return the sha256 of the file or, of several, of the canonical JSON {name: sha256}."""
    from clr.core.files import canonical_json, sha256_bytes

    if "" in files:
        return sha256_bytes(files[""])
    return sha256_bytes(canonical_json({name: sha256_bytes(d) for name, d in files.items()}))


def _put(files: dict[str, bytes], target: Path) -> None:
    from clr.core.files import write_atomic

    for name, data in files.items():
        write_atomic(target / name if name else target, data)


def _publish(files: dict[str, bytes], target: Path) -> None:
    """Write the export whole or not at all, over nothing that came there meanwhile."""
    partial = target.parent / f".partial-{secrets.token_hex(8)}"
    try:
        _put(files, partial)
        try:
            target.touch(exist_ok=False) if "" in files else target.mkdir()
        except FileExistsError as error:
            raise _there(target) from error
        partial.replace(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
        raise


def _there(target: Path) -> UsageError:
    return UsageError(
        f"{target} is there already.", fix="Remove it, or give another folder with --output."
    )
