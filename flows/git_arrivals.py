"""New commits that change ``data.dvc``: the tasks that they change arrive.

`poll` only asks git where a repository is. What a new commit holds is read by a process of
its own (``python -m flows.git_arrivals REV``), since DVC and MLflow take memory that a watcher
of months should not hold; a post-receive hook starts the same. The commit that was read last
is remembered: what it pins is known, and what changed since arrives. Where the registry's
champion or candidate of a task has that data already, as after a commit of what the pipeline
itself pinned, nothing arrives.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.core.files import canonical_json, sha256_bytes, write_atomic
from clr.data.listing import pinned_oid
from clr.errors import ClrError, ServiceUnavailable, UsageError
from clr.settings import Settings
from flows import arrivals, git_look
from flows.arrivals import Arrival
from flows.git_look import Place

if TYPE_CHECKING:
    from clr.data.listing import Listing
    from flows.session import Session

LOG = logging.getLogger("clr")
PLACES: tuple[Place, ...] = ("workspace", "remote")


def poll(settings: Settings) -> bool:
    """Ask git for new commits, and have each read that changes what ``data.dvc`` pins.

    What the workspace's repository pins when it is first seen is known; of the remote's, what
    the workspace pins.

    Returns:
        whether one was read.

    Raises:
        IntegrityBroken: ``data.dvc`` is damaged in a commit.
        ServiceUnavailable: a repository cannot be reached, or the commit could not be read.
    """
    found, failures = False, []
    for place in PLACES:
        try:
            found |= _poll(settings, place)
        except ClrError as error:  # the other repository is looked at all the same
            failures.append(error)
    if failures:
        raise failures[0]
    return found


def _poll(settings: Settings, place: Place) -> bool:
    commit = git_look.head(settings, place)
    seen = _seen(settings, place)
    if not commit or commit == seen.get("commit"):
        return False
    oid = git_look.pinned_at(settings, place, commit)
    if not seen:
        first = oid if place == "workspace" else pinned_oid(settings.workspace)
        seen = {"commit": "", "oid": first}
    if oid == seen["oid"]:
        _write_seen(settings, place, commit, oid)
        return False
    if not seen["commit"]:
        _write_seen(settings, place, "", seen["oid"])
    _have_read(settings, place, commit)
    return True


def _have_read(settings: Settings, place: Place, commit: str) -> None:
    """Read a commit in a process of its own, which has as long as a step."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "flows.git_arrivals", commit, "--place", place],
            cwd=settings.workspace,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
            timeout=60 * settings.step_minutes,
        )
    except subprocess.TimeoutExpired as error:  # a remote that hangs: others are looked at
        raise ServiceUnavailable(
            f"Commit {commit[:12]} of the {place} was not read in {settings.step_minutes:g} min.",
            fix="See that the DVC remote answers, or raise CLR_STEP_MINUTES; it is tried again.",
        ) from error
    for line in done.stderr.splitlines():
        LOG.info("git       %s", line)
    if done.returncode:
        raise ServiceUnavailable(
            f"Commit {commit[:12]} of the {place} could not be read (exit code {done.returncode}).",
            fix="The lines before say why; it is tried again.",
        )


def take_commit(session: Session, commit: str, place: Place) -> list[Arrival]:
    """Let the tasks arrive whose data a commit changed since the last one that was read.

    Args:
        session: the workspace.
        commit: what git calls it.
        place: repository that has it.

    Returns:
        What is new, in state ``seen``.

    Raises:
        UsageError: no such commit.
        IntegrityBroken: ``data.dvc`` or an object is damaged.
        ServiceUnavailable: the remote of git or DVC, or the registry, cannot be used; call again.
    """
    from flows.git_restore import tasks_of

    settings = session.settings
    with session.lock("git"):
        oid = git_look.pinned_at(settings, place, commit)
        files = tasks_of(settings, oid)
        tasks = _digests(files)
        before = _digests(_before(settings, place, commit))
        changed = sorted(name for name in tasks if before.get(name) != tasks[name])
        made: list[Arrival] = []
        failures: list[ClrError] = []
        for task in changed:
            try:
                made += _take_task(session, task, tasks[task], files[task], commit)
            except ClrError as error:
                LOG.warning("%s of commit %s: %s", task, commit[:12], error)
                failures.append(error)
        if failures:
            raise failures[0]  # the commit stays unread; what is claimed already is not again
        _write_seen(settings, place, git_look.full(settings, place, commit), oid)
    LOG.info("commit %s: %d of %d tasks changed", commit[:12], len(changed), len(tasks))
    return made


def _before(settings: Settings, place: Place, commit: str) -> dict[str, Listing]:
    from flows.git_restore import tasks_of

    try:
        return tasks_of(settings, _oid_before(settings, place, commit))
    except ClrError as error:  # then the registry alone says what is known
        LOG.warning("what was pinned before cannot be read: %s", error)
        return {}


def _oid_before(settings: Settings, place: Place, commit: str) -> str:
    """Return what ``data.dvc`` pinned before: in the commit read last, else see `poll`.

    A hook may be the first to name a commit of the workspace: its parent is what was before.
    """
    seen = _seen(settings, place)
    if seen:
        return str(seen["oid"])
    if place == "remote":
        return pinned_oid(settings.workspace)
    before = git_look.parent(settings, commit)
    return git_look.pinned_at(settings, place, before) if before else ""


def _digests(tasks: Mapping[str, Listing]) -> dict[str, str]:
    """Return the digest (``<32 hex>.dir``) of each task."""
    from clr.data.listing import dir_object

    return {task: dir_object(files)[0] for task, files in tasks.items()}


def _take_task(session: Session, task: str, oid: str, files: Listing, commit: str) -> list[Arrival]:
    from clr.data.folder import printable, task_name
    from flows.git_restore import restore

    try:
        task_name(task)
    except UsageError as error:
        LOG.warning("%s in commit %s: %s", printable(task), commit[:12], error)
        return []
    if _is_registered(session, task, oid):
        LOG.info("%s is registered with this data already", task)
        return []
    settings = session.settings
    home = settings.unpacked / sha256_bytes(f"{task} {oid}".encode())[7:23]
    folder = restore(settings, task, files, home)
    digest = arrivals.digest_folder(settings, folder, task)
    new = arrivals.claim(settings, task, folder, digest, "git", origin=commit)
    if new is not None:
        LOG.info("arrived   %s (git) %s", task, digest[:23])
        return [new]
    old = arrivals.get(settings, digest)
    if old is None or arrivals.location(settings, old) != folder:
        shutil.rmtree(home, ignore_errors=True)
    LOG.info("%s is known already%s", task, f": {old.state}" if old else "")
    return []


def _is_registered(session: Session, task: str, oid: str) -> bool:
    from clr.registry.versions import CANDIDATE, CHAMPION, versions

    if not session.settings.registry and not (session.settings.state / "mlflow.db").exists():
        return False
    return any(
        one.data_digest == f"md5:{oid}" and {CANDIDATE, CHAMPION} & set(one.aliases)
        for one in versions(session.registry, task)
    )


def _file(settings: Settings) -> Path:
    return settings.state / "git.json"


def _read(settings: Settings) -> dict[str, Any]:
    try:
        state = json.loads(_file(settings).read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _seen(settings: Settings, place: Place) -> dict[str, str]:
    seen = _read(settings).get(place)
    return seen if isinstance(seen, dict) and {"commit", "oid"} <= seen.keys() else {}


def _write_seen(settings: Settings, place: Place, commit: str, oid: str) -> None:
    state = {**_read(settings), place: {"commit": commit, "oid": oid}}
    write_atomic(_file(settings), canonical_json(state))


def main(arguments: list[str] | None = None) -> None:
    """Let arrive what a commit changed; for a post-receive hook (docs/arrivals.md)."""
    parser = argparse.ArgumentParser(prog="python -m flows.git_arrivals", description=main.__doc__)
    parser.add_argument("commit", help="what git calls it")
    parser.add_argument("--place", choices=PLACES, help="the repository that has it")
    given = parser.parse_args(arguments)
    from flows import output
    from flows.announce import announce
    from flows.session import open_session

    output.log_to_stderr()
    try:
        session = open_session()
        place = given.place or git_look.place_of(session.settings, given.commit)
        new = take_commit(session, given.commit, place)
    except Exception as error:
        known = output.as_clr_error(error)
        output.fail(known, as_json=False)
        sys.exit(known.exit_code)
    for one in new:
        try:
            announce(session.settings, one)
        except ClrError as error:
            LOG.warning("%s: the watcher tells it later (%s)", one.task, error.message)


if __name__ == "__main__":
    main()
