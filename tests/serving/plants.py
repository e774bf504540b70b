"""A served workspace without Prefect or training: real tasks, adapters and releases in seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests import synthetic

TASKS = ("red", "green", "blue")


@dataclass(frozen=True, eq=False)
class Served:
    """A workspace whose registry has two releases.

    Attributes:
        root: of the workspace.
        environment: settings that name its backbone.
        first: release of the first two tasks.
        second: release of all three; it is in force.
    """

    root: Path
    environment: dict[str, str]
    first: Any
    second: Any

    @property
    def state(self) -> Path:
        """``CLR_HOME``."""
        return self.root / ".clr"

    def images(self, task: str) -> list[Path]:
        """Return test images of a task."""
        return sorted((self.root / "data" / task / "test").rglob("*.png"))

    def settings(self, **values: Any) -> Any:
        """Return the settings of the workspace."""
        from clr.settings import Settings

        known = {
            name.removeprefix("CLR_").lower(): value for name, value in self.environment.items()
        }
        return Settings(workspace=self.root, home=self.state, **{**known, **values})

    def registry(self) -> Any:
        """Return its registry, opened as by another process."""
        from clr.registry.store import open_registry

        return open_registry(self.settings())

    def activate(self, release: Any) -> None:
        """Put a release in force, as a promotion or rollback does."""
        from clr.registry.releases import activate

        activate(self.registry(), release)

    def adapter(self, task: str) -> Path:
        """Return the registered file of a task's adapter."""
        from clr.registry.fetch import fetch_adapter

        return fetch_adapter(self.registry(), task, 1, self.state / "unused")


def build(folder: Path) -> Served:
    """Make a served workspace in `folder`."""
    session = synthetic.workspace(folder)
    for number, task in enumerate(TASKS):
        synthetic.images(folder / "data" / task, number)
    synthetic.pin(session)
    champions = synthetic.register(session, list(TASKS))
    first = synthetic.release(session, champions[:2])
    second = _follow(session, first, champions)
    settings = session.settings
    environment = {
        "CLR_BACKBONE": settings.backbone,
        "CLR_BACKBONE_ARCHITECTURE": settings.backbone_architecture,
        "CLR_BACKBONE_SHA256": settings.backbone_sha256,
        "CLR_DEVICE": "cpu",
        "CLR_THREADS": "1",
    }
    return Served(folder, environment, first, second)


def _follow(session: Any, before: Any, champions: list[Any]) -> Any:
    from clr.core.files import canonical_json
    from clr.core.routing import Router
    from clr.registry.releases import activate, write_release

    router = Router({one.task: session.evidence(one).statistics for one in champions})
    release = replace(
        before,
        tasks={one.task: one for one in champions},
        router=router.digest,
        previous=before.digest,
        version=0,
    )
    written = write_release(
        session.registry, release, {"gate.json": canonical_json({"matrix": None})}
    )
    activate(session.registry, written)
    return written
