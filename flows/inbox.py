"""Look at ``incoming/``: what is complete there is claimed, what cannot be taken is told once."""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from clr.core.files import sha256_bytes, sha256_file
from clr.data.archive_names import UNREAD_SUFFIXES, suffix_of
from clr.data.content import READY
from clr.data.folder import printable, task_name
from clr.errors import ClrError, DataRefused, UsageError
from clr.settings import Settings
from flows import arrivals
from flows.arrivals import Arrival, Source
from flows.listed import GONE, Listing, is_renamed, is_temporary, listed
from flows.packed import Packed, named

LOG = logging.getLogger("clr")
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Seconds until what could not be taken is tried again, doubled each time, and at most."""

READY_SECONDS, MOVED_SECONDS = 1.0, 0.3
"""With ``READY``, or moved there, so long nothing may change: a copied folder brings ``READY``
along, and a program may change a folder's times once more."""

_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(eq=False)
class _Known:
    """What the last look saw under a name.

    Attributes:
        listing: as it was then.
        since: when it was first seen so, in seconds of the monotonic clock.
        taken: nothing is to be done until it changes.
        renamed: it had a temporary name before.
        packed: the archive, once it was read.
        told: what was said of it while it waits.
        tries: how often it could not be taken.
    """

    listing: Listing
    since: float
    taken: bool = False
    renamed: bool = False
    packed: Packed | None = None
    told: str = ""
    tries: int = 0


@dataclass(eq=False)
class Inbox:
    """The folder ``incoming/`` as the looks at it have seen it, for one thread.

    Attributes:
        settings: of the workspace.
        problems: why a name cannot be taken now; it is tried again.
    """

    settings: Settings
    problems: dict[str, str] = field(default_factory=dict)
    _at_start: set[str] | None = None
    _known: dict[str, _Known] = field(default_factory=dict)
    _temporary: dict[tuple[int, int], Listing] = field(default_factory=dict)

    def look(self, changed: set[str] | None = None) -> float | None:
        """Look at everything, or only at what waits and at `changed`; claim what is complete.

        Args:
            changed: names in the folder that something was heard of; None: look at all.

        Returns:
            Seconds after which something may be complete; None where nothing waits.

        Raises:
            ServiceUnavailable: folder or records cannot be read or written.
        """
        names = self._names()
        if self._at_start is None:
            self._at_start = set(names)
        for gone in self.problems.keys() - names.keys():
            del self.problems[gone]
        for gone in self._known.keys() - names.keys():
            self._at_start.discard(gone)
            self._left(self._known.pop(gone))
        if changed is None:
            self._mark_left()
            self._tidy()
        due: list[float] = []
        temporary: dict[tuple[int, int], Listing] = {}
        for name, entry in names.items():
            path = self.settings.inbox / name
            if is_temporary(name):
                with suppress(OSError):
                    seen = listed(path)
                    temporary[seen.identity] = seen
                continue
            known = self._known.get(name)
            if known and known.taken and changed is not None and name not in changed:
                continue
            wait = self._tried(name, path, entry)
            if wait is not None:
                due.append(wait)
        self._temporary = temporary
        return min(due, default=None)

    def _names(self) -> dict[str, os.DirEntry[str]]:
        self.settings.inbox.mkdir(parents=True, exist_ok=True)
        with os.scandir(self.settings.inbox) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        return {
            one.name: one for one in found if one.name != READY and one.name.lower() not in _CLUTTER
        }

    def _tried(self, name: str, path: Path, entry: os.DirEntry[str]) -> float | None:
        """Look at one; what fails there holds nobody else up, and is tried again."""
        try:
            wait = self._look_at(name, path, entry)
        except _GoneError:
            return self.settings.settle_seconds
        except (ClrError, OSError) as error:
            known = self._known.get(name)
            pause = min(FIRST_PAUSE * 2.0 ** (known.tries if known else 0), LONGEST_PAUSE)
            if known is not None:
                known.tries += 1
                known.since = time.monotonic() + pause - self._settle(known)
            said = printable(str(error))[:500]
            if self.problems.get(name) != said:
                LOG.warning("incoming  %s: %s", printable(name), said)
            self.problems[name] = said
            return pause
        self.problems.pop(name, None)
        return wait

    def _look_at(self, name: str, path: Path, entry: os.DirEntry[str]) -> float | None:
        now, seen = time.monotonic(), listed(path)
        known = self._known.get(name)
        if known is None or known.listing.stamp != seen.stamp:
            before = self._temporary.get(seen.identity, GONE)
            renamed = known is None and is_renamed(before, seen)
            known = self._known[name] = _Known(seen, now, renamed=renamed)
        if known.taken or not seen.stamp:
            return None
        wait = known.since + self._settle(known) - now
        if wait > 0:
            return wait
        if entry.is_symlink():
            self._tell(path, f"{printable(name)} is a link.", "Copy the folder itself there.")
        elif entry.is_dir(follow_symlinks=False):
            if not self._is_whole(name, known):
                return None  # a change is heard of, or found by the next look at everything
            self._take_folder(name, path, known)
        elif suffix_of(name):
            self._take_archive(name, path, known)
        elif suffix_of(name, UNREAD_SUFFIXES):
            self._tell(
                path, f"{printable(name)} is of a kind that is not read.", "Pack it as .zip."
            )
        elif not known.told:
            LOG.info("incoming  %s is no task folder and no archive: left alone", printable(name))
        known.taken = True
        return None

    def _settle(self, known: _Known) -> float:
        if known.renamed:
            return 0.0
        settle = self.settings.settle_seconds
        if known.listing.moved:
            return min(MOVED_SECONDS, settle)
        return min(READY_SECONDS, settle) if known.listing.ready else settle

    def _is_whole(self, name: str, known: _Known) -> bool:
        if known.listing.unfinished and not known.listing.ready:
            told = f"{name} waits: {known.listing.unfinished} is not copied to its end"
            if known.told != told:
                LOG.warning("incoming  %s", printable(told))
                known.told = told
            return False
        return known.listing.files > 0

    def _take_folder(self, name: str, path: Path, known: _Known) -> None:
        try:
            task = task_name(name)
        except UsageError as error:
            slug = error.data["suggestion"]
            self._tell(path, error.message, f"Rename the folder: {slug}", name=name)
            return
        digest = arrivals.digest_folder(self.settings, path, task)
        self._require_same(path, known)
        self._claim(name, task, path, digest, "folder")

    def _take_archive(self, name: str, path: Path, known: _Known) -> None:
        from clr.data.quarantine import quarantine_archive

        packed = Packed(name, sha256_file(path))
        self._require_same(path, known)
        known.packed = packed
        there = (one for one in self._all() if one.origin in packed.origins and not one.left)
        if old := next(there, None):
            self._say_known(name, old)
            return
        home = packed.home(self.settings)
        try:
            folder = self._unpack(path, home, known)
        except DataRefused as refusal:
            place = quarantine_archive(path, packed.task, refusal, self.settings)
            self._refuse(packed.digest, packed.task, place, "archive", refusal, place)
            return
        origin = packed.origin(folder.name)
        digest = arrivals.digest_folder(self.settings, folder, folder.name)
        claimed = self._claim(name, folder.name, folder, digest, "archive", origin)
        if claimed is None:
            old = arrivals.get(self.settings, digest)
            if old is None or arrivals.location(self.settings, old) != folder:
                shutil.rmtree(home, ignore_errors=True)
            if old is not None and old.origin in ("", named(packed.digest, old.task)):
                arrivals.update(self.settings, digest, origin=origin)

    def _unpack(self, path: Path, home: Path, known: _Known) -> Path:
        """Unpack an archive; what came out of one that was written to meanwhile is no task."""
        from clr.data.archive import unpack

        fresh = not home.exists()
        try:
            return unpack(path, home, self.settings)
        finally:
            if fresh and listed(path).stamp != known.listing.stamp:
                shutil.rmtree(home, ignore_errors=True)
            self._require_same(path, known)

    def _claim(
        self, name: str, task: str, path: Path, digest: str, source: Source, origin: str = ""
    ) -> Arrival | None:
        old = arrivals.get(self.settings, digest)
        again = old is not None and old.left and old.fruitless
        new = arrivals.claim(self.settings, task, path, digest, source, origin=origin, again=again)
        if new is not None:
            LOG.info("arrived   %s (%s) %s", task, source, digest[:23])
        elif old is not None:
            self._say_known(name, old)
        return new

    def _say_known(self, name: str, old: Arrival) -> None:
        if name not in (self._at_start or ()):  # what lies there need not be told at every start
            said = f"{old.task}, {old.state} {_version(old)}".rstrip()
            LOG.info("incoming  %s is known already: %s", printable(name), said)

    def _tell(self, path: Path, message: str, fix: str, **data: str) -> None:
        """Say once what cannot be taken, in the log and in a record; it stays where it is."""
        digest = sha256_bytes(b"clr.arrival/name\0" + os.fsencode(path.name))
        error = UsageError(message, fix=fix, **{key: printable(one) for key, one in data.items()})
        old = arrivals.get(self.settings, digest)
        if old is None or old.left:
            self._refuse(digest, "", path, "folder", error, None)

    def _refuse(
        self, digest: str, task: str, path: Path, source: Source, error: ClrError,
        place: Path | None,
    ) -> None:  # fmt: skip
        shown = Path(printable(str(path)))
        result = {"verdict": "data-refused", "task": task or None, **error.as_dict()}
        if place is not None:
            result["reports"] = {
                "quarantine": str(place), "message": str(place / "message.txt"),
            }  # fmt: skip
        arrivals.claim(self.settings, task, shown, digest, source, origin="", again=True)
        arrivals.update(self.settings, digest, state="refused", result=result)
        LOG.warning("refused   %s", error)

    def _require_same(self, path: Path, known: _Known) -> None:
        """See that nothing changed while it was read; else it is looked at again."""
        now = listed(path)
        if now.stamp != known.listing.stamp:
            known.listing, known.since = now, time.monotonic()
            raise _GoneError

    def _all(self) -> list[Arrival]:
        return arrivals.read_all(self.settings)

    def _left(self, known: _Known) -> None:
        """An archive was taken away: the same again is a new arrival if this one came to nothing.

        Its record names what was unpacked, so that this can be seen only here.
        """
        origins = known.packed.origins if known.packed else ()
        for one in self._all() if origins else ():
            if one.origin in origins and one.fruitless:
                arrivals.update(self.settings, one.digest, left=True)

    def _mark_left(self) -> None:
        """What a folder held is left once the folder is gone, or something else came in there."""
        folders = [one for one in self._all() if one.source == "folder"]
        last = {one.path: one.digest for one in folders}
        for one in folders:
            there = last[one.path] == one.digest and arrivals.location(self.settings, one).exists()
            if one.fruitless and not one.left and not there:
                arrivals.update(self.settings, one.digest, left=True)

    def _tidy(self) -> None:
        """Remove what was unpacked for runs that have ended: ``data/`` holds it, or quarantine."""
        there = self.settings.unpacked
        homes = {path.name for path in there.iterdir()} if there.is_dir() else set()
        for one in self._all() if homes else ():
            path = arrivals.location(self.settings, one)
            ended = one.state in ("done", "refused")
            if ended and path.parent.parent == there and path.parent.name in homes:
                shutil.rmtree(path.parent, ignore_errors=True)


class _GoneError(Exception):
    """What was looked at changed, or went."""


def _version(arrival: Arrival) -> str:
    version = (arrival.result or {}).get("version")
    return f"as version {version}" if version else ""
