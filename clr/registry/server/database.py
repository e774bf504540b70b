"""The registry's database before the server starts: reachable, complete, and ready to be served.

A workspace may have kept its registry embedded so far. Its files then have addresses of
this machine's file system, which the server cannot hand out; they are rewritten, once, to
addresses of the server's own artifact store in the same folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.errors import ServiceUnavailable, extra
from clr.registry.faults import calling, redact
from clr.registry.moved import LOCATIONS, follow
from clr.registry.server.config import artifacts_folder, database_url
from clr.registry.store import (
    RELEASE_DESCRIPTION,
    RELEASE_MODEL,
    check_database,
    create_database,
    quiet,
)

if TYPE_CHECKING:
    from clr.settings import Settings

SERVED = "mlflow-artifacts:"


def prepare_database(settings: Settings) -> int:
    """Make the database of the registry ready to be served.

    Returns:
        how many addresses of files were rewritten: 0 but at the first start in a workspace
        that was embedded so far.

    Raises:
        UsageError: see `clr.registry.server.config.database_url`.
        ServiceUnavailable: unreachable, not writable, or written by another MLflow.
        IntegrityBroken: the file is no database.
    """
    import sqlalchemy as sa

    url = database_url(settings)
    with calling(url, "prepare the database of the registry"):
        if url.startswith("sqlite:"):
            file = Path(url.removeprefix("sqlite:///"))
            _prepare_file(file)
            follow(file, artifacts_folder(settings.state))
        else:
            _prepare_postgresql(url)
        engine = sa.create_engine(url)
        try:
            with engine.begin() as connection:
                return _serve_files(connection, artifacts_folder(settings.state))
        finally:
            engine.dispose()


def _prepare_file(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        check_database(file)
    else:
        create_database(file, f"{SERVED}/")


def _prepare_postgresql(url: str) -> None:
    import sqlalchemy as sa

    try:  # MLflow itself would try for minutes before it says anything
        engine = sa.create_engine(url, connect_args={"connect_timeout": 10})
        with engine.connect():
            pass
        engine.dispose()
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        words = " ".join(str(getattr(error, "orig", None) or error).split())
        raise ServiceUnavailable(
            f"The database {redact(url)} cannot be used: {words[:300]}",
            fix="See that it runs, that CLR_REGISTRY_DATABASE names an existing database, user "
            f"and password, and that its driver is installed. {extra('postgres')}.",
        ) from error
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    quiet()
    SqlAlchemyStore(url, f"{SERVED}/").engine.dispose()  # type: ignore[no-untyped-call]


def ensure_release_model(url: str) -> None:
    """Make the registered model of the releases in the database at `url`, unless it is there.

    MLflow answers who asks for an alias of a model that is not there that he may not know;
    with the model there, a workspace without a release can be told from a refusal.

    Raises:
        ServiceUnavailable: the database cannot be written, or was by another MLflow.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    quiet()
    with calling(url, "open the registry"):
        store = SqlAlchemyStore(url)  # type: ignore[no-untyped-call]
        try:
            store.create_registered_model(  # type: ignore[no-untyped-call]
                RELEASE_MODEL, description=RELEASE_DESCRIPTION
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        finally:
            store.engine.dispose()


def _serve_files(connection: Any, folder: Path) -> int:
    import sqlalchemy as sa

    count = 0
    for table, column in LOCATIONS:
        place = sa.table(table, sa.column(column))
        old = place.c[column]
        for prefix in dict.fromkeys((folder.as_uri(), f"file://{folder}", str(folder))):
            rewritten = sa.literal(SERVED) + sa.func.substr(old, len(prefix) + 1)
            below = sa.func.substr(old, 1, len(prefix) + 1) == f"{prefix}/"
            query = sa.update(place).where(below).values({column: rewritten})
            count += connection.execute(query).rowcount
    return count
