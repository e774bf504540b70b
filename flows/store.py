"""A folder of backups: files by their digest, and one document a snapshot that names them.

::

    objects/ab/cdef…             a file's bytes under their sha256, each once however often named
    snapshots/<UTC time>.json    schema ``clr.backup/1``: path, digest, size and mode of every file

Where the clock went back since the newest was made, a name ends in ``-2``, and so on at each
further time: the order of names is the one in which snapshots were made, whatever the clock said.

A snapshot's document is written last, when all its objects are on the disk; so whatever ends
a backup early leaves former snapshots as they were and no half one. Both folders are readable
by their owner alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from clr.core.files import sha256_bytes, write_atomic
from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from flows.snapshot import Item, Snapshot, order, parse, time_of

_OURS = {"objects", "snapshots", "lock"}
_CHUNK = 1 << 20
_FRESH_NS = 2_000_000_000


@dataclass(eq=False)
class Store:
    """An opened folder of backups; see `open_store`."""

    folder: Path
    added: int = 0
    added_bytes: int = 0
    _checked: set[str] = field(default_factory=set)

    def object(self, digest: str) -> Path:
        """Return where the bytes with this digest are."""
        name = digest.removeprefix("sha256:")
        return self.folder / "objects" / name[:2] / name[2:]

    def names(self) -> list[str]:
        """Return the names of all snapshots, in the order in which they were made."""
        found = (path.stem for path in (self.folder / "snapshots").glob("[0-9]*.json"))
        return sorted(found, key=order)

    def read(self, name: str) -> Snapshot:
        """Return a snapshot.

        Raises:
            UsageError: there is none of that name.
            IntegrityBroken: its document has an unknown or a hostile form.
        """
        path = self.folder / "snapshots" / f"{name}.json"
        try:
            return parse(json.loads(path.read_bytes()), name)
        except FileNotFoundError as error:
            known = ", ".join(self.names()[-5:]) or "none at all"
            raise UsageError(
                f"{self.folder} has no snapshot {name!r}; it has {known}.", fix="Name one of these."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityBroken(
                f"{path} is not a snapshot of a backup: {error}.",
                fix="Use another snapshot of the same folder.",
                path=str(path),
            ) from error

    def digest(self, name: str) -> str:
        """Return the sha256 of a snapshot's document."""
        return sha256_bytes((self.folder / "snapshots" / f"{name}.json").read_bytes())

    def keep(self, source: Path, path: str, before: Item | None, trust_ns: int) -> Item:
        """Put a file into the store.

        Args:
            source: the file.
            path: what the snapshot calls it.
            before: the same path in the snapshot before.
            trust_ns: a file that changed after this moment is read again in any case.

        Raises:
            OSError: it cannot be read (`FileNotFoundError`: it is gone), or the disk is full.
        """
        with source.open("rb") as file:
            stat = os.fstat(file.fileno())
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
            mode = stat.st_mode & 0o777
            if (
                before is not None
                and (before.seen, before.size) == (seen, stat.st_size)
                and stat.st_ctime_ns < trust_ns - _FRESH_NS
                and self._has(before.sha256, before.size)
            ):
                return Item(path, before.sha256, before.size, mode, seen)
            digest, size = self._take(file)
        return Item(path, digest, size, mode, seen)

    def keep_bytes(self, data: bytes, path: str, mode: int = 0o644) -> Item:
        """Put bytes into the store under a name."""
        digest = sha256_bytes(data)
        self._write(digest, data)
        return Item(path, digest, len(data), mode)

    def _take(self, file: Any) -> tuple[str, int]:
        data = file.read(_CHUNK)
        if len(data) < _CHUNK:
            digest = sha256_bytes(data)
            self._write(digest, data)
            return digest, len(data)
        sha, size = hashlib.sha256(), 0
        temporary = self._temporary()
        try:
            with _private(temporary) as out:
                while data:
                    sha.update(data)
                    size += out.write(data)
                    data = file.read(_CHUNK)
            digest = f"sha256:{sha.hexdigest()}"
            if not self._has(digest, size):
                self._place(temporary, digest, size)
        finally:
            temporary.unlink(missing_ok=True)
        return digest, size

    def _write(self, digest: str, data: bytes) -> None:
        if self._has(digest, len(data)):
            return
        temporary = self._temporary()
        try:
            with _private(temporary) as out:
                out.write(data)
            self._place(temporary, digest, len(data))
        finally:
            temporary.unlink(missing_ok=True)

    def _place(self, temporary: Path, digest: str, size: int) -> None:
        target = self.object(digest)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        temporary.replace(target)
        self.added += 1
        self.added_bytes += size

    def _temporary(self) -> Path:
        return self.folder / "objects" / f".{secrets.token_hex(8)}.tmp"

    def _has(self, digest: str, size: int) -> bool:
        try:
            return self.object(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    def commit(self, snapshot: Snapshot) -> str:
        """Keep a snapshot whose objects are all in the store; return its name."""
        os.sync()  # its objects are on the disk before anything names them; once, not each
        stem = re.sub(r"[-:]|\.\d+", "", snapshot.made_at).replace("+0000", "Z")
        count, newest = max(map(order, self.names()), default=(1, ""))
        count += stem <= newest
        name = stem if count == 1 else f"{stem}-{count}"
        path = self.folder / "snapshots" / f"{name}.json"
        write_atomic(path, snapshot.to_json())
        path.chmod(0o600)
        return name

    def expire(self, now: datetime, days: float) -> list[str]:
        """Remove snapshots of more than some days ago, but never the newest; return their names.

        Days are counted back from the newest but one where `now` is later: so nothing is lost
        by one backup that is made while the clock is ahead. Objects go with the next `sweep`.
        """
        names = self.names()
        last = min([now, *map(time_of, names[-2:-1])])
        stamp = f"{(last - timedelta(days=days)).astimezone(UTC):%Y%m%dT%H%M%S}"
        old = [name for name in names[:-1] if name < stamp]
        for name in old:
            (self.folder / "snapshots" / f"{name}.json").unlink(missing_ok=True)
        return old

    def sweep(self) -> int:
        """Remove what interrupted backups left, and objects that no snapshot names.

        Returns:
            how many objects; none where a snapshot's document cannot be read.
        """
        try:
            named = {one.sha256 for name in self.names() for one in self.read(name).files}
        except IntegrityBroken:
            return 0
        count = 0
        for path in (self.folder / "objects").rglob("*"):
            digest = f"sha256:{path.parent.name}{path.name}"
            if path.is_file() and digest not in named:
                path.unlink(missing_ok=True)
                count += not path.name.endswith(".tmp")
        for left in (self.folder / "snapshots").glob(".*.tmp"):
            left.unlink(missing_ok=True)
        return count

    def wrong(self, snapshot: Snapshot) -> list[str]:
        """Hash every object that a snapshot names, each once; return what is wrong, by path."""
        found = []
        for one in snapshot.files:
            if one.sha256 in self._checked:
                continue
            try:
                _copy(self.object(one.sha256), None, one)
                self._checked.add(one.sha256)
            except FileNotFoundError:
                found.append(f"{one.path}: its bytes are missing")
            except IntegrityBroken:
                found.append(f"{one.path}: its bytes have been changed")
        return found

    def put(self, one: Item, target: Path) -> None:
        """Write a file of a snapshot to `target`, checking its bytes on the way.

        Raises:
            IntegrityBroken: they are missing or not those of its digest.
            OSError: the target cannot be written.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        source = self.object(one.sha256)
        if not source.is_file():
            raise _changed(one, "are missing from")
        _copy(source, target, one)
        target.chmod(one.mode)


def _copy(source: Path, target: Path | None, one: Item) -> None:
    sha = hashlib.sha256()
    with source.open("rb") as file, _private(target or Path(os.devnull), new=bool(target)) as out:
        while data := file.read(_CHUNK):
            sha.update(data)
            out.write(data)
    if f"sha256:{sha.hexdigest()}" != one.sha256:
        raise _changed(one, "have been changed in")


def _changed(one: Item, what: str) -> IntegrityBroken:
    return IntegrityBroken(
        f"The bytes of {one.path} ({one.sha256}) {what} the backup.",
        fix="Use another snapshot, or another copy of the backup; nothing was put in place.",
        path=one.path,
    )


def _private(path: Path, *, new: bool = True) -> Any:
    flags = os.O_WRONLY | (os.O_CREAT | os.O_EXCL if new else 0)
    return os.fdopen(os.open(path, flags, 0o600), "wb")


@contextmanager
def open_store(folder: Path, *, create: bool) -> Iterator[Store]:
    """Open a folder of backups; while it is open nobody else writes to it.

    Args:
        folder: made, or taken if it is empty, where `create` says so.
        create: whether backups will be added.

    Raises:
        UsageError: it is something else.
        ServiceUnavailable: another process writes to it, or it cannot be written.
    """
    folder = folder.expanduser().absolute()
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or there - _OURS or not (create or "snapshots" in there):
        raise UsageError(
            f"{folder} is not a folder of backups.",
            fix="Name a new or an empty folder." if create else "Name what `clr backup` wrote to.",
        )
    try:
        if create:
            for name in ("objects", "snapshots"):
                (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
                (folder / name).chmod(0o700)
        with _locked(folder, exclusive=create):
            yield Store(folder)
    except OSError as error:
        raise _unusable(folder, error) from error


@contextmanager
def _locked(folder: Path, *, exclusive: bool) -> Iterator[None]:
    if not exclusive and not os.access(folder, os.W_OK):
        yield  # a backup on a read-only disk: nobody writes to it
        return
    with (folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServiceUnavailable(
                f"Another process uses the backups in {folder}.", fix="Wait for it to end."
            ) from error
        yield


def _unusable(folder: Path, error: OSError) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"The backup in {folder} cannot go on: {error.strerror or error}"
        + (f" ({error.filename})." if error.filename else "."),
        fix="Free some space or make it writable, then run the same again. Snapshots made "
        "before are as they were.",
    )


def newest(store: Store) -> Snapshot | None:
    """Return the newest snapshot that can be read; None where there is none."""
    for name in reversed(store.names()):
        with suppress(IntegrityBroken):
            return store.read(name)
    return None
