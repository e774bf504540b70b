"""Load a release for serving: only what is new, every digest checked before it answers.

What cannot be trusted is refused by name, and the rest is served: an adapter whose file is
damaged takes its own task away and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from clr.errors import ClrError, IntegrityBroken, ServiceUnavailable
from clr.registry.evidence import copies_of_evidence, release_router
from clr.registry.fetch import adapter_path
from clr.serving.snapshot import Loaded, Snapshot

if TYPE_CHECKING:
    from clr.core.adapter import Adapter
    from clr.core.backbone import Backbone
    from clr.core.routing import Router
    from clr.registry.release import ChampionRef, Release
    from clr.registry.store import Registry


def load_champion(registry: Registry, backbone: Backbone, ref: ChampionRef) -> Adapter:
    """Return the adapter of a champion, checked.

    Raises:
        IntegrityBroken: missing, other bytes, of another backbone or task.
        ServiceUnavailable: the registry has to be asked and cannot be.
    """
    from clr.core.adapter import load_adapter

    path = adapter_path(registry, ref.task, ref.version, ref.adapter_digest)
    adapter = load_adapter(path, backbone, ref.adapter_digest)
    if adapter.spec.task != ref.task:
        raise IntegrityBroken(
            f"The adapter {ref.adapter_digest} is of {adapter.spec.task}, not of {ref.task}.",
            fix="Run `clr verify`.",
        )
    return adapter


def load(
    registry: Registry,
    state: Path,
    backbone: Backbone,
    release: Release,
    before: Snapshot | None = None,
) -> tuple[Snapshot, Mapping[str, Adapter]]:
    """Verify a release.

    Args:
        registry: where it is.
        state: ``CLR_HOME``.
        backbone: that serves.
        release: to be served.
        before: what serves now; what both have is not read again.

    Returns:
        it, and the adapters by digest that `before` does not have.

    Raises:
        IntegrityBroken: it is of another backbone than this one.
    """
    check_backbone(backbone, release)
    tasks, refused, new = {}, {}, {}
    known = dict(before.tasks) if before else {}
    for task, ref in sorted(release.tasks.items()):
        had = known.get(task)
        if had is not None and had.ref.adapter_digest == ref.adapter_digest:
            tasks[task] = Loaded(ref, had.spec)
            continue
        try:
            adapter = load_champion(registry, backbone, ref)
        except ClrError as error:
            refused[task] = error.message
            continue
        new[ref.adapter_digest] = adapter
        tasks[task] = Loaded(ref, adapter.spec)
    router, routing = _router(registry, state, release, before)
    return Snapshot(release, tasks, refused, router, routing), new


def check_backbone(backbone: Backbone, release: Release) -> None:
    """Refuse a release of another backbone.

    Raises:
        IntegrityBroken: it is.
    """
    if backbone.digest != release.backbone:
        raise IntegrityBroken(
            f"The backbone here has {backbone.digest}, "
            f"release {release.version} needs {release.backbone}.",
            fix="Set CLR_BACKBONE to the one that the release was made with.",
        )


def _router(
    registry: Registry, state: Path, release: Release, before: Snapshot | None
) -> tuple[Router | None, str]:
    if len(release.tasks) < 2:
        return None, ""
    if before and before.router is not None and before.router.digest == release.router:
        return before.router, ""
    try:
        return release_router(registry, copies_of_evidence(state), release), ""
    except (IntegrityBroken, ServiceUnavailable) as error:
        return None, error.message
