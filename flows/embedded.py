"""The environment of the libraries when one machine runs everything by itself.

Called before PyTorch, Prefect, MLflow or Great Expectations is first imported: their
state goes under ``CLR_HOME``, nothing is reported to anyone, and nothing that
is stored needs unpickling.
"""

from __future__ import annotations

import os
from contextlib import suppress

from clr.errors import ServiceUnavailable
from clr.settings import Settings
from flows import running


def prepare(settings: Settings) -> None:
    """Point the libraries at this workspace's state; what the user set already wins.

    Raises:
        ServiceUnavailable: the folder of all state cannot be made.
    """
    home = settings.state
    try:
        (home / "prefect").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServiceUnavailable(
            f"The folder of all state cannot be made: {home}: {error.strerror}.",
            fix="Set CLR_HOME to a folder that is writable and has room.",
        ) from error
    _hide_from_git(settings)
    for name, value in defaults(settings).items():
        os.environ.setdefault(name, value)
    running.use_prefect(settings)


def _hide_from_git(settings: Settings) -> None:
    """Let no ``git add .`` take the state, secrets in it too: ``clr init`` knew of ``.clr``."""
    hidden = settings.state / ".gitignore"
    if hidden.is_relative_to(settings.workspace.absolute()):
        with suppress(OSError), hidden.open("x") as file:  # not where it stands already
            file.write("*\n")


def defaults(settings: Settings) -> dict[str, str]:
    """Return the environment in which these libraries work for a workspace."""
    return {
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # threads that spin at a barrier stall for whole time slices where cores are shared
        "OMP_WAIT_POLICY": "passive",
        "PREFECT_HOME": str(settings.state / "prefect"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "clr",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
