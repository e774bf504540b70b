"""The command `clr audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from flows import output
from flows.audit.rendered import FORMS
from flows.command import Command, as_json

if TYPE_CHECKING:
    from clr.audit.document import Document
    from flows.audit.gather import Asked


@click.command(cls=Command)
@click.argument("subject", metavar="TASK[@VERSION]")
@click.option("--at", metavar="TIME", help="The version that answered then: 2026-03-01T12:00:00Z.")
@click.option("--format", "form", type=click.Choice(FORMS), default="text", show_default=True)
@click.option("--output", "file", type=click.Path(path_type=Path), help="File; default: stdout.")
@as_json
def audit(subject: str, at: str | None, form: str, file: Path | None, as_json: bool) -> None:
    """Prove where an adapter came from: every digest of it is computed anew, the ledger walked.

    TASK alone is the version that serves, or else the newest. It ends with code 6 where a link
    is broken. Each export is an entry of the ledger. Docs: docs/audit.md.

    \b
    Examples:
      clr audit solder-joints
      clr audit solder-joints@3 --format html --output solder-joints-3.html
      clr audit solder-joints --at 2026-03-01T12:00:00Z --json
    """  # noqa: D301 - click wants a real backspace
    from flows.audit.answer import answer
    from flows.audit.rendered import render
    from flows.session import open_session

    if as_json and form not in ("text", "json"):
        raise click.UsageError(f"--json means --format json; --format {form} is another form.")
    form = "json" if as_json else form
    session = open_session()
    document = answer(session, asked(subject, at), form)
    made, refusal = render(document, form, session.ledger.keys), _refusal(document)
    if file is None:
        output.emit(document, form == "json", lambda _: made.rstrip("\n"), refusal)
        return
    _write(file, made)
    output.emit(document, False, lambda one: f"{one['verdict']['sentence']}\n{file}", refusal)


def asked(subject: str, at: str | None) -> Asked:
    """Return what ``TASK[@VERSION]`` and ``--at`` ask for.

    Raises:
        UsageError: no task name, no number, no time, or a version as well as a time.
    """
    from clr.audit.chain import format_time
    from clr.registry.store import model_name
    from flows.audit.gather import Asked

    task, mark, number = subject.removeprefix("clr-").replace("/", "@").partition("@")
    model_name(task)
    if mark and (not number.isdecimal() or int(number) < 1):
        raise UsageError(f"{number!r} is no version.", fix=f"Write {task}@1, or {task} alone.")
    if mark and at:
        raise UsageError(
            "A version and a time were both given.",
            fix=f"Leave one out: {task}@{number}, or {task} --at {at}.",
        )
    return Asked(task, int(number) if mark else None, format_time(at) if at else "")


def _write(file: Path, text: str) -> None:
    from clr.core.files import write_atomic

    try:
        write_atomic(file, text.encode("utf-8"))
    except OSError as error:
        raise ServiceUnavailable(
            f"{file} cannot be written: {error.strerror or error}.",
            fix="Name another --output; the file that was there is untouched.",
        ) from error


def _refusal(document: Document) -> IntegrityBroken | None:
    """Return why the command ends with code 6; None where every link holds."""
    problems = document["verdict"]["problems"]
    if not problems:
        return None
    return IntegrityBroken(document["verdict"]["sentence"], fix=problems[0]["fix"])
