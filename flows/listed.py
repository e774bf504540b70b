"""Is what lies in ``incoming/`` complete? Told from its listing, without opening a file."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from clr.data.content import READY

_PARTIAL = (
    ".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".download", "~",
)  # fmt: skip
_RSYNC = re.compile(r"\..+\.[A-Za-z0-9]{6}")
_SAMPLE = 64
"""Files of a folder under a temporary name by which it is known again under its own."""

Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class Listing:
    """A file, or a folder with all that is in it, as the file system tells it at one moment.

    Attributes:
        stamp: digest of all paths, sizes, times and inodes; empty where it was gone.
        identity: device and inode.
        files: how many.
        ready: the file ``READY`` is there, and is the last that was written.
        moved: the folder itself was the last to change, and not by what came into it.
        unfinished: path of a file that a copying program has not yet given its name.
        sample: stamps of some files by path.
    """

    stamp: str
    identity: tuple[int, int] = (0, 0)
    files: int = 0
    ready: bool = False
    moved: bool = False
    unfinished: str = ""
    sample: dict[str, Stamp] = field(default_factory=dict)


GONE = Listing("")


def is_temporary(name: str) -> bool:
    """Say whether a name in ``incoming/`` is one that is still to be changed, or hidden."""
    return name.startswith(".") or name.lower().endswith(_PARTIAL)


def listed(path: Path) -> Listing:
    """Return the listing of a file or folder; links are not followed.

    A folder's time of change is no older than that of all in it, and newer than that of its own
    content, after a rename, and after a copying program has given the folder the times of the
    original, which it does last: else the copying of what is in it would set them anew.

    Raises:
        OSError: a folder in it cannot be listed.
    """
    try:
        top = path.lstat()
    except FileNotFoundError:
        return GONE
    whole = hashlib.sha256(repr(_stamp(top)[:3]).encode())
    newest, inside, ready, files, unfinished = 0, 0, 0, 0, ""
    sample: dict[str, Stamp] = {}
    if not stat.S_ISDIR(top.st_mode):
        return Listing(whole.hexdigest(), (top.st_dev, top.st_ino), 1, sample={"": _stamp(top)})
    waiting = [""]
    while waiting:
        below = waiting.pop()
        for entry in _entries(path / below):
            name = f"{below}/{entry.name}" if below else entry.name
            try:
                seen = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                whole.update(b"gone")  # it changes: what comes of it is seen next time
                continue
            stamp = _stamp(seen)
            whole.update(os.fsencode(name) + repr(stamp).encode())
            inside = max(inside, seen.st_ctime_ns)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(name)
                newest = max(newest, seen.st_mtime_ns)
            elif name == READY:
                ready = seen.st_ctime_ns
            else:
                newest = max(newest, seen.st_ctime_ns)
                files += 1
                if not unfinished and _unfinished(entry.name):
                    unfinished = name
                if len(sample) < _SAMPLE:
                    sample[name] = stamp
    return Listing(
        whole.hexdigest(),
        (top.st_dev, top.st_ino),
        files,
        ready=bool(ready) and ready >= newest,
        moved=top.st_ctime_ns >= inside and top.st_ctime_ns > top.st_mtime_ns,
        unfinished=unfinished,
        sample=sample,
    )


def is_renamed(before: Listing, now: Listing) -> bool:
    """Say whether `now` is surely what `before` was, under another name.

    The same inode does not prove it, which the system may have given to something new: files
    seen then must be there still, unchanged since. A folder's rename changes none of them.
    """
    if before.identity != now.identity or not before.sample:
        return False
    if "" in before.sample:  # a file: its own rename changes its time of change
        return before.sample[""][:3] == now.sample.get("", ())[:3]
    return any(now.sample.get(name) == stamp for name, stamp in before.sample.items())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _stamp(seen: os.stat_result) -> Stamp:
    return (seen.st_size, seen.st_mtime_ns, seen.st_ino, seen.st_ctime_ns)


def _unfinished(name: str) -> bool:
    return name.lower().endswith(_PARTIAL) or _RSYNC.fullmatch(name) is not None
