"""The folder of a registered model as anybody fetches it."""

from __future__ import annotations

from pathlib import Path

from clr.errors import IntegrityBroken
from clr.registry.faults import calling
from clr.registry.fetch import download
from clr.registry.store import Registry


def fetch_bundle(registry: Registry, name: str, version: int, folder: Path) -> None:
    """Fill `folder` with what ``mlflow artifacts download -u models:/NAME/VERSION`` gives.

    Raises:
        IntegrityBroken: the registry has the version but not its files.
        ServiceUnavailable: it cannot be reached, or the folder not be written.
    """
    missing = IntegrityBroken(
        f"The registered files of {name} version {version} are missing.",
        fix="Restore them from a backup, or onboard the task again.",
        model=name,
        version=version,
    )
    with calling(registry.uri, f"fetch version {version} of {name}"):
        download(registry, f"models:/{name}/{version}", folder, missing)
