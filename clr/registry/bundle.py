"""The folder of a registered model as anybody fetches it."""

from __future__ import annotations

from pathlib import Path

from clr.errors import IntegrityBroken
from clr.registry.faults import calling
from clr.registry.store import Registry, as_default


def fetch_bundle(registry: Registry, name: str, version: int, folder: Path) -> None:
    """Fill `folder` with what ``mlflow artifacts download -u models:/NAME/VERSION`` gives.

    Raises:
        IntegrityBroken: the registry has the version but not its files.
        ServiceUnavailable: it cannot be reached, or the folder not be written.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    folder.mkdir(parents=True)
    with calling(registry.uri, f"fetch version {version} of {name}"), as_default(registry):
        try:
            download_artifacts(artifact_uri=f"models:/{name}/{version}", dst_path=str(folder))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST" or "404 Client Error" in str(error):
                raise IntegrityBroken(
                    f"The registered files of {name} version {version} are missing.",
                    fix="Restore them from a backup, or onboard the task again.",
                    model=name,
                    version=version,
                ) from error
            raise
