"""``clr restore``: a workspace from a backup, whole or not at all.

Everything is written beside where it belongs, each file's bytes are compared with their digest
on the way, databases and git are made ready there, and only then it is moved into place.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.audit.ledger import open_ledger
from clr.data import listing
from clr.errors import ClrError, IntegrityBroken, ServiceUnavailable, UsageError
from clr.registry.acts import LOCAL
from clr.registry.moved import follow
from clr.settings import absolute, load_settings
from flows import backup_git, databases, provenance
from flows.snapshot import Item, Snapshot
from flows.store import Store, open_store

if TYPE_CHECKING:
    from clr.settings import Settings

LOG = logging.getLogger("clr")
Result = dict[str, Any]
_HOOKS = "dumps/git/"


def run_restore(source: Path, into: Path | None) -> Result:
    """Bring a workspace back; what ``clr restore --json`` prints.

    Args:
        source: a folder of backups, whose newest snapshot is taken, or one snapshot's file.
        into: the workspace, a new or an empty folder; default: where it was.

    Raises:
        UsageError: there is no such snapshot, the folder is not empty, or a database that the
            settings name is not.
        IntegrityBroken: a file of the backup is not what it was; nothing is in place.
        ServiceUnavailable: no room, no git, or a database cannot be used.
    """
    began = time.perf_counter()
    folder, name = _asked(source)
    with open_store(folder, create=False) as store:
        snapshot = store.read(name or (store.names() or ["none"])[-1])
        target = absolute((into or Path(snapshot.facts["workspace"])).expanduser())
        digest = store.digest(snapshot.name)
        LOG.info("restore   %s of %s into %s", snapshot.name, store.folder, target)
        with _beside(target) as staged:
            _put_tree(store, snapshot, "workspace", staged)
            settings = _settings(staged, target)
            if settings.state.is_relative_to(target):
                _fill(store, snapshot, settings, staged / settings.state.relative_to(target))
                _finish(store, snapshot, settings, staged)
            else:
                with _beside(settings.state) as state:
                    _fill(store, snapshot, settings, state)
                    _finish(store, snapshot, settings, staged)
    result = {
        "snapshot": snapshot.name,
        "digest": digest,
        "made_at": snapshot.made_at,
        "workspace": str(target),
        "files": len(snapshot.files),
        "bytes": sum(one.size for one in snapshot.files),
    }
    _record(settings, snapshot, result)
    return {
        **result,
        "state": str(settings.state),
        "served": settings.registry_file.exists(),
        "ledger": snapshot.facts["ledger"],
        "secrets": snapshot.facts["secrets"],
        "damaged": snapshot.facts["damaged"],
        "left_out": snapshot.facts["left_out"],
        "seconds": round(time.perf_counter() - began, 3),
    }


def _asked(source: Path) -> tuple[Path, str]:
    if source.suffix == ".json" and source.absolute().parent.name == "snapshots":
        return source.absolute().parents[1], source.stem
    return source, ""


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a folder that takes the place of `target` at the end, or is gone after an error.

    A folder that is there, empty, and cannot be replaced (a mounted one) is filled instead,
    ``data.dvc`` last: with that it is a workspace.

    Raises:
        UsageError: `target` is a file, or not empty.
    """
    kept = False
    if target.exists():
        if not target.is_dir() or any(target.iterdir()):
            raise UsageError(
                f"{target} is not empty; a restore overwrites nothing.",
                fix="Give a new or an empty folder (--into, CLR_HOME), or move this one away.",
            )
        try:
            target.rmdir()
        except OSError:
            kept = True
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = (target if kept else target.parent) / f".{target.name}.restoring"
    shutil.rmtree(staged, ignore_errors=True)  # what a killed restore left
    staged.mkdir(mode=0o700)
    try:
        yield staged
        if kept:
            for path in sorted(staged.iterdir(), key=lambda one: (one.name == "data.dvc", one)):
                path.rename(target / path.name)
        else:
            staged.chmod(0o755)
            staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _settings(staged: Path, target: Path) -> Settings:
    """Return the settings that will be in force: the environment over the backup's ``clr.env``."""
    if not (staged / "data.dvc").is_file():
        raise IntegrityBroken(
            "This backup has no data.dvc: it is not of a workspace.", fix="Use another snapshot."
        )
    return load_settings(staged).model_copy(update={"workspace": target})


def _put_tree(store: Store, snapshot: Snapshot, root: str, folder: Path) -> None:
    for path, one in snapshot.below(root):
        store.put(one, folder / path)
    for path, mode in snapshot.folders.items():
        if path.startswith(f"{root}/"):
            place = folder / path.removeprefix(f"{root}/")
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(mode)


def _fill(store: Store, snapshot: Snapshot, settings: Settings, state: Path) -> None:
    """Write ``CLR_HOME``: its files, the databases, and the DVC remote that lies there."""
    _same_databases(snapshot, settings)
    _put_tree(store, snapshot, "state", state)
    if (state / "mlflow.db").exists():
        follow(state / "mlflow.db", settings.state / "artifacts")
    if not settings.dvc_remote:
        for path, one in snapshot.below("cache"):
            store.put(one, state / "remote" / "files" / "md5" / path)


def _same_databases(snapshot: Snapshot, settings: Settings) -> None:
    """See that the settings name the kind of databases that the backup has, and empty ones."""
    there = {name for name, _ in snapshot.below("dumps") if name.endswith(".dump")}
    wanted = databases.servers(settings)
    if there != wanted.keys():
        has = ", ".join(sorted(there)) or "SQLite alone"
        raise UsageError(
            f"This backup has {has}, the settings name "
            f"{'PostgreSQL' if wanted else 'no PostgreSQL'}.",
            fix="Set CLR_REGISTRY_DATABASE and CLR_LEDGER_URL as they were: registry.dump goes "
            "into the first, ledger.dump into the second where that is another one.",
        )
    for url in wanted.values():
        databases.refuse_filled(url)


def _finish(store: Store, snapshot: Snapshot, settings: Settings, staged: Path) -> None:
    """Make the workspace whole: objects, ``data/``, git; at last the databases of servers."""
    for path, one in snapshot.below("cache"):
        store.put(one, staged / ".dvc" / "cache" / "files" / "md5" / path)
    _check_out(store, snapshot, staged)
    (staged / "incoming").mkdir(exist_ok=True)
    _git(store, snapshot, staged)
    files = {one.path: one for one in snapshot.files}
    for name, url in databases.servers(settings).items():
        file = staged / ".dvc" / "tmp" / name
        store.put(files[f"dumps/{name}"], file)
        databases.load(url, file)
        file.unlink()


def _check_out(store: Store, snapshot: Snapshot, staged: Path) -> None:
    """Write ``data/``: the files that ``data.dvc`` pins, from the backup's objects."""
    objects: dict[str, Item] = dict(snapshot.below("cache"))
    oid = listing.pinned_oid(staged)
    (staged / "data").mkdir(exist_ok=True)
    pinned = listing.object_path(staged / ".dvc" / "cache", oid)
    if not pinned.is_file():
        raise IntegrityBroken(
            f"This backup lacks the list of the files that data.dvc pins ({oid}).",
            fix="Use another snapshot.",
        )
    for path, md5 in listing.read_listing(pinned.read_bytes(), oid).items():
        one = objects.get(f"{md5[:2]}/{md5[2:]}")
        if one is None:
            LOG.warning("restore   data/%s is not in the backup, as that said itself", path)
            continue
        store.put(replace(one, mode=0o644), staged / "data" / path)


def _git(store: Store, snapshot: Snapshot, staged: Path) -> None:
    about = snapshot.facts.get("git") or {}
    if not about:
        return
    files = {one.path: one for one in snapshot.files}
    bundle = staged / ".dvc" / "tmp" / "git.bundle"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    there = backup_git.BUNDLE in files
    if there:
        store.put(files[backup_git.BUNDLE], bundle)
    if backup_git.SHALLOW in files:  # before git sees the history
        store.put(files[backup_git.SHALLOW], staged / ".git" / "shallow")
    backup_git.restore(staged, bundle if there else None, about)
    bundle.unlink(missing_ok=True)
    for path, one in files.items():
        if path.startswith(_HOOKS):
            place = staged / ".git" / path.removeprefix(_HOOKS)
            place.unlink(missing_ok=True)
            store.put(one, place)


def _record(settings: Settings, snapshot: Snapshot, result: Result) -> None:
    try:
        open_ledger(settings.state, settings.ledger_url).append(
            "backup.restored",
            snapshot.name,
            {**result, "ledger": snapshot.facts["ledger"]},
            actor=provenance.local_user(),
            authentication=LOCAL,
        )
    except ClrError as error:
        raise ServiceUnavailable(
            f"The workspace is restored, but the ledger has no entry of it: {error.message}",
            fix="Put that right; `clr verify` shows whether all is well.",
        ) from error
