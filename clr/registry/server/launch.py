"""The process that is the MLflow server: prepares database, users and webhooks, then serves.

``clr up registry`` (flows/up.py) or a container (flows/entry.py) starts it. All in one process,
since importing MLflow takes longer than all the preparing. It reports over a pipe, or on stderr:
a JSON object a line,
``{"stage": …, "text": …}``, or ``{"error": …}`` with which it ends. Started again after it died,
it has nothing to prepare, and only serves.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from clr.core.files import canonical_json, write_atomic
from clr.errors import ClrError
from clr.registry.faults import redact
from clr.registry.server import secrets
from clr.registry.server.config import database_url, server_arguments
from clr.registry.server.database import ensure_release_model, prepare_database
from clr.registry.server.destination import check_destination
from clr.registry.server.subscriptions import (
    load_subscriptions,
    promotions,
    subscribe,
    webhooks_path,
)
from clr.registry.server.users import ensure_services, open_logins
from clr.settings import load_settings

if TYPE_CHECKING:
    from clr.settings import Settings

Tell = Callable[[str, str], None]
_STDERR = 2


def main() -> None:
    """Prepare, report, serve; the arguments are those that flows/up.py gives."""
    parser = argparse.ArgumentParser(prog="python -m clr.registry.server.launch")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--url", help="address that clients of this machine use; none: only serve")
    parser.add_argument("--service", default="", help="address of the release service")
    parser.add_argument("--report", type=int, default=_STDERR, help="descriptor of a pipe; stderr")
    given = parser.parse_args()
    settings = load_settings()
    import uvicorn  # noqa: F401 - before MLflow, which then knows that it is a server

    if given.url:
        with _own_loggers():
            _prepare(settings, given)
    for secret in secrets.ALL:  # the server itself needs no password
        if secret not in (secrets.FLASK_KEY, secrets.WEBHOOK_KEY):
            os.environ.pop(secret.variable, None)
    serve(server_arguments(settings, given.host, given.port))


def _prepare(settings: Settings, given: argparse.Namespace) -> None:
    descriptor = os.dup(_STDERR) if given.report == _STDERR else given.report
    with os.fdopen(descriptor, "w", encoding="utf-8", buffering=1) as report:
        try:
            prepare(settings, given.url, given.service, lambda stage, text: print(
                json.dumps({"stage": stage, "text": text}), file=report))  # fmt: skip
        except ClrError as error:
            print(json.dumps({"error": type(error).__name__, **_words(error)}), file=report)
            sys.exit(error.exit_code)


@contextmanager
def _own_loggers() -> Iterator[None]:
    """Undo afterwards what keeps MLflow's loggers quiet inside a command of ours."""
    import mlflow.server  # noqa: F401 - which sets them up

    known = [logging.getLogger(name) for name in ("alembic", "mlflow", "mlflow.store.db.utils")]
    levels = [one.level for one in known]
    yield
    for one, level in zip(known, levels, strict=True):
        one.setLevel(level)


def serve(arguments: Sequence[str]) -> NoReturn:
    """Become ``mlflow server`` until a signal comes.

    MLflow starts uvicorn as a process of its own, which would import for seconds what this one
    has imported already, and take its memory a second time. So uvicorn runs here; with more
    than one worker, these are its child processes.

    Args:
        arguments: of ``mlflow``, see `clr.registry.server.config.server_arguments`.
    """
    import mlflow.server
    from mlflow.cli import cli

    server: Any = mlflow.server
    server._exec_cmd = _become
    cli(list(arguments), prog_name="mlflow")
    sys.exit(1)


def _become(command: Sequence[str], extra_env: Mapping[str, str], **_: Any) -> NoReturn:
    """Do here what ``python -m uvicorn …`` does in a process of its own."""
    from uvicorn import main as uvicorn

    os.environ.update(extra_env)
    uvicorn(list(command[3:]), prog_name="uvicorn")
    sys.exit(0)


def _words(error: ClrError) -> dict[str, str]:
    return {"message": error.message, "fix": error.fix}


def prepare(settings: Settings, url: str, service: str, tell: Tell) -> None:
    """Do what must be done before the server starts; doing it again changes nothing.

    Args:
        settings: of the workspace.
        url: address at which commands of this machine will reach the server.
        service: address of the release service.
        tell: gets each stage done and what there is to say about it.

    Raises:
        ClrError: says what is in the way.
    """
    listed = load_subscriptions(webhooks_path(settings.workspace))
    secret = secrets.ensure_secret(settings.state, secrets.WEBHOOK_SECRET)
    files = check_destination(settings)
    # first of all: from here on no command opens the database beside the server
    write_atomic(settings.registry_file, canonical_json({"url": url}) + b"\n")
    rewritten = prepare_database(settings)
    ensure_release_model(database_url(settings))
    database = redact(database_url(settings))
    tell("database", database + (f", {rewritten} addresses of files rewritten" * bool(rewritten)))
    if settings.registry_artifacts:
        tell("files", files)
    with open_logins(settings) as logins:
        changed = ensure_services(settings, logins)
        known = len(logins.names())
    tell("users", f"{known}" + (f", {', '.join(changed)} set" if changed else ""))
    wanted = (promotions(service, secret), *listed)
    subscribe(database_url(settings), wanted)
    tell("webhooks", ", ".join(one.name for one in wanted))


if __name__ == "__main__":
    main()
