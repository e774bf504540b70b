"""Is the data what its digests say? Read from the bytes, since DVC's own checks are not.

`dvc status` trusts whatever lies read-only in its cache, and `dvc pull` accepts a
corrupt object from a folder remote (DVC 3.67, `dvc_data/hashfile/db/local.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clr.data import dvc, listing, objects
from clr.data.listing import Listing
from clr.errors import IntegrityBroken, UsageError
from clr.settings import Settings

FILE, OBJECT = "data-changed", "data-object-changed"
"""Kinds of problems: a file in ``data/``; what DVC keeps of one, or its list of files."""


def task_digest(workspace: Path, task: str) -> str:
    """Return the digest (``md5:<32 hex>.dir``) of a task as ``data.dvc`` pins it.

    Raises:
        UsageError: ``data.dvc`` pins no such task.
        IntegrityBroken: ``data.dvc`` or DVC's list of files is missing or damaged.
    """
    digests = task_digests(workspace)
    if task not in digests:
        raise UsageError(
            f"data.dvc pins no task {task!r}.", fix="See `clr status` for the tasks there are."
        )
    return digests[task]


def task_digests(workspace: Path) -> Mapping[str, str]:
    """Return the digest (``md5:<32 hex>.dir``) of every task that ``data.dvc`` pins.

    Raises:
        IntegrityBroken: ``data.dvc`` or DVC's list of files is missing or damaged.
    """
    return _digests(dvc.cache_folder(workspace), listing.pinned_oid(workspace))


@lru_cache(maxsize=4)  # one state of data.dvc never changes; thousands of tasks ask for it
def _digests(cache: Path, oid: str) -> Mapping[str, str]:
    return MappingProxyType(
        {
            task: f"md5:{listing.dir_object(files)[0]}"
            for task, files in _split(_listing(cache, oid)).items()
        }
    )


def _split(files: Listing) -> dict[str, Listing]:
    """Sort the files of ``data/`` by their task, its prefix cut."""
    by_task: dict[str, Listing] = {}
    for path, md5 in files.items():
        task, _, rest = path.partition("/")
        if rest:
            by_task.setdefault(task, {})[rest] = md5
    return by_task


def _files_of(workspace: Path, task: str) -> Listing:
    """Return the files of a task as pinned; the list of all is read once until it changes."""
    cache, oid = dvc.cache_folder(workspace), listing.pinned_oid(workspace)
    return _read_split(cache, oid, dvc.stamp(listing.object_path(cache, oid))).get(task, {})


@lru_cache(maxsize=2)
def _read_split(cache: Path, oid: str, _: object) -> dict[str, Listing]:
    return _split(_listing(cache, oid))


def pinned_files(workspace: Path) -> Listing:
    """Return all files that ``data.dvc`` pins, from DVC's cache.

    Raises:
        IntegrityBroken: ``data.dvc`` or DVC's list of files is missing or damaged.
    """
    return _listing(dvc.cache_folder(workspace), listing.pinned_oid(workspace))


def _listing(cache: Path, oid: str) -> Listing:
    path = listing.object_path(cache, oid)
    if not path.is_file():
        raise _unknown_files(oid)
    return listing.read_listing(path.read_bytes(), oid)


def check_data(settings: Settings, task: str, digest: str) -> list[dict[str, str]]:
    """Hash a version's files, and DVC's copies of them, and return what is wrong.

    ``data/<task>`` is read where `digest` is the version pinned there; DVC's cache, and
    the remote where that is a folder, are read for every version: the remote alone for one
    that another machine made. Neither `dvc status` nor `dvc pull` notices a corrupt object.

    Args:
        settings: of the workspace.
        task: name of the task.
        digest: ``md5:<32 hex>.dir``.

    Returns:
        One {subject, kind, message} a problem; the subject names the file, the kind is `FILE`
        or `OBJECT`. Empty: all is well.
    """
    workspace = settings.workspace.absolute()
    oid = digest.removeprefix("md5:")
    problems: list[dict[str, str]] = []
    try:
        current = _files_of(workspace, task)
    except IntegrityBroken as error:
        current = {}
        problems.append(_problem("data.dvc", str(error), OBJECT))
    is_current = listing.dir_object(current)[0] == oid
    stores = _stores(settings, "" if is_current else oid)
    try:
        files = current if is_current else _kept_listing(next(iter(stores.values())), oid)
    except IntegrityBroken as error:
        return [*problems, _problem(f"data/{task}@{digest}", str(error), OBJECT)]
    if is_current:
        problems.extend(_check_folder(workspace / "data" / task, task, files))
    for name, store in stores.items():
        problems.extend(_check_store(name, store, task, files))
    return problems


def version_files(settings: Settings, task: str, digest: str) -> Listing | None:
    """Return the files of a version of a task; None where DVC's list of them is not here.

    Args:
        settings: of the workspace.
        task: name of the task.
        digest: ``md5:<32 hex>.dir``.

    Raises:
        IntegrityBroken: the list, or the version pinned now, is damaged.
    """
    oid = digest.removeprefix("md5:")
    for store in _stores(settings, oid).values():
        if listing.object_path(store, oid).is_file():
            return _kept_listing(store, oid)
    try:
        current = _files_of(settings.workspace.absolute(), task)
    except IntegrityBroken:
        return None
    return current if listing.dir_object(current)[0] == oid else None


def pinned_now(repo: Any, workspace: Path, actual: Listing) -> Listing:
    """The files that ``data.dvc`` pins; they need no list where ``data/`` is exactly that."""
    oid = listing.pinned_oid(workspace)
    if listing.dir_object(actual)[0] == oid:
        return actual
    return listing.read_listing(object_bytes(repo, oid), oid)


def object_bytes(repo: Any, oid: str) -> bytes:
    """Return a ``.dir`` object from the cache or the remote.

    Raises:
        IntegrityBroken: neither has it.
    """
    content = objects.fetch_object(repo, oid)
    if content is None:
        raise _unknown_files(oid)
    return content


def _unknown_files(oid: str) -> IntegrityBroken:
    return IntegrityBroken(
        f"data/ is not what data.dvc pins, and DVC's list of its files ({oid}) is neither in "
        "the cache nor in the remote.",
        fix="Fetch the data with `dvc pull` (the demo's: `make demo`), or work in a workspace "
        "of your own: `clr init DIR`.",
        object=oid,
    )


def refuse_others(workspace: Path, pinned: Listing, actual: Listing, except_task: str) -> None:
    """Refuse differences between ``data/`` and ``data.dvc`` outside one task."""
    own = f"{except_task}/" if except_task else "\0"
    differing = {
        "changed": [path for path in pinned if path in actual and actual[path] != pinned[path]],
        "missing": [path for path in pinned if path not in actual],
        "not pinned": [path for path in actual if path not in pinned],
        "a link": listing.links(workspace / "data"),
    }
    named = {
        what: sorted(f"data/{path}" for path in paths if not path.startswith(own))
        for what, paths in differing.items()
    }
    found = {what: paths for what, paths in named.items() if paths}
    if found:
        said = "; ".join(f"{len(paths)} {what}: {_by_task(paths)}" for what, paths in found.items())
        raise IntegrityBroken(
            f"data/ is not what data.dvc pins. {said}.",
            fix="`dvc checkout` brings the pinned files back; files that are not pinned must be "
            "moved away or be onboarded as a task (clr onboard data/TASK).",
            differing=found,
        )


def _stores(settings: Settings, oid: str) -> dict[str, Path]:
    """Return the folders where DVC keeps a version: of one of another machine, the remote alone."""
    stores = dict(zip(("DVC's cache", "the remote"), dvc.stores(settings), strict=False))
    known = [name for name in stores if listing.object_path(stores[name], oid).is_file()]
    return {name: stores[name] for name in known} if known == ["the remote"] else stores


def _kept_listing(cache: Path, oid: str) -> Listing:
    """The list of an earlier version's files, which `version_task` put into the cache."""
    path = listing.object_path(cache, oid)
    if not path.is_file():
        raise IntegrityBroken(
            f"DVC's list of files {oid} is not in the cache.",
            fix="Check out the data.dvc of that time from git and run `dvc pull`.",
            object=oid,
        )
    return listing.read_listing(path.read_bytes(), oid)


def _check_folder(folder: Path, task: str, files: Listing) -> Iterator[dict[str, str]]:
    for path, md5 in sorted(files.items()):
        subject = f"data/{task}/{path}"
        wrong = _wrong(folder / path, md5)
        if wrong:
            yield _problem(subject, f"{subject} {wrong}.", FILE)
    for path in sorted({found for found, _ in listing.walk(folder)} - files.keys()):
        subject = f"data/{task}/{path}"
        message = f"{subject} is not part of the version that data.dvc pins."
        yield _problem(subject, message, FILE)


def _check_store(name: str, store: Path, task: str, files: Listing) -> Iterator[dict[str, str]]:
    for path, md5 in sorted(files.items()):
        wrong = _wrong(listing.object_path(store, md5), md5)
        if wrong:
            subject = f"data/{task}/{path}"
            yield _problem(subject, f"The copy of {subject} in {name} {wrong}.", OBJECT)


def _wrong(path: Path, md5: str) -> str:
    """What is wrong with a file, as the end of a sentence; empty: nothing."""
    try:
        found = listing.md5_file(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if found == md5 else f"has other bytes: md5 {found} instead of {md5}"


def _problem(subject: str, message: str, kind: str) -> dict[str, str]:
    return {"subject": subject, "kind": kind, "message": message}


def _by_task(paths: list[str]) -> str:
    """A few paths as they are; of many, how many each task has."""
    if len(paths) <= 5:
        return ", ".join(paths)
    counts = Counter("/".join(path.split("/")[:2]) for path in paths)
    return some([f"{folder} ({count} files)" for folder, count in counts.items()])


def some(paths: list[str]) -> str:
    """Return the first five, as the end of a sentence."""
    return ", ".join(paths[:5]) + (" …" if len(paths) > 5 else "")
