"""``clr backup``: all that is needed to go on, and to prove the past, in one folder.

The order makes it one moment, while others go on working. First what makes claims about the
databases: records of steps and arrivals. Then the databases, in a moment in which nobody acts.
Last what they name: files that are written once, before anything names them. So whatever a
copy of a database names is in the copy, and what came later is there besides, named by nobody:
a restored workspace is one in which everything was killed at the moment of the backup.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr import __version__
from clr.errors import IntegrityBroken, ServiceUnavailable
from clr.registry.acts import LOCAL
from clr.registry.faults import redact
from flows import backup_data, backup_git, databases, provenance
from flows.snapshot import Item, Snapshot
from flows.store import Store, newest, open_store

if TYPE_CHECKING:
    from clr.settings import Settings
    from flows.session import Session

LOG = logging.getLogger("clr")
Result = dict[str, Any]

MADE_AGAIN = frozenset({
    "cache", "crashes", "dvc", "git", "locks", "logs", "prefect", "remote", "scratch", "server",
    "up.json",
})  # fmt: skip
"""Below ``CLR_HOME``, not in a backup: local copies, logs, what belongs to running processes,
Prefect's history of runs, a copy of the git remote, and the DVC remote, whose objects are those of
DVC's cache."""

NAMED = frozenset({"artifacts", "keys", "secrets", "unpacked"})
"""Below ``CLR_HOME``, copied after the databases that name it."""

SECRETS = ("state/keys/ledger.key", "state/keys/model-signing.key", "state/secrets/")
MAY_TELL = {"workspace/clr.env": "clr.env", "dumps/git/config": "git's configuration"}
"""Settings, which may hold a password or a token, and how they are called."""
_TELL_SECONDS = 5.0


@dataclass(eq=False)
class Collection:
    """A snapshot that grows.

    Attributes:
        store: where the bytes go.
        before: files of the snapshot before this one, by path.
        trust_ns: see `Store.keep`.
        secrets: whether private keys and passwords are taken, too.
        files: what it has, by path.
        folders: mode of empty or private folders, by path.
        left_out: sentences about what it lacks.
        damaged: objects whose bytes are nowhere to be had.
    """

    store: Store
    before: dict[str, Item]
    trust_ns: int
    secrets: bool = True
    files: dict[str, Item] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    _told: float = field(default_factory=time.monotonic)

    def file(self, source: Path, path: str) -> Item | None:
        """Take one file; None where it is gone, hidden from this backup, or no plain file."""
        if path in self.files or (not self.secrets and self._secret(source, path)):
            return self.files.get(path)
        if not _can_be_written(path) or source.is_symlink():
            what = "is a link" if source.is_symlink() else "has a name that cannot be written down"
            self.left_out.append(f"{path!a} {what}")
            return None
        try:
            one = self.store.keep(source, path, self.before.get(path), self.trust_ns)
        except (FileNotFoundError, NotADirectoryError):
            return None  # whoever made it has taken it away again; nobody named it yet
        self.files[path] = one
        self._tell()
        return one

    def _secret(self, source: Path, path: str) -> bool:
        """Say whether a file is none for a backup without secrets."""
        if path not in MAY_TELL:
            return path.startswith(SECRETS)
        told = f"{MAY_TELL[path]}, which may hold secrets"
        if source.exists() and told not in self.left_out:
            self.left_out.append(told)
        return True

    def tree(self, folder: Path, path: str, skip: frozenset[str] = frozenset()) -> None:
        """Take all files below a folder but those whose path below it is in `skip`."""
        try:
            entries = sorted(os.scandir(folder), key=lambda one: one.name)
            mode = folder.stat().st_mode & 0o777
        except (FileNotFoundError, NotADirectoryError):
            return
        if not entries or not mode & 0o077:
            self.folders[path] = mode
        for entry in entries:
            if entry.name in skip or _passing(entry.name) or Path(entry) == self.store.folder:
                continue
            if entry.is_dir(follow_symlinks=False):
                self.tree(Path(entry), f"{path}/{entry.name}")
            elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                self.file(Path(entry), f"{path}/{entry.name}")

    def temporary(self, path: str) -> Path:
        """Return where to write what `taken` then puts into the store under `path`."""
        return self.store.folder / "objects" / f".{path.replace('/', '-')}.tmp"

    def taken(self, path: str) -> None:
        """Take what was written to `temporary`, and remove that."""
        source = self.temporary(path)
        self.files[path] = replace(self.store.keep(source, path, None, 0), mode=0o600, seen=())
        source.unlink()

    def _tell(self) -> None:
        if time.monotonic() - self._told > _TELL_SECONDS:
            self._told = time.monotonic()
            LOG.info("backup    %d files, %d of them new …", len(self.files), self.store.added)


def _can_be_written(path: str) -> bool:
    """Say whether a name is text: one in another encoding than the system's is not."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _passing(name: str) -> bool:
    """Say whether a name is that of a lock or of a file that is being written."""
    hidden = name.startswith(".") and name.endswith(".tmp")
    return hidden or name.endswith(".lock") or name.startswith((".partial-", ".mlflow-", ".git-"))


def run_backup(session: Session, folder: Path, *, secrets: bool = True) -> Result:
    """Add a snapshot of a workspace to a folder of backups; what ``clr backup --json`` prints.

    Works while everything runs. What an earlier snapshot of the folder holds is not stored
    again. What is older than ``CLR_KEEP_BACKUPS_DAYS`` is removed.

    Args:
        session: the workspace.
        folder: of backups; made if it is not there.
        secrets: whether private keys and passwords are in it.

    Raises:
        UsageError: the folder is something else.
        ServiceUnavailable: it cannot be written, or a database cannot be copied.
        IntegrityBroken: a database is damaged.
    """
    began = time.perf_counter()
    now, started_ns = datetime.now(UTC), time.time_ns()
    with session.lock("upkeep"), open_store(folder, create=True) as store:
        LOG.info("backup    %s to %s", session.settings.workspace, store.folder)
        last = newest(store)
        known = {one.path: one for one in last.files} if last else {}
        got = Collection(store, known, last.started_ns if last else 0, secrets)
        _claims(got, session.settings.state)
        facts = _databases(got, session)
        _contents(got, session)
        facts |= {
            "git": backup_git.collect(got, session.settings, last.facts if last else {}),
            **_about(session.settings, secrets),
            "left_out": got.left_out,
            "damaged": got.damaged,
        }
        files = tuple(got.files[path] for path in sorted(got.files))
        snapshot = Snapshot("", now.isoformat(), started_ns, facts, got.folders, files)
        name = store.commit(snapshot)
        digest = store.digest(name)
        days = session.settings.keep_backups_days
        expired = store.expire(now, days) if days else []
        store.sweep()
    result = {
        "snapshot": name,
        "digest": digest,
        "files": len(files),
        "bytes": sum(one.size for one in files),
        "damaged": len(got.damaged),
        "secrets": secrets,
        "ledger": facts["ledger"],
        "expired": expired,
    }
    _record(session, result)
    return {
        **result,
        "backup": str(store.folder),
        "damaged": got.damaged,
        "left_out": got.left_out,
        "added": store.added,
        "added_bytes": store.added_bytes,
        "seconds": round(time.perf_counter() - began, 3),
    }


def _about(settings: Settings, secrets: bool) -> Result:
    return {
        "clr": __version__,
        "workspace": str(settings.workspace),
        "state": str(settings.state),
        "secrets": secrets,
    }


def _claims(got: Collection, state: Path) -> None:
    databases_here = {Path(name).name for name in (*databases.SQLITE, databases.JOURNAL)}
    beside = {f"{name}{end}" for name in databases_here for end in ("", "-wal", "-shm", "-journal")}
    for entry in sorted(state.iterdir()) if state.is_dir() else ():
        if entry.name in MADE_AGAIN | NAMED | beside or _passing(entry.name):
            continue
        if entry.is_dir():
            got.tree(entry, f"state/{entry.name}", frozenset(beside))
        else:
            got.file(entry, f"state/{entry.name}")


def _databases(got: Collection, session: Session) -> Result:
    settings = session.settings
    ledger: Result = {}

    def copy() -> None:
        for name, source in databases.files(settings).items():
            databases.copy_sqlite(source, got.temporary(f"state/{name}"))
        for name, url in databases.servers(settings).items():
            databases.dump(url, got.temporary(f"dumps/{name}"))
        # after the copy: the head file of before it is in the snapshot, and never runs ahead
        head = session.ledger.head()
        ledger.update({"seq": head.seq, "hash": head.hash} if head else {})

    with session.lock("promote"):
        quiet = databases.in_a_quiet_moment(session.ledger, copy)
    for name in databases.files(settings):
        got.taken(f"state/{name}")
    for name in databases.servers(settings):
        got.taken(f"dumps/{name}")
    if settings.registry_url and not settings.registry_database:
        got.left_out.append(
            f"the registry of {redact(settings.registry)}, unless it is this workspace's"
        )
    return {"ledger": ledger or None, "quiet": quiet}


def _contents(got: Collection, session: Session) -> None:
    settings = session.settings
    backup_data.answers(got, settings)
    for name in sorted(NAMED):
        got.tree(settings.state / name, f"state/{name}")
    got.tree(settings.state / "cache" / "gates", "state/cache/gates")
    if settings.registry_artifacts:
        got.left_out.append(f"the registry's files in {settings.registry_artifacts}")
    backup_data.collect(got, session)


def _record(session: Session, result: Result) -> None:
    name = str(result["snapshot"])
    try:
        session.ledger.append(
            "backup.made",
            name,
            {key: value for key, value in result.items() if key != "snapshot"},
            actor=provenance.local_user(),
            authentication=LOCAL,
        )
    except ServiceUnavailable as error:
        raise ServiceUnavailable(
            f"The snapshot {name} is made, but the ledger has no entry of it: {error.message}",
            fix="Put that right; the next backup is recorded again.",
            snapshot=name,
        ) from error


def check_backups(folder: Path) -> Result:
    """Hash all that a folder of backups holds; what ``clr backup --verify --json`` prints.

    Needs no workspace.

    Raises:
        UsageError: it is no folder of backups.
        ServiceUnavailable: a backup is being made there.
    """
    found = []
    with open_store(folder, create=False) as store:
        for name in store.names():
            one: Result = {"snapshot": name, "files": 0, "bytes": 0, "problems": []}
            try:
                snapshot = store.read(name)
                one["files"] = len(snapshot.files)
                one["bytes"] = sum(item.size for item in snapshot.files)
                one["problems"] = store.wrong(snapshot)
            except IntegrityBroken as error:
                one["problems"] = [error.message]
            LOG.info("verify    %s: %d problems", name, len(one["problems"]))
            found.append(one)
    return {"backup": str(store.folder), "snapshots": found}
