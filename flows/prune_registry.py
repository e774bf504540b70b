"""What in the registry's files and among DVC's objects nothing names any more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from clr.data import dvc, listing
from clr.data.versioning import exclusive
from clr.errors import ServiceUnavailable
from clr.registry.faults import redact
from clr.registry.server.config import artifacts_folder, database_url
from flows import named

if TYPE_CHECKING:
    import sqlalchemy as sa

    from clr.settings import Settings
    from flows.prune import Old
    from flows.session import Session

_ID = re.compile(r"\b(?:m-)?[0-9a-f]{32}\b")
_SERVED = "mlflow-artifacts:/"

_DELETED = {
    "run": "SELECT artifact_uri, run_uuid FROM runs WHERE lifecycle_stage = 'deleted' "
    "AND deleted_time IS NOT NULL AND deleted_time < :before",
    "model": "SELECT artifact_location, model_id FROM logged_models "
    "WHERE lifecycle_stage = 'deleted' AND last_updated_timestamp_ms < :before",
}
_VERSIONS = "SELECT run_id, source, storage_location FROM model_versions"


@contextmanager
def found(
    session: Session, before: float, deleted_before: float, kept: list[str]
) -> Iterator[list[Old]]:
    """Give what may go; as long as the block lasts, no version of data is made.

    Args:
        session: the workspace.
        before: what is younger than this time stays.
        deleted_before: the same for files of what was deleted from the registry.
        kept: gets a sentence about what cannot be judged.

    Raises:
        IntegrityBroken: ``data.dvc``, a list of files or the ledger is damaged.
        ServiceUnavailable: the registry's database cannot be read.
    """
    settings = session.settings
    if not is_here(settings):
        kept.append("DVC's objects and the registry's files: the registry is kept elsewhere")
        yield []
        return
    with exclusive(settings.workspace), _reading(settings) as connection:
        lists = named.by_registry(connection) if connection is not None else set()
        gone = list(_deleted(session, connection, deleted_before)) if connection is not None else []
        yield [*gone, *_objects(session, lists, before, kept)]


def is_here(settings: Settings) -> bool:
    """Say whether the registry's database is this workspace's own, so that all names are known."""
    if settings.registry_database or not settings.registry_url:
        return True
    try:
        own = json.loads(settings.registry_file.read_bytes())["url"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(own == settings.registry_url.rstrip("/"))


@contextmanager
def _reading(settings: Settings) -> Iterator[sa.Connection | None]:
    import sqlalchemy as sa

    from clr.registry.faults import calling

    url = database_url(settings)
    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:") and not file.exists():
        yield None
        return
    engine = sa.create_engine(url)
    try:
        with calling(url, "read the registry"), engine.connect() as connection:
            # a file without tables: MLflow was never told to make them
            yield connection if sa.inspect(connection).has_table("model_versions") else None
    finally:
        engine.dispose()


def _deleted(session: Session, connection: sa.Connection, before: float) -> Iterator[Old]:
    """Yield the files of runs and logged models that were deleted and that nothing names."""
    import sqlalchemy as sa

    from flows.prune import old

    names = _names(session, connection.execute(sa.text(_VERSIONS)).all())
    for query in _DELETED.values():
        rows = connection.execute(sa.text(query), {"before": int(before * 1000)}).all()
        for address, name in rows:
            folder = _folder(session.settings, str(address))
            if name not in names and folder is not None and folder.is_dir():
                yield old("deleted", folder)


def _names(session: Session, versions: Sequence[Any]) -> set[str]:
    """Return all ids of runs and models that a version or an entry of the ledger names."""
    texts = [str(value) for row in versions for value in row]
    texts += [json.dumps(dict(one.payload)) for one in session.ledger.entries()]
    return {name for text in texts for name in _ID.findall(text)}


def _folder(settings: Settings, address: str) -> Path | None:
    """Return the folder of files at an address; None where it is not below ``CLR_HOME``."""
    root = artifacts_folder(settings.state)
    if address.startswith("file:"):
        folder = Path(unquote(urlsplit(address).path))
    elif address.startswith(_SERVED) and not settings.registry_artifacts:
        folder = root / address.removeprefix(_SERVED).lstrip("/")
    else:
        return None
    inside = ".." not in folder.parts and folder != root and folder.is_relative_to(root)
    return folder if inside else None


def _objects(session: Session, lists: set[str], before: float, kept: list[str]) -> Iterator[Old]:
    """Yield old objects of the workspace's own cache and remote that no version of data has.

    Not `dvc gc`: it knows what commits name, but not what registry and ledger name, and in a
    workspace whose ``data.dvc`` is never committed it would take every version but the last.
    """
    from flows.prune import old

    settings = session.settings
    places = dvc.stores(session.settings)
    try:
        lists = lists | named.by_ledger(session) | named.by_git(settings.workspace)
    except ServiceUnavailable as error:
        kept.append(f"DVC's objects: which of them commits name is not known. {error}")
        return
    wanted, unknown = named.objects(lists, places)
    if unknown:
        kept.append(
            f"DVC's objects: {len(unknown)} versions of the data are named whose lists of files "
            "are not here (`dvc fetch --all-commits` brings them)"
        )
        return
    for place in places:
        if not any(place.is_relative_to(own) for own in (settings.workspace, settings.state)):
            kept.append(f"DVC's objects in {place}: others may use them, too")
            continue
        for path in sorted((place / "files" / "md5").glob("[0-9a-f][0-9a-f]/*")):
            oid = path.parent.name + path.name
            if listing.is_oid(oid) and oid not in wanted and path.stat().st_ctime < before:
                yield old("objects", path)
    if "://" in dvc.remote_url(settings):
        kept.append(f"DVC's objects in {redact(settings.dvc_remote)}")
