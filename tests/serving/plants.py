"""A served workspace without Prefect or training: real tasks, adapters and releases in seconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
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
        first: release of all tasks but the last.
        second: release of all; it is in force.
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


def build(
    folder: Path, tasks: Sequence[str] = TASKS, *, small: bool = True, side: int = synthetic.SIDE
) -> Served:
    """Make a served workspace in `folder`.

    Args:
        folder: to be made.
        tasks: the first release has all but the last.
        small: a small backbone instead of the default one.
        side: of the images, in pixels.
    """
    session = synthetic.workspace(folder, small=small)
    for number, task in enumerate(tasks):
        synthetic.images(folder / "data" / task, number)
    synthetic.pin(session)
    champions = synthetic.register(session, list(tasks), side)
    first = synthetic.release(session, champions[:-1])
    second = synthetic.release(session, champions, first)
    for one in champions:  # by hand: MLflow would write where it knows a run of this id from before
        run = session.settings.state / "artifacts" / f"clr-{one.task}" / one.run_id / "artifacts"
        (run / "roi.json").write_text(json.dumps(business()), encoding="utf-8")
    settings = session.settings
    names = ("backbone", "backbone_architecture", "backbone_sha256") if small else ()
    environment = {
        **{f"CLR_{name.upper()}": getattr(settings, name) for name in names},
        "CLR_DEVICE": "cpu",
        "CLR_THREADS": "1",
    }
    return Served(folder, environment, first, second)


def copied(served: Served, root: Path) -> Served:
    """Return a copy of a workspace at `root`, to be changed and broken at will.

    What the original has answered meanwhile is none of the copy's history.
    """
    from tests.conftest import Plant, copy_plant

    copy_plant(Plant(served.root, served.environment), root)
    shutil.rmtree(root / ".clr" / "serving", ignore_errors=True)
    return replace(served, root=root)


def business() -> dict[str, Any]:
    """Return the business case of each task, as an onboarding with made-up figures leaves it."""
    from clr.roi import business_case

    measured = {
        "accuracy": 0.95, "accuracy_ci": (0.93, 0.965), "baseline_accuracy": 0.84,
        "images_labelled": 1800, "training_seconds": 154.0, "latency_p50_after_ms": 18.0,
    }  # fmt: skip
    assumed = {
        "currency": "EUR", "items_per_year": 20_000, "error_cost": 9, "defects": ["right"],
        "label_cost_per_image": 0.05, "compute_cost_per_hour": 0.4, "engineer_hours": 16,
        "hourly_rate": 80, "maintenance_hours_per_month": 2, "horizon_years": 3,
        "discount_rate": 0.08,
    }  # fmt: skip
    return business_case(measured, assumed)
