"""The handle on the registry: a SQLite file under ``CLR_HOME``, or an MLflow server."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clr.errors import ServiceUnavailable, UsageError
from clr.registry.faults import calling, redact, unreachable
from clr.registry.login import sign_in
from clr.registry.moved import follow

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from clr.registry.release import Release
    from clr.settings import Settings

RELEASE_MODEL = "clr-release"
RELEASE_DESCRIPTION = "What serves: one version a state of the whole system."
RELEASE_EXPERIMENT = "clr/release"
KEY_TAG = "clr.key"
POLICY_HEADER = "X-CLR-Policy"
"""A guarded server's answers carry the digest of its review policy in this header."""

_TASK = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_KEY = re.compile(r"[A-Za-z0-9:._@+-]{1,250}")
MOST_VERSIONS = 2**31 - 1
"""Of one model: MLflow's schema has 32 bits for the number, so that no larger one is there."""
_DEFAULT_LOCK = threading.RLock()
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout holds the command's result only
    # the defaults retry for minutes; a command must end with an error before its user gives up
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}


@dataclass(frozen=True, eq=False)
class Registry:
    """An opened registry.

    Attributes:
        client: MLflow client bound to `uri` for tracking and registry.
        uri: ``sqlite:///…`` or ``http(s)://…``.
        embedded: True where the registry is a file of this workspace.
        artifacts: folder URI of artifacts where embedded; empty where the server decides.
        cache: local folder for copies of registered files, named by their digest.
        guarded: whether the server enforces a review policy, so that actors are known by password.
    """

    client: MlflowClient
    uri: str
    embedded: bool
    artifacts: str
    cache: Path
    guarded: bool = False
    _experiments: dict[str, str] = field(default_factory=dict, repr=False)
    _models: set[str] = field(default_factory=set, repr=False)
    _releases: dict[int, Release] = field(default_factory=dict, repr=False)


def model_name(task: str) -> str:
    """Return the name of the registered model of `task`: ``clr-<task>``.

    Raises:
        UsageError: not a task name, or ``release``, which names the releases themselves.
    """
    if not _TASK.fullmatch(task):
        raise UsageError(
            f"{task!r} is not a task name.",
            fix="Use lower-case letters, digits and dashes, at most 63, not starting with a dash.",
        )
    if task == "release":
        raise UsageError(
            "A task cannot be named 'release': the registry keeps the releases under that name.",
            fix="Rename the task's folder.",
        )
    return f"clr-{task}"


def experiment_name(task: str) -> str:
    """Return the name of the experiment of `task`: ``clr/<task>``."""
    return "clr/" + model_name(task).removeprefix("clr-")


def checked_key(key: str) -> str:
    """Return `key` if it can be an idempotency key (it goes into search filters).

    Raises:
        UsageError: empty, too long, or with other characters than ``A-Za-z0-9:._@+-``.
    """
    if not _KEY.fullmatch(key):
        raise UsageError(
            f"{key[:80]!r} cannot be an idempotency key.",
            fix="Use a digest: sha256:<64 hex>.",
        )
    return key


def copies_of_adapters(state: Path) -> Path:
    """Return the folder under ``CLR_HOME`` where copies of registered adapters are kept."""
    return state / "cache" / "registry"


def open_registry(settings: Settings) -> Registry:
    """Open the registry that `settings` name, creating the embedded one on first use.

    A server is asked as ``MLFLOW_TRACKING_USERNAME``; without that, as ``clr-trainer`` where
    this user may read its password.

    Raises:
        UsageError: ``CLR_REGISTRY_URL`` is not an http(s) address.
        ServiceUnavailable: unreachable, not allowed, no space, not writable.
        IntegrityBroken: the embedded database file is not one.
    """
    cache = copies_of_adapters(settings.state)
    quiet()
    if settings.registry:
        return _open_server(settings, cache)
    return _open_embedded(settings.state, cache)


def quiet() -> None:
    """Keep MLflow from reporting, printing and waiting; call it again after importing MLflow."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # it prints the traceback of an error that it raises as well
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _open_server(settings: Settings, cache: Path) -> Registry:
    uri = settings.registry
    if urlsplit(uri).scheme not in ("http", "https") or not urlsplit(uri).hostname:
        raise UsageError(
            f"CLR_REGISTRY_URL is not the address of a server: {redact(uri)!r}.",
            fix="Write http://host:port, or unset it to keep the registry under CLR_HOME.",
        )
    guarded = _knock(uri, own=not settings.registry_url)
    sign_in(settings)
    with calling(uri, "open the registry"):
        client = _client(uri)
        client.search_experiments(max_results=1)
    return Registry(client, uri, embedded=False, artifacts="", cache=cache, guarded=guarded)


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    quiet()  # importing MLflow sets its loggers up anew
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    # MLflow asks before most calls about a version whether its model is a prompt; no model of
    # ours is one, and asking was a fifth of a promotion's time
    client._raise_if_prompt = lambda name: None  # type: ignore[method-assign]
    return client


def _knock(uri: str, *, own: bool) -> bool:
    """See that a healthy server answers; return whether it is guarded."""
    import requests

    try:
        answer = requests.get(f"{uri}/health", timeout=(5, 20))
    except requests.RequestException as error:
        raise unreachable(uri, "open the registry", str(error), own=own) from error
    if answer.status_code >= 500 or answer.status_code == 404:
        raise ServiceUnavailable(
            f"{redact(uri)} is not a healthy MLflow server: /health answers {answer.status_code}.",
            fix="Correct CLR_REGISTRY_URL or look at the server's log.",
        )
    return POLICY_HEADER in answer.headers


def _open_embedded(state: Path, cache: Path) -> Registry:
    file = state / "mlflow.db"
    if any(sign in str(file) for sign in "?#%"):
        raise UsageError(
            f"CLR_HOME must not contain ?, # or %: {state}.",
            fix="Set CLR_HOME to another folder.",
        )
    uri, artifacts = f"sqlite:///{file}", (state / "artifacts").as_uri()
    with calling(uri, "open the registry"):
        state.mkdir(parents=True, exist_ok=True)
        if file.exists():
            check_database(file)
            follow(file, state / "artifacts")
        else:
            create_database(file, artifacts)
        client = _client(uri)
        client.search_experiments(max_results=1)
    return Registry(client, uri, embedded=True, artifacts=artifacts, cache=cache)


def check_database(file: Path) -> None:
    """Raise SQLite's own error if `file` is no database."""
    if not file.is_file() or file.stat().st_size == 0:  # MLflow would fill an empty one anew
        raise sqlite3.DatabaseError("file is not a database")
    # MLflow itself would retry a broken file for minutes before it says anything
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def create_database(file: Path, artifacts: str) -> None:
    """Build the schema beside `file` and link it into place, so that no kill leaves half of it."""
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".mlflow-") as folder:
        fresh = Path(folder) / file.name
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        quiet()
        store = SqlAlchemyStore(f"sqlite:///{fresh}", artifacts)  # type: ignore[no-untyped-call]
        store.engine.dispose()
        try:
            os.link(fresh, file)
        except FileExistsError:
            return  # another process was faster; its schema is as good
        except OSError:  # a file system without hard links
            fresh.replace(file)


@contextmanager
def as_default(registry: Registry) -> Iterator[None]:
    """Make `registry` MLflow's process-wide default inside the block, and undo it after.

    Some of MLflow's own functions (``load_model``, version creation on SQLite)
    ignore the client's address and ask the process-wide one.
    """
    import mlflow
    from mlflow.tracking import _model_registry, _tracking_service

    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    with _DEFAULT_LOCK:
        before = {name: os.environ.get(name) for name in names}
        tracking = _tracking_service.utils._tracking_uri
        models = _model_registry.utils._registry_uri
        mlflow.set_tracking_uri(registry.uri)
        mlflow.set_registry_uri(registry.uri)
        try:
            yield
        finally:
            _tracking_service.utils._tracking_uri = tracking
            _model_registry.utils._registry_uri = models
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def ensure_experiment(registry: Registry, name: str) -> str:
    """Return the id of experiment `name`, creating it, or restoring a deleted one."""
    from mlflow.exceptions import MlflowException

    if name in registry._experiments:
        return registry._experiments[name]
    client = registry.client
    with calling(registry.uri, f"open experiment {name}"):
        found = client.get_experiment_by_name(name)
        if found is None:
            folder = f"{registry.artifacts}/{name.replace('/', '-')}"
            try:
                client.create_experiment(name, folder if registry.embedded else None)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = client.get_experiment_by_name(name)
        elif found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
    if found is None:
        raise ServiceUnavailable(
            f"The experiment {name} was deleted while it was being opened.",
            fix="Run the same command again.",
        )
    return registry._experiments.setdefault(name, found.experiment_id)


def ensure_model(registry: Registry, name: str, description: str = "") -> None:
    """Create the registered model `name` unless it exists."""
    from mlflow.exceptions import MlflowException

    if name in registry._models:
        return
    with calling(registry.uri, f"create the registered model {name}"):
        try:  # asking first: who may not create models may still add versions to them
            registry.client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            _create_model(registry, name, description)
    registry._models.add(name)


def _create_model(registry: Registry, name: str, description: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        registry.client.create_registered_model(name, description=description or None)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # else another process was faster
            raise
