"""A release as it is served: immutable, so that a request that began with one ends with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clr.serving.values import ServedTask

if TYPE_CHECKING:
    from clr.core.adapter import AdapterSpec
    from clr.core.routing import Router
    from clr.registry.release import ChampionRef, Release


@dataclass(frozen=True)
class Loaded:
    """A task whose adapter is verified.

    Attributes:
        ref: version and digests, as the release names them.
        spec: of the adapter.
    """

    ref: ChampionRef
    spec: AdapterSpec


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A release whose every digest was verified.

    Attributes:
        release: as the registry has it.
        tasks: those that are served.
        refused: why each other task is not.
        router: None where it is not needed or cannot be trusted.
        routing: why images without a task cannot be answered; empty: they can.
        cached: it was loaded from local copies, without asking the registry.
    """

    release: Release
    tasks: Mapping[str, Loaded]
    refused: Mapping[str, str] = field(default_factory=dict)
    router: Router | None = None
    routing: str = ""
    cached: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing of the release is missing."""
        return not (self.refused or self.routing)


def served_tasks(snapshot: Snapshot, backbone: str) -> list[ServedTask]:
    """Return the tasks of a release, those that are refused too, by name.

    Args:
        snapshot: the release.
        backbone: name of the backbone.
    """
    return [served_task(snapshot, name, backbone) for name in sorted(snapshot.release.tasks)]


def served_task(snapshot: Snapshot, name: str, backbone: str) -> ServedTask:
    """Return one of them.

    Raises:
        KeyError: the release has no such task.
    """
    ref = snapshot.release.tasks[name]
    spec = snapshot.tasks[name].spec if name in snapshot.tasks else None
    labels, side = (spec.labels, spec.preprocessing.size) if spec else ((), 0)
    why = snapshot.refused.get(name, "")
    return ServedTask(name, ref.version, ref.adapter_digest, labels, side, backbone, why)
