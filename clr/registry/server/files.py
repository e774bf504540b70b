"""Bytes of registered files as they are now, and which runs and models are registered."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from clr.core.files import sha256_bytes
from clr.errors import ServiceUnavailable
from clr.registry.package import ADAPTER_FILE
from clr.registry.release import RELEASE_FILE
from clr.registry.server.inside import handlers, registry_store, tracking_store
from clr.registry.store import RELEASE_MODEL

_CHUNK = 500


def registered_bytes(source: str, name: str) -> bytes | None:
    """Return the bytes of the file `name` of the logged model `source` (``models:/m-…``).

    None where there is no such model or file. Read where the server keeps it: the file
    itself on a local disk, a download elsewhere.
    """
    identifier = source.removeprefix("models:/")
    try:
        location = tracking_store().get_logged_model(identifier).artifact_location
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return _read(str(location), name)


def _read(location: str, name: str) -> bytes | None:
    if handlers._is_servable_proxied_run_artifact_root(location):
        files = handlers._get_artifact_repo_mlflow_artifacts()
        path = handlers._get_proxied_run_artifact_destination_path(location, name)
    else:
        files, path = handlers._get_artifact_repository_for_uri(location), name
    try:
        local = files.get_local_path(path)
        if local is not None:
            return Path(local).read_bytes()
    except (MlflowException, OSError):
        return None
    return _download(files, str(path))


def _download(files: Any, path: str) -> bytes | None:
    """Return a file's bytes from elsewhere; None only where the store says that it has none.

    Raises:
        ServiceUnavailable: it cannot be read now. That is no missing file, which would be
            told as one that somebody removed.
    """
    try:
        if path not in {one.path for one in files.list_artifacts(posixpath.dirname(path))}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(files.download_artifacts(path, folder)).read_bytes()
    except Exception as error:  # each store's library has exceptions of its own
        raise ServiceUnavailable(
            f"The store of files cannot be read: {' '.join(str(error).split())[:300]}",
            fix="See that it runs; then try again.",
        ) from error


def actual(model: str, source: str) -> str:
    """Return the digest of what a version of `model` with this source is about now.

    That is the adapter file, or ``release.json`` for a release; empty where it is missing.
    """
    name = RELEASE_FILE if model == RELEASE_MODEL else ADAPTER_FILE
    data = registered_bytes(source, name)
    return "" if data is None else sha256_bytes(data)


def any_registered(ids: Sequence[str]) -> bool:
    """Say whether a run or logged model among `ids` belongs to a version of any model."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
    from sqlalchemy import or_

    if not ids:
        return False
    sources = [f"models:/{one}" for one in ids if one.startswith("m-")]
    runs = [one for one in ids if not one.startswith("m-")]
    with registry_store().ManagedSessionMaker() as session:
        query = session.query(SqlModelVersion.version).filter(
            or_(SqlModelVersion.run_id.in_(runs), SqlModelVersion.source.in_(sources))
        )
        return query.limit(1).first() is not None


def experiment_registered(identifier: str) -> bool:
    """Say whether a run or logged model of this experiment belongs to a version of any model."""
    from mlflow.store.tracking.dbmodels.models import SqlLoggedModel, SqlRun

    if not identifier.isdecimal():
        return False
    ids: list[str] = []
    with tracking_store().ManagedSessionMaker() as session:
        for table, column in ((SqlRun, SqlRun.run_uuid), (SqlLoggedModel, SqlLoggedModel.model_id)):
            query = session.query(column).filter(table.experiment_id == int(identifier))
            ids += [row[0] for row in query]
    parts = (ids[at : at + _CHUNK] for at in range(0, len(ids), _CHUNK))
    return any(any_registered(part) for part in parts)
