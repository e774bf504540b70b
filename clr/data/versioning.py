"""Versions of the data: ``data/<task>/`` under the one ``data.dvc``, a digest for each task.

A version is made under a lock, completely or not at all (clr/data/swap.py); a killed
process is made good by the same call. What counts is read from the bytes: the digest
that DVC pinned is compared with the md5s taken here, and the remote is asked whether
the objects have arrived.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clr.core.files import sha256_file
from clr.data import dvc, listing, objects, swap
from clr.data.check import (
    check_data,
    object_bytes,
    pinned_now,
    refuse_others,
    some,
    task_digest,
)
from clr.data.dvc_calls import translated
from clr.data.folder import SPLITS, TASK_FILE, TaskFolder
from clr.data.listing import Listing
from clr.data.manifest import Manifest
from clr.data.repository import git_state
from clr.errors import DataRefused, IntegrityBroken, ServiceUnavailable
from clr.settings import Settings

__all__ = [
    "DataVersion",
    "check_data",
    "git_state",
    "require_pinned",
    "task_digest",
    "version_task",
]

LOG = logging.getLogger("clr")
LOCK_SECONDS = 3600.0
_OF_SPLITS = tuple(f"{split}/" for split in SPLITS)


@dataclass(frozen=True)
class DataVersion:
    """A task's data as it is pinned.

    Attributes:
        task: name of the task.
        digest: ``md5:<32 hex>.dir``, DVC's digest of the folder.
        folder: absolute path of ``data/<task>``.
        train: number of training images.
        test: number of test images.
        files: number of files, ``task.yaml`` among them.
        pushed: whether the remote has been seen to hold every object.
        commit: git commit of the workspace, or "".
        dirty: whether tracked files of the workspace differ from that commit.
        dvc_file_sha256: digest of ``data.dvc`` (``sha256:…``).
    """

    task: str
    digest: str
    folder: Path
    train: int
    test: int
    files: int
    pushed: bool
    commit: str
    dirty: bool
    dvc_file_sha256: str


def version_task(
    task: TaskFolder,
    manifest: Manifest,
    settings: Settings,
    announce: Callable[[str], None] = lambda _: None,
) -> DataVersion:
    """Put a validated task below ``data/``, pin it with DVC and push it.

    The files go where the manifest's splits say. A task that already lies in
    ``data/<task>`` in that form is used in place; hidden files are never part of it.

    Args:
        task: the task's folder.
        manifest: what `scan` found there; the bytes must still be those.
        settings: of the workspace.
        announce: told the digest (``md5:<32 hex>.dir``) before anything is pinned under it.

    Raises:
        UsageError: the remote's setting cannot be used.
        DataRefused: the images changed since, a row has an error, or ``data/<task>``
            holds changes that no version has and that would be overwritten.
        IntegrityBroken: ``data/`` is not what ``data.dvc`` pins, other than by this task.
        ServiceUnavailable: disk, lock or remote cannot be used.
    """
    workspace = settings.workspace.absolute()
    sources = _sources(task, manifest)
    with exclusive(workspace), dvc.open_repo(settings) as repo:
        with translated("repair what a killed run left", workspace):
            swap.recover(workspace)
            (workspace / "data").mkdir(exist_ok=True)
        objects.open_remote(repo)  # better now than after all the work
        wanted = swap.digests(sources)
        actual = objects.hashes(repo)
        pinned = pinned_now(repo, workspace, actual)
        refuse_others(workspace, pinned, actual, task.name)
        here = listing.of_task(actual, task.name)
        staged = _must_copy(task, workspace, sources, wanted, here)
        if staged:
            _refuse_loss(task.name, repo, wanted, here, listing.of_task(pinned, task.name))
            swap.stage(workspace, {path: (sources[path][0], wanted[path]) for path in sources})
        else:
            _refuse_added(workspace / "data" / task.name, wanted)
        expected = wanted if staged else {**here, **wanted}
        announce(f"md5:{listing.dir_object(expected)[0]}")
        with swap.replacing(workspace, task.name, staged):
            objects.drop_corrupt(repo, set(wanted.values()))
            objects.add(repo)
            whole = listing.pinned_oid(workspace)
            now = listing.read_listing(object_bytes(repo, whole), whole)
            mine = listing.of_task(now, task.name)
            _require_exact(task.name, expected, mine)
        oid, content = listing.dir_object(mine)
        with translated("keep the list of the task's files", workspace):
            listing.keep_object(objects.cache_path(repo, oid), content)
        objects.push(repo, {*now.values(), whole, oid})
    commit, dirty = git_state(workspace)
    return DataVersion(
        task=task.name,
        digest=f"md5:{oid}",
        folder=workspace / "data" / task.name,
        train=manifest.train,
        test=manifest.test,
        files=len(mine),
        pushed=True,
        commit=commit,
        dirty=dirty,
        dvc_file_sha256=sha256_file(workspace / "data.dvc"),
    )


def require_pinned(settings: Settings) -> str:
    """See that ``data/`` holds exactly what ``data.dvc`` pins.

    Files whose inode, size and time of change DVC knows are not read again.

    Returns:
        The digest pinned (``md5:<32 hex>.dir``).

    Raises:
        IntegrityBroken: it does not; the message names what differs.
    """
    workspace = settings.workspace.absolute()
    with exclusive(workspace), dvc.open_repo(settings) as repo:
        with translated("repair what a killed run left", workspace):
            swap.recover(workspace)
            (workspace / "data").mkdir(exist_ok=True)
        actual = objects.hashes(repo)
        refuse_others(workspace, pinned_now(repo, workspace, actual), actual, except_task="")
        return f"md5:{listing.pinned_oid(workspace)}"


def _sources(task: TaskFolder, manifest: Manifest) -> dict[str, tuple[Path, str]]:
    """Path below ``data/<task>`` to (file, ``sha256:…``), sorted."""
    refused = [row.path for row in manifest.rows if row.error]
    if refused or not manifest.rows:
        raise DataRefused(
            f"{len(refused)} files of {task.name} cannot be versioned: {', '.join(refused[:5])}."
            if refused
            else f"{task.name} has no images.",
            fix="Correct or remove them.",
            files=refused,
        )
    sources = {
        row.split + "/" + row.path.split("/", 1)[1]: (task.root / row.path, row.sha256)
        for row in manifest.rows
    }
    if (task.root / TASK_FILE).is_file():
        sources[TASK_FILE] = (task.root / TASK_FILE, "")
    return dict(sorted(sources.items()))


def _must_copy(
    task: TaskFolder,
    workspace: Path,
    sources: Mapping[str, tuple[Path, str]],
    wanted: Listing,
    here: Listing,
) -> bool:
    """Whether ``data/<task>`` has to be written."""
    folder = workspace / "data" / task.name
    if listing.links(folder):
        return True
    if task.root == folder.resolve():
        return any(file != task.root / path for path, (file, _) in sources.items())
    return here != wanted


def _refuse_loss(task: str, repo: Any, wanted: Listing, here: Listing, pinned: Listing) -> None:
    """Refuse to replace files that neither the new content nor an earlier version keeps."""
    kept = {md5 for md5 in pinned.values() if objects.cache_path(repo, md5).is_file()}
    kept.update(wanted.values())
    lost = [f"data/{task}/{path}" for path, md5 in sorted(here.items()) if md5 not in kept]
    if lost:
        raise DataRefused(
            f"data/{task} holds {len(lost)} files that no version keeps and that would be "
            f"overwritten: {some(lost)}.",
            fix=f"Move them away, or version them first: clr onboard data/{task}.",
            files=lost,
        )


def _refuse_added(folder: Path, wanted: Listing) -> None:
    """Refuse images that came in place since the scan: training reads the folder as it is."""
    found = (path for path, _ in listing.walk(folder) if path.startswith(_OF_SPLITS))
    if added := sorted(path for path in found if path not in wanted):
        raise swap.changed(added)


def _require_exact(task: str, wanted: Listing, pinned: Listing) -> None:
    wrong = sorted(path for path in {*wanted, *pinned} if wanted.get(path) != pinned.get(path))
    if wrong:
        raise IntegrityBroken(
            f"DVC pinned something else for {task} than lies there: {some(wrong)}.",
            fix="See that no pattern of .dvcignore matches these files and that nothing else "
            "writes to data/; then run the same again.",
            files=wrong,
        )


@contextmanager
def exclusive(workspace: Path) -> Iterator[None]:
    """One version at a time in a workspace; the system frees the lock of a killed process."""
    from filelock import FileLock, Timeout

    folder = workspace / ".dvc" / "tmp"
    lock = FileLock(folder / "clr.lock", timeout=LOCK_SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, Timeout) as error:
        taken = isinstance(error, Timeout)
        raise ServiceUnavailable(
            f"Another process has been versioning data in {workspace} for an hour."
            if taken
            else f"Cannot write {folder}: {error.strerror}.",
            fix="See which clr process still runs there."
            if taken
            else "Make the workspace writable or free some space, then run the same again.",
        ) from error
    try:
        yield
    finally:
        lock.release()
