"""What `clr up` of this workspace has running, for the commands that use it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from clr.core.files import canonical_json, write_atomic
from clr.settings import Settings

API, AUTH = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"


@dataclass(frozen=True)
class Running:
    """Addresses of the services of one `clr up`; empty where one is not there.

    Attributes:
        pid: of the command.
        registry: address of the MLflow server.
        service: of the release service.
        prefect: of the Prefect API, with ``/api``.
        metrics: of ``/metrics`` and ``/health`` of the watcher.
        serving: of the prediction server.
    """

    pid: int
    registry: str
    service: str
    prefect: str = ""
    metrics: str = ""
    serving: str = ""


def path(settings: Settings) -> Path:
    """Return where `clr up` writes what it runs."""
    return settings.state / "up.json"


def parts_path(settings: Settings) -> Path:
    """Return where `clr up` writes since when each of its processes runs."""
    return settings.state / "server" / "parts.json"


def lock_path(settings: Settings) -> Path:
    """Return the file whose lock `clr up` holds as long as it runs."""
    return settings.state / "server" / "up.lock"


def write(settings: Settings, running: Running) -> None:
    """Tell the commands of this workspace."""
    write_atomic(path(settings), canonical_json(asdict(running)))


def find(settings: Settings) -> Running | None:
    """Return what runs; None where no `clr up` of this workspace does.

    What a killed command wrote is not believed: the system freed its lock.
    """
    try:
        kept = json.loads(path(settings).read_bytes())
        known = Running(**{one.name: kept[one.name] for one in fields(Running)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if _held(lock_path(settings)) else None


def _held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def prefect_environment(settings: Settings, given: Mapping[str, str]) -> dict[str, str]:
    """Return what makes Prefect's client use the server of `clr up`; empty where none runs.

    Args:
        settings: of the workspace.
        given: the environment; a server that it names wins.
    """
    from clr.registry.server.secrets import PREFECT_AUTH, find_secret

    if given.get(API):
        return {}
    running = find(settings)
    if running is None or not running.prefect:
        return {}
    auth = find_secret(settings.state, PREFECT_AUTH)
    return {API: running.prefect, **({AUTH: auth} if auth else {})}


def use_prefect(settings: Settings) -> bool:
    """Let this process use the Prefect server of `clr up`, where one runs.

    Call it before Prefect is first imported, which reads its settings then.

    Returns:
        whether a server, given or found, is in use.
    """
    os.environ.update(prefect_environment(settings, os.environ))
    return bool(os.environ.get(API))
