"""What identifies a task folder that came in: one digest of its name and of all its bytes."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from pathlib import Path

from clr.core.files import canonical_json, sha256_bytes, sha256_file, write_atomic
from clr.data.listing import walk

READY = "READY"
"""A file of this name in a task folder says that the folder is complete; it is no data."""

_DOMAIN = b"clr.arrival/1"
_RACY_NS = 2_000_000_000
"""A file changed so short before it was read may change again under the same times."""

_Kept = dict[str, list[object]]


def content_digest(folder: Path, task: str, cache: Path | None = None) -> str:
    """Return ``sha256:…`` of a task's name and of all paths and bytes of its folder.

    Hidden files, system clutter and the file ``READY`` do not count. A link counts as what
    it says, not as what it leads to. The name is part of it: the same pictures under another
    name are another task.

    Args:
        folder: the task folder.
        task: name of the task.
        cache: folder in which the digest of each file is kept by size, times and inode, so that
            the second time reads no file that did not change.

    Raises:
        OSError: a file or folder cannot be read.
    """
    known_file = cache / f"{sha256_bytes(os.fsencode(folder))[7:39]}.json" if cache else None
    known = _read(known_file) if known_file else {}
    kept: _Kept = {}
    found: dict[bytes, str] = {}
    for path, entry in walk(folder):
        if path == READY:
            continue
        name = os.fsencode(path)
        seen = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(seen.st_mode):
            found[name] = _special(folder / path, seen.st_mode)
            continue
        stamp = [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino, seen.st_dev]
        key = name.hex()
        old = known.get(key, [])
        digest = str(old[-1]) if old[:-1] == stamp else sha256_file(folder / path)
        found[name] = digest
        if time.time_ns() - max(seen.st_mtime_ns, seen.st_ctime_ns) > _RACY_NS:
            kept[key] = [*stamp, digest]
    if known_file and kept != known:
        write_atomic(known_file, canonical_json(kept))
    whole = hashlib.sha256(_DOMAIN + b"\0" + task.encode() + b"\0")
    for name in sorted(found):
        whole.update(name + b"\0" + found[name].encode() + b"\0")
    return f"sha256:{whole.hexdigest()}"


def _special(path: Path, mode: int) -> str:
    """A link, or what no task may hold, without opening it: that could wait for ever."""
    if stat.S_ISLNK(mode):
        return f"link:{os.fsencode(path.readlink()).hex()}"
    return f"special:{stat.S_IFMT(mode):o}"


def _read(file: Path) -> _Kept:
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    good = isinstance(values, dict) and all(isinstance(one, list) for one in values.values())
    return values if good else {}
