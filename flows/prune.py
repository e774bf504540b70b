"""``clr prune``: remove old files that nothing names, and write down which.

What to remove is decided first and written down whole (``CLR_HOME/pruned/<time>.json``, whose
digest is in the ledger); then it is removed. So a kill in between leaves files that the next
call removes. What is removed is either made again when it is needed, or past its time.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.core.files import canonical_json, sha256_bytes, write_atomic
from clr.errors import ServiceUnavailable
from clr.registry.acts import LOCAL
from clr.registry.retention import kept as keeping
from clr.registry.roles import load_policy, policy_path
from flows import provenance, prune_registry

if TYPE_CHECKING:
    from clr.settings import Settings
    from flows.session import Session

LOG = logging.getLogger("clr")
SCHEMA = "clr.prune/1"
_DAY = 86_400.0


@dataclass(frozen=True)
class Old:
    """Something to remove.

    Attributes:
        kind: why it may go.
        path: absolute file or folder.
        files: how many files it has.
        bytes: their size.
    """

    kind: str
    path: str
    files: int
    bytes: int


def run_prune(session: Session, *, dry_run: bool, now: float | None = None) -> dict[str, Any]:
    """Remove what nothing names and is older than ``CLR_KEEP_DAYS``.

    Logs and the files of deleted runs are kept longer (clr/registry/retention.py).

    Args:
        session: the workspace.
        dry_run: only say what would go.
        now: seconds since the epoch; default: the clock.

    Returns:
        {kinds: {kind: {files, bytes}}, files, bytes, list, kept, dry_run}; `list` is the file
        with every path, `kept` says what was left alone and why.

    Raises:
        UsageError: a setting undercuts the policy, or that is not one.
        ServiceUnavailable: something cannot be removed, or the ledger cannot be written.
        IntegrityBroken: ``data.dvc``, a list of files or the ledger is damaged.
    """
    settings = session.settings
    retention = keeping(settings, load_policy(policy_path(settings.workspace)).retention)
    moment = time.time() if now is None else now
    before = moment - settings.keep_days * _DAY
    kept: list[str] = []
    with session.lock("upkeep"):
        found = [*_local(settings, before, kept)]
        found += _logs(settings.state, moment - retention.logs_days * _DAY)
        deleted_before = moment - retention.evidence_days * _DAY
        with prune_registry.found(session, before, deleted_before, kept) as more:
            found += more
            return _go(session, found, kept, dry_run=dry_run)


def _go(session: Session, found: list[Old], kept: list[str], *, dry_run: bool) -> dict[str, Any]:
    kinds: dict[str, dict[str, int]] = {}
    for one in found:
        sums = kinds.setdefault(one.kind, {"files": 0, "bytes": 0})
        sums["files"] += one.files
        sums["bytes"] += one.bytes
    files, size = sum(one.files for one in found), sum(one.bytes for one in found)
    result: dict[str, Any] = {"kinds": kinds, "files": files, "bytes": size}
    written = None
    if found and not dry_run:
        written = _write_down(session, found, result)
        for one in found:
            _remove(Path(one.path))
            LOG.info("prune     %s %s", one.kind, one.path)
    told = str(written) if written else None
    return {**result, "list": told, "kept": kept, "dry_run": dry_run}


def _write_down(session: Session, found: list[Old], result: dict[str, Any]) -> Path:
    """Write the list of what goes, and its digest into the ledger; nothing is removed before."""
    now = datetime.now(UTC)
    listed = [asdict(one) for one in found]
    data = canonical_json({"schema": SCHEMA, "time": now.isoformat(), "removed": listed})
    path = session.settings.state / "pruned" / f"{now:%Y%m%dT%H%M%S%fZ}.json"
    write_atomic(path, data)
    session.ledger.append(
        "files.pruned",
        path.stem,
        {**result, "list": sha256_bytes(data), "keep_days": session.settings.keep_days},
        actor=provenance.local_user(),
        authentication=LOCAL,
    )
    return path


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ServiceUnavailable(
            f"{path} cannot be removed: {error.strerror or error}.",
            fix="See who owns it; then run the same again, it goes on with what is left.",
        ) from error
    with suppress(OSError):
        path.parent.rmdir()  # only where it was the last


def _local(settings: Settings, before: float, kept: list[str]) -> Iterator[Old]:
    """Yield old files of this workspace that are made again, or whose time is over."""
    state = settings.state
    for folder in _children(state / "cache"):
        if folder.name != "gates":  # reports that versions waiting for review rest on
            for path in sorted(_below(folder)):
                if path.is_file() and _used(path) < before:
                    yield old("cache", path)
    for name, kind in (("trainings", "checkpoints"), ("tasks", "steps"), ("validations", "steps")):
        for task in _children(state / name):
            if _at_work(state, task.name):
                kept.append(f"{name}/{task.name}: it is being onboarded")
                continue
            yield from _aged(task, before, kind)
    for task in _children(state / "pilots"):
        if _at_work(state, task.name):
            kept.append(f"pilots/{task.name}: it is at work")
            continue
        for copies in sorted(task.glob("data-*")):
            yield from _aged(copies, before, "pilots", whole=True)
    live = _live(settings)
    for folder in _children(settings.unpacked):
        if not any(one.is_relative_to(folder) for one in live):
            yield from _aged(folder, before, "unpacked", whole=True)
    for task in _children(settings.workspace / "quarantine"):
        yield from _aged(task, before, "quarantine")


def _logs(state: Path, before: float) -> Iterator[Old]:
    """Yield crash reports and those parts of logs that nobody writes to any more."""
    yield from _aged(state / "crashes", before, "crashes")
    for path in sorted((state / "logs").glob("*.log.*")):
        if _newest(path) < before:
            yield old("logs", path)


def _aged(folder: Path, before: float, kind: str, *, whole: bool = False) -> Iterator[Old]:
    for path in [folder] if whole else _children(folder):
        if _newest(path) < before:
            yield old(kind, path)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _below(folder: Path) -> Iterator[Path]:
    """Yield all that a folder has; folders that vanish meanwhile are passed over."""
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def _newest(path: Path) -> float:
    """When the youngest thing in a tree came there; its modification may be somebody else's."""
    below = _below(path) if path.is_dir() and not path.is_symlink() else ()
    return max(_time(one, lambda stat: stat.st_ctime) for one in (path, *below))


def _used(path: Path) -> float:
    return _time(path, lambda stat: max(stat.st_ctime, stat.st_atime))


def _time(path: Path, of: Callable[[os.stat_result], float]) -> float:
    try:
        return of(path.lstat())
    except FileNotFoundError:  # since it was listed: somebody is at work there now
        return math.inf


def old(kind: str, path: Path) -> Old:
    """Return a file or folder with what removing it frees."""
    sizes = []
    for one in _below(path) if path.is_dir() and not path.is_symlink() else (path,):
        with suppress(FileNotFoundError):
            if one.is_symlink() or one.is_file():
                sizes.append(one.lstat().st_size)
    return Old(kind, str(path), len(sizes), sum(sizes))


def _live(settings: Settings) -> list[Path]:
    """Return what came in and is not finished."""
    from flows import arrivals

    return [
        arrivals.location(settings, one) for one in arrivals.read_all(settings) if not one.finished
    ]


def _at_work(state: Path, task: str) -> bool:
    """Say whether an onboarding or a pilot of a task holds its lock."""
    from filelock import FileLock, Timeout

    lock = state / "locks" / f"task-{task}.lock"
    if not lock.exists():  # nobody was, and looking makes none
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False
