"""Secrets by file: where ``NAME_FILE`` names a file, its content is the variable ``NAME``.

So an orchestrator can mount secrets instead of writing them into the environment of a
container, where its own commands would show them. The libraries read variables; so a process
does this once, when it reads its settings, and its children inherit the result.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

from clr.errors import UsageError

OURS = "CLR_"
"""Every setting and secret of ours may come from a file."""

LIBRARIES = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "MLFLOW_AUTH_ADMIN_PASSWORD",
        "MLFLOW_FLASK_SERVER_SECRET_KEY",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
        "OPENLINEAGE_API_KEY",
        "PREFECT_API_AUTH_STRING",
        "PREFECT_SERVER_API_AUTH_STRING",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    }
)
"""Variables of libraries that hold secrets; AWS has variables of its own that end in _FILE."""

_SUFFIX = "_FILE"
_LIMIT = 65_536


def adopt(environment: MutableMapping[str, str] = os.environ) -> None:
    """Replace each ``NAME_FILE`` by ``NAME`` with the content of the file, ends trimmed.

    Args:
        environment: changed in place.

    Raises:
        UsageError: a file cannot be read, is empty or is too long to be a secret, or both
            ``NAME`` and ``NAME_FILE`` are set.
    """
    for variable in [name for name in environment if _is_ours(name)]:
        path = environment[variable]
        if path:
            _take(environment, variable.removesuffix(_SUFFIX), path)
        del environment[variable]


def _is_ours(variable: str) -> bool:
    name = variable.removesuffix(_SUFFIX)
    return name != variable and (name.startswith(OURS) or name in LIBRARIES)


def _take(environment: MutableMapping[str, str], name: str, path: str) -> None:
    if environment.get(name):
        raise UsageError(
            f"Both {name} and {name}{_SUFFIX} are set.", fix="Set one of them: the file is safer."
        )
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise UsageError(
            f"The file {path} of {name}{_SUFFIX} cannot be read: {why}.",
            fix="See that it is mounted, and readable for the user of this process.",
        ) from error
    if not text or len(text) > _LIMIT or "\0" in text:
        raise UsageError(
            f"The file {path} of {name}{_SUFFIX} holds no value.",
            fix="Write the secret into it, and nothing else.",
        )
    environment[name] = text
