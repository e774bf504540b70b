"""``clr anchor``: keep the ledger's signed head where who rewrites the ledger cannot reach it."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.audit.anchor import FIX, Anchor
from clr.audit.signing import SCHEMA, Head
from clr.core.files import write_atomic
from clr.data.repository import git_output, git_root, run_git
from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from flows.findings import Finding

if TYPE_CHECKING:
    from flows.session import Session

TAGS = "clr-ledger/"
Result = dict[str, Any]


def anchor_to_file(session: Session, file: Path) -> Result:
    """Write the signed head to `file`; one that is there has to be an older anchor of this ledger.

    Returns:
        {seq, hash, key_id, where}.

    Raises:
        UsageError: nothing is recorded yet.
        IntegrityBroken: the ledger is broken, or is not the one that was anchored there.
        ServiceUnavailable: the file cannot be written.
    """
    former = [read_anchor(file)] if file.exists() else []
    head = _sound_head(session, former)
    try:
        write_atomic(file, head.to_json())
    except OSError as error:
        raise ServiceUnavailable(
            f"The anchor {file} cannot be written: {error.strerror}.",
            fix="Name a file in a folder that you may write to.",
        ) from error
    return _told(head, str(file))


def anchor_to_git(session: Session) -> Result:
    """Put the signed head into the annotated tag ``clr-ledger/<seq>`` of the workspace's git.

    Returns:
        {seq, hash, key_id, where}.

    Raises:
        UsageError: nothing is recorded yet, or the workspace is in no git repository.
        IntegrityBroken: the ledger is broken, or is not the one that other tags name.
        ServiceUnavailable: git cannot write the tag.
    """
    workspace = session.settings.workspace
    if git_root(workspace) is None:
        raise UsageError(
            f"{workspace} is in no git repository.", fix="Use `clr anchor FILE`, or `git init`."
        )
    tags, unreadable = git_anchors(workspace)
    if unreadable:
        raise IntegrityBroken(f"{unreadable[0].subject} {unreadable[0].message}.", fix=FIX)
    head = _sound_head(session, tags)
    name = f"{TAGS}{head.seq}"
    if head not in {one.head for one in tags}:
        _tag(workspace, name, json.dumps({"schema": SCHEMA, **asdict(head)}))
    return _told(head, f"git tag {name}")


def _tag(workspace: Path, name: str, text: str) -> None:
    """Make an annotated tag of one line; before the first commit it is of the empty tree."""
    target = git_output(workspace, "rev-parse", "--verify", "--quiet", "HEAD", answers=(0, 1))
    target = target or git_output(workspace, "hash-object", "-w", "-t", "tree", "/dev/null")
    unknown = run_git(workspace, "config", "user.email").returncode
    identity = ("-c", "user.name=clr", "-c", "user.email=clr@localhost") if unknown else ()
    git_output(workspace, *identity, "tag", "-a", name, "-m", text, target.strip())


def git_anchors(workspace: Path) -> tuple[list[Anchor], list[Finding]]:
    """Return the anchors among the git tags of a workspace, and what is wrong with the others.

    Raises:
        ServiceUnavailable: git does not tell its tags.
    """
    if git_root(workspace) is None:
        return [], []
    form = "%(refname:lstrip=2)%00%(contents:subject)"
    listed = git_output(workspace, "for-each-ref", f"--format={form}", f"refs/tags/{TAGS}")
    anchors: list[Anchor] = []
    unreadable: list[Finding] = []
    for line in listed.splitlines():
        name, _, text = line.partition("\0")
        try:
            head = Head.from_json(text, name)
            if name != f"{TAGS}{head.seq}":
                raise IntegrityBroken(f"{name} is an anchor of entry {head.seq}")
            anchors.append(Anchor(head, f"git tag {name}"))
        except IntegrityBroken:
            message = "is not an anchor of the entry that it is named after"
            unreadable.append(Finding(f"git tag {name}", "ledger-anchor-unreadable", message, FIX))
    return anchors, unreadable


def read_anchor(file: Path) -> Anchor:
    """Return the anchor in a file.

    Raises:
        UsageError: there is no such file.
        IntegrityBroken: it is no anchor.
    """
    try:
        return Anchor(Head.from_json(file.read_bytes(), str(file)), str(file))
    except OSError as error:
        raise UsageError(
            f"The anchor {file} cannot be read: {error.strerror}.", fix="Name an anchor's file."
        ) from error


def _sound_head(session: Session, former: list[Anchor]) -> Head:
    """Return the head of the newest entry, the ledger having been verified up to it."""
    problems = session.ledger.verify(former)
    if problems:
        raise IntegrityBroken(
            f"A broken ledger is not anchored: {problems[0].message}",
            fix=f"{problems[0].fix} `clr verify` names everything.",
        )
    seen = session.ledger.head()
    newest = deque(session.ledger.entries(since_seq=max(0, seen.seq - 1) if seen else 0), maxlen=1)
    if not newest:
        raise UsageError("The ledger has no entry yet.", fix="There is nothing to anchor.")
    (last,) = newest
    return Head(last.seq, last.hash, last.key_id, last.signature)


def _told(head: Head, where: str) -> Result:
    return {"seq": head.seq, "hash": head.hash, "key_id": head.key_id, "where": where}
