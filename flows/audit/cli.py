"""The command `clr audit`: the lineage of one adapter, or an auditor's question."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from flows import output
from flows.audit.rendered import BUNDLE, FORMS
from flows.command import Command, as_json

if TYPE_CHECKING:
    from clr.audit.document import Document
    from flows.audit.chosen import Asked
    from flows.audit.questions import Span
    from flows.session import Session

OF_A_TIME = frozenset({"acts", "reviews", "refusals"})
"""Questions that `--from` and `--to` go with."""


@click.command(cls=Command)
@click.argument("subject", metavar="[TASK[@VERSION]]", required=False)
@click.option("--at", metavar="TIME", help="What answered then: 2026-03-01T12:00:00Z.")
@click.option("--image", metavar="FILE|SHA256", help="Versions that were made with this image.")
@click.option("--data", metavar="DIGEST", help="Versions that were made with this data.")
@click.option("--backbone", metavar="NAME|DIGEST", help="Versions over this backbone.")
@click.option("--request", metavar="ID", help="What answered this image; then its adapter.")
@click.option("--reviews", is_flag=True, help="Who approved or rejected what.")
@click.option("--refused", is_flag=True, help="What was refused, and why.")
@click.option("--between", metavar="A..B", help="What changed between two releases.")
@click.option("--from", "begin", metavar="DAY|TIME", help="Since then; a day is one of UTC.")
@click.option("--to", "end", metavar="DAY|TIME", help="Until then, that day included.")
@click.option(
    "--format", "form", type=click.Choice((*FORMS, BUNDLE)), default="text", show_default=True
)
@click.option(
    "--output",
    "file",
    type=click.Path(path_type=Path),
    help=f"File; default: stdout. Of {BUNDLE} a folder.",
)
@click.option("--send", is_flag=True, help="Send openlineage to where OPENLINEAGE_URL says.")
@as_json
def audit(
    subject: str | None,
    at: str | None,
    begin: str | None,
    end: str | None,
    form: str,
    file: Path | None,
    send: bool,
    as_json: bool,
    **asked_for: str | bool | None,
) -> None:
    """Prove where an adapter came from: every digest of it is computed anew, the ledger walked.

    TASK alone is the version that serves, or else the newest. Without a task it answers a
    question about all of them; without a question it shows every act. It ends with code 6 where
    a link is broken. Each answer is an entry of the ledger. Docs: docs/audit.md.

    \b
    Examples:
      clr audit solder-joints
      clr audit solder-joints@3 --format html --output solder-joints-3.html
      clr audit solder-joints --at 2026-03-01T12:00:00Z --json
      clr audit --image recalled.png
      clr audit --request 4fb984eec1f94a97b777365492b7574b
      clr audit --reviews --from 2026-03-01 --to 2026-03-31
      clr audit solder-joints --format openlineage --send
      clr audit solder-joints --format model-signing --output solder-joints-signed
    """  # noqa: D301 - click wants a real backspace
    from flows.audit.answer import answer
    from flows.audit.bundle import write_bundle
    from flows.audit.rendered import render
    from flows.session import open_session

    if as_json and form not in ("text", "json"):
        raise click.UsageError(f"--json means --format json; --format {form} is another form.")
    form = "json" if as_json else form
    _require_fitting(form, file, send)
    question = _question(subject, at, begin, end, asked_for)
    if question:
        _answer(*question, form, file)
        return
    session = open_session()
    document = answer(session, asked(subject or "", at), form)
    refusal, place = _refusal(document), str(file)
    if form == BUNDLE and file is not None:
        write_bundle(session, document, file)
    elif send:
        place = _send(document)
    else:
        made = render(document, form, session.ledger.keys)
        if file is None:
            output.emit(document, form == "json", lambda _: made.rstrip("\n"), refusal)
            return
        _write(file, made)
    output.emit(document, False, lambda one: f"{one['verdict']['sentence']}\n{place}", refusal)


def _question(
    subject: str | None,
    at: str | None,
    begin: str | None,
    end: str | None,
    asked_for: dict[str, str | bool | None],
) -> tuple[str, str, Span] | None:
    """Return the question, what it is about, and its time; None: it is about one adapter."""
    from flows.audit.ask import span

    given = {
        ("refusals" if kind == "refused" else kind): one for kind, one in asked_for.items() if one
    }
    if not subject and at:
        given["at"] = at
    if subject and (given or begin or end):
        raise click.UsageError("Ask about a TASK, or about all of them: leave one out.")
    if subject:
        return None
    if len(given) > 1:
        raise click.UsageError(
            f"Ask one question at a time: {' or '.join(f'--{k}' for k in given)}."
        )
    kind, about = next(iter(given.items()), ("acts", True))
    if (begin or end) and kind not in OF_A_TIME:
        raise click.UsageError(f"--from and --to do not go with --{kind}.")
    return kind, about if isinstance(about, str) else "", span(begin, end)


def _answer(kind: str, about: str, when: Span, form: str, file: Path | None) -> None:
    from flows.audit.ask import ask
    from flows.audit.rendered import as_json
    from flows.audit.table import render
    from flows.session import open_session

    if form not in ("text", "json"):
        raise click.UsageError(f"--format {form} is a form of one adapter: name its TASK.")
    session = open_session()
    document = ask(session, kind, about, when)
    refusal = _distrust(document)
    if kind == "request":
        document["adapter"] = _of_request(session, about)
        refusal = refusal or _refusal(document["adapter"])
    if file is None:
        output.emit(document, form == "json", render, refusal)
        return
    _write(file, as_json(document) if form == "json" else render(document) + "\n")
    output.emit(document, False, lambda one: f"{one['sentence']}\n{file}", refusal)


def _of_request(session: Session, request_id: str) -> Document:
    """Return the lineage of the adapter that answered an image."""
    from flows.audit.answer import answer
    from flows.audit.chosen import Asked
    from flows.audit.requests import find

    found = find(session, request_id)
    return answer(session, Asked(found.task, found.version), "json")


def _distrust(document: dict[str, Any]) -> IntegrityBroken | None:
    problems = document["ledger"]["problems"]
    if not problems:
        return None
    return IntegrityBroken(
        f"The ledger cannot be trusted: {problems[0]['message']}", fix=problems[0]["fix"]
    )


def _require_fitting(form: str, file: Path | None, send: bool) -> None:
    if send and (form != "openlineage" or file is not None):
        raise click.UsageError("--send goes with --format openlineage, and without --output.")
    if form == BUNDLE and file is None:
        raise click.UsageError(f"--format {BUNDLE} writes a folder: name it with --output.")
    if form == BUNDLE and file is not None and file.exists():
        raise UsageError(f"{file} is there already.", fix="Name a folder that does not exist.")


def _send(document: Document) -> str:
    """Send the OpenLineage events; return how, for a person."""
    from clr.audit.forms import openlineage

    return f"sent by {openlineage.send(document)}"


def asked(subject: str, at: str | None) -> Asked:
    """Return what ``TASK[@VERSION]`` and ``--at`` ask for.

    Raises:
        UsageError: no task name, no number, no time, or a version as well as a time.
    """
    from clr.audit.chain import format_time
    from clr.registry.store import model_name
    from flows.audit.chosen import Asked

    task, mark, number = subject.removeprefix("clr-").replace("/", "@").partition("@")
    model_name(task)
    if mark and not (number.isdecimal() and len(number) <= 10 and int(number) >= 1):
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
