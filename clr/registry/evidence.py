"""Evidence of champions on this machine, and the router that a release's evidence makes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clr.errors import IntegrityBroken
from clr.registry.fetch import copy_name, fetch

if TYPE_CHECKING:
    from clr.core.evidence import Evidence
    from clr.core.routing import Router
    from clr.registry.release import ChampionRef, Release
    from clr.registry.store import Registry

EVIDENCE_FILE = "evidence/evidence.safetensors"
"""Artifact of the run that made a version."""


def copies_of_evidence(state: Path) -> Path:
    """Return the folder under ``CLR_HOME`` where copies of evidence are kept."""
    return state / "cache" / "evidence"


def evidence_copy(folder: Path, digest: str) -> Path:
    """Return where in `folder` the copy of an evidence file is kept."""
    return folder / copy_name(digest)


def champion_evidence(registry: Registry | None, folder: Path, champion: ChampionRef) -> Evidence:
    """Return the evidence recorded with a champion, from the copy in `folder` or the registry.

    Args:
        registry: opened registry; None: it cannot be reached, and copies must do.
        folder: of the copies.
        champion: whose.

    Raises:
        IntegrityBroken: it is missing, or its bytes are not those that were recorded.
    """
    from clr.core.evidence import read_evidence

    digest = champion.evidence_digest
    copy = evidence_copy(folder, digest)
    try:
        try:
            return read_evidence(copy, digest)
        except IntegrityBroken:
            if registry is None:
                raise
            _fetch(registry, champion, copy)
            return read_evidence(copy, digest)
    except IntegrityBroken as error:
        raise IntegrityBroken(
            f"The evidence of {champion.task} version {champion.version} cannot be trusted. "
            f"{error.message}",
            fix=error.fix,
            task=champion.task,
        ) from error


def _fetch(registry: Registry, champion: ChampionRef, copy: Path) -> None:
    from clr.core.files import write_atomic
    from clr.registry.local import scratch

    with scratch(registry) as folder:
        path = fetch(registry, champion.run_id, EVIDENCE_FILE, folder)
        write_atomic(copy, path.read_bytes())


def release_router(registry: Registry | None, folder: Path, release: Release) -> Router:
    """Return the router of a release, made from its tasks' evidence.

    Args:
        registry: as for `champion_evidence`.
        folder: of the copies of evidence.
        release: whose.

    Raises:
        IntegrityBroken: evidence cannot be trusted, or the router's digest is not the one
            that the release names.
    """
    from clr.core.routing import Gathering, Router

    gathered = Gathering()
    for task, ref in sorted(release.tasks.items()):
        gathered.add(task, champion_evidence(registry, folder, ref).described)
    return checked_router(release, Router(gathered))


def checked_router(release: Release, router: Router) -> Router:
    """Return `router` if it is the one that the release names.

    Raises:
        IntegrityBroken: it is not.
    """
    if router.digest != release.router:
        raise IntegrityBroken(
            f"The router of release {release.version} has {router.digest}, not {release.router}.",
            fix="Run `clr verify`; restore the evidence of the tasks that it names.",
        )
    return router
