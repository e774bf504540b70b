"""The process that becomes the MLflow server: prepares database, users and webhooks, then serves.

``clr up registry`` (flows/up.py) or a container (flows/entry.py) starts it. Both in one process,
since importing MLflow takes longer than all the preparing. It reports over a pipe, or on stderr:
a JSON object a line,
``{"stage": …, "text": …}``, or ``{"error": …}`` with which it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

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
    parser.add_argument("--url", required=True, help="address that clients of this machine use")
    parser.add_argument("--service", required=True, help="address of the release service")
    parser.add_argument("--report", type=int, default=_STDERR, help="descriptor of a pipe; stderr")
    given = parser.parse_args()
    settings = load_settings()
    descriptor = os.dup(_STDERR) if given.report == _STDERR else given.report
    with os.fdopen(descriptor, "w", encoding="utf-8", buffering=1) as report:
        try:
            prepare(settings, given.url, given.service, lambda stage, text: print(
                json.dumps({"stage": stage, "text": text}), file=report))  # fmt: skip
        except ClrError as error:
            print(json.dumps({"error": type(error).__name__, **_words(error)}), file=report)
            sys.exit(error.exit_code)
    for secret in secrets.ALL:  # the server itself needs no password
        if secret not in (secrets.FLASK_KEY, secrets.WEBHOOK_KEY):
            os.environ.pop(secret.variable, None)
    from mlflow.cli import cli

    cli(server_arguments(settings, given.host, given.port), prog_name="mlflow")


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
