"""Commands about what serves: promote, rollback, retire; on a server they take the role release."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from clr.errors import ReviewRefused, UsageError
from flows import output, text
from flows.command import Command, as_json

if TYPE_CHECKING:
    from flows.session import Session

with_reason = click.option("--reason", required=True, help="Your words, kept in the ledger.")


@click.command(cls=Command)
@click.argument("task")
@click.argument("version", type=click.IntRange(min=1))
@as_json
def promote(task: str, version: int, as_json: bool) -> None:
    """Promote an approved VERSION of TASK now, without waiting for the release service.

    \b
    Example:  clr promote solder-joints 1
    """
    from clr.data.folder import task_name
    from flows.promote import promote_version

    output.log_to_stderr()
    done = as_release(lambda session: promote_version(session, task_name(task), version))
    output.emit(done, as_json, text.promoted)


@click.command(cls=Command)
@click.option("--to", type=click.IntRange(min=1), help="Release; default: the one before.")
@with_reason
@as_json
def rollback(to: int | None, reason: str, as_json: bool) -> None:
    """Make an earlier release serve again; all champions move with it.

    \b
    Examples:
      clr rollback --reason "wrong labels since Monday"
      clr rollback --to 4 --reason "the last one before the new lamps"
    """
    from flows.rollback import run_rollback

    _say_why(reason)
    done = as_release(lambda session: run_rollback(session, to, reason))
    output.emit(done, as_json, text.rolled_back)


@click.command(cls=Command)
@click.argument("task")
@with_reason
@as_json
def retire(task: str, reason: str, as_json: bool) -> None:
    """Take TASK out of what serves: a new release without it. Its versions stay.

    \b
    Example:  clr retire solder-joints --reason "the line was sold"
    """
    from flows.rollback import run_retire

    _say_why(reason)
    done = as_release(lambda session: run_retire(session, task, reason))
    output.emit(done, as_json, text.rolled_back)


def _say_why(reason: str) -> None:
    if not reason.strip():
        raise UsageError("The reason is empty.", fix="Say why; it is kept in the ledger.")


def as_release(act: Callable[[Session], dict[str, Any]]) -> dict[str, Any]:
    """Act as the user that is signed in, or as the release service's account where it is ours.

    Raises:
        ReviewRefused: the server does not let this user do it; with its sentence.
        ServiceUnavailable: PyTorch is not installed here.
    """
    from clr.registry.denial import denial
    from clr.registry.faults import RegistryDenied
    from flows.release_role import signed_in
    from flows.session import open_session

    if find_spec("torch") is None:  # whose container reaches no lock either, which tells less
        raise output.without("torch")
    session = open_session()
    with signed_in(session.settings):
        try:
            return act(session)
        except RegistryDenied as error:
            sentence = denial(error)
            if sentence is None:
                raise
            raise ReviewRefused(
                sentence, fix="On the server's machine, leave MLFLOW_TRACKING_USERNAME unset."
            ) from error
