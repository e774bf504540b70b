"""One process of the system, by its name: what the containers run.

``python -m flows.entry NAME`` takes everything else from the environment, where secrets may be
named as files (clr/secret_files.py), and becomes that process:

===================  =======================================================================
``registry``         the MLflow server with the policy
``release-service``  promotes what was approved
``prefect``          Prefect's server
``deployments``      writes work pools, deployments and automations to it, and ends
``worker POOL``      runs flows of the pool cpu, gpu or registry
``watcher``          sees what arrives; ``/metrics``
``serving``          labels images over HTTP
``buckets``          makes the buckets of ``CLR_REGISTRY_ARTIFACTS`` and ``CLR_DVC_REMOTE``,
                     and ends
``run COMMAND…``     any command in that environment: a flow run of a Kubernetes or Docker pool
``secrets FOLDER``   writes new secrets for a first start into FOLDER, and ends
``healthy URL``      says by its exit code whether URL answers 200
===================  =======================================================================
"""

from __future__ import annotations

import http.client
import os
import sys
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from clr.settings import Settings

_KEY, _TRUSTED = "CLR_LEDGER_KEY", "CLR_LEDGER_TRUSTED"


def main(arguments: Sequence[str] | None = None) -> None:
    """Become the process that the first argument names."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if name == "healthy":
        sys.exit(0 if _answers(rest[0]) else 1)
    from clr.errors import ClrError
    from flows import output

    output.log_to_stderr()
    try:
        if name == "secrets":
            from flows.provision import provision

            provision(rest[0])
            return
        _run(name, rest[:-1])
    except ClrError as error:
        output.fail(error, as_json=False)
        sys.exit(error.exit_code)


def _answers(url: str) -> bool:
    """Say whether `url` answers 200, asked without a proxy."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, http.client.HTTPException):  # or not HTTP, or no address
        return False


def _run(name: str, about: Sequence[str]) -> None:
    from clr.secret_files import adopt
    from clr.settings import load_settings

    if name == "buckets":
        from clr.registry.server.destination import make_buckets

        adopt()  # no workspace is needed for this
        made = make_buckets(*(os.environ.get(one, "") for one in
                              ("CLR_REGISTRY_ARTIFACTS", "CLR_DVC_REMOTE")))  # fmt: skip
        print(f"buckets   {', '.join(made)}")
        return
    from flows import processes

    settings = load_settings()
    _place_keys(settings)
    if name == "run" and about:
        _become(about)
    start = processes.start(settings, name, *about[:1])
    os.chdir(settings.workspace)
    os.execve(start.command[0], start.command, start.environment)  # noqa: S606


def _become(command: Sequence[str]) -> NoReturn:
    """Run a command in the place of this process.

    Raises:
        UsageError: there is none of this name, or it is no program.
    """
    from clr.errors import UsageError

    try:
        os.execvp(command[0], list(command))  # noqa: S606
    except OSError as error:
        raise UsageError(
            f"{command[0]!r} cannot be run: {error.strerror}.",
            fix="Give a command that this container has, such as clr.",
        ) from error


def _place_keys(settings: Settings) -> None:
    """Put the keys of the ledger that the environment gives where the ledger looks for them.

    Several processes with a ``CLR_HOME`` each write to one ledger; so each has a key of its
    own, and trusts the public keys of the others.

    Raises:
        UsageError: ``CLR_HOME`` has another key already.
        IntegrityBroken: it is no key.
    """
    private, trusted = os.environ.pop(_KEY, ""), os.environ.pop(_TRUSTED, "")
    if not private:
        return
    from clr.audit.signing import place_keys

    place_keys(settings.state / "keys", private, trusted)


if __name__ == "__main__":
    main()
