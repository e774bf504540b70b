"""``clr verify`` and ``clr anchor``: has anybody touched what is recorded?"""

from __future__ import annotations

from pathlib import Path

import click

from clr.errors import IntegrityBroken, UsageError
from flows import output, text
from flows.command import Command, as_json

_FILE = click.Path(path_type=Path)


@click.command(cls=Command)
@click.option("--anchor", "anchors", multiple=True, type=_FILE, help="A file of `clr anchor`.")
@as_json
def verify(anchors: tuple[Path, ...], as_json: bool) -> None:
    """Recompute every digest, and compare registry, ledger, releases, data and files.

    Anchors among the git tags of the workspace are compared with by themselves.

    \b
    Examples:
      clr verify
      clr verify --anchor /media/safe/clr.json
    """
    from flows.anchors import read_anchor
    from flows.session import open_session
    from flows.verify import run_verify

    kept = [read_anchor(one) for one in anchors]
    report = run_verify(open_session(), kept)
    refusal = None
    if report["problems"]:
        first = report["problems"][0]
        refusal = IntegrityBroken(
            f"{len(report['problems'])} problem(s), first: {first['subject']}: {first['message']}",
            fix=first["fix"],
        )
    output.emit(report, as_json, text.verified, refusal)


@click.command(cls=Command)
@click.argument("file", required=False, type=_FILE)
@click.option("--git", "to_git", is_flag=True, help="As a tag of the workspace's git repository.")
@as_json
def anchor(file: Path | None, to_git: bool, as_json: bool) -> None:
    """Keep the ledger's signed head in FILE, or in a git tag, out of reach of who rewrites it.

    Put FILE on another machine, or push the tag: `clr verify` then misses entries that were
    cut off or written anew even by who holds the signing key.

    \b
    Examples:
      clr anchor /media/safe/clr.json
      clr anchor --git && git push origin 'refs/tags/clr-ledger/*'
    """
    from flows.anchors import anchor_to_file, anchor_to_git
    from flows.session import open_session

    if (file is None) != to_git:
        raise UsageError("Name a FILE, or give --git.", fix="clr anchor --help shows both.")
    session = open_session()
    told = anchor_to_git(session) if file is None else anchor_to_file(session, file)
    output.emit(told, as_json, text.anchored)
