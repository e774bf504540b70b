"""What DVC says is in a folder: its ``.dir`` objects, read and written without DVC.

A ``.dir`` object is the JSON list of {md5, relpath} of a folder's files, sorted by
path; its own md5 names it. ``data.dvc`` names the object of all of ``data/``; the
entries below ``<task>/`` make the object of that task, byte for byte what
``dvc add`` of that folder alone would give (`dvc_data/hashfile/tree.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import yaml

from clr.core.files import write_atomic
from clr.data.folder import visible
from clr.errors import IntegrityBroken

Listing = dict[str, str]
"""Files of a folder: path below it (POSIX) to md5 (32 hex)."""

EMPTY_DIR = "d751713988987e9331980363e24189ce.dir"
EMPTY_DATA_DVC = f"""\
outs:
- md5: {EMPTY_DIR}
  size: 0
  nfiles: 0
  hash: md5
  path: data
"""

_OID = re.compile(r"[0-9a-f]{32}(\.dir)?")
_CHUNK = 1 << 20


def pinned_oid(workspace: Path) -> str:
    """Return the ``<32 hex>.dir`` that ``data.dvc`` pins.

    Raises:
        IntegrityBroken: it is missing, or has another form than DVC 3 writes for ``data/``.
    """
    path = workspace / "data.dvc"
    try:
        return _pinned(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        pass
    raise IntegrityBroken(
        f"{path} does not pin the folder data/ as DVC 3 writes it.",
        fix="Take it from git again, or from a backup; `dvc cache migrate` brings an older one up.",
        file=str(path),
    )


def is_oid(name: str) -> bool:
    """Say whether `name` can be that of an object: ``<32 hex>`` or ``<32 hex>.dir``."""
    return _OID.fullmatch(name) is not None


@lru_cache(maxsize=4)  # thousands of tasks ask for it
def _pinned(text: str) -> str:
    (out,) = yaml.safe_load(text)["outs"]
    oid: str = out["md5"]
    if out["path"] == "data" and out.get("hash") == "md5" and oid.endswith(".dir"):
        return _checked_oid(oid)
    raise ValueError("not as DVC 3 writes it")


def _checked_oid(oid: str) -> str:
    if not is_oid(oid):
        raise ValueError(f"not an object id: {oid!r}")
    return oid


def _checked_path(path: str) -> str:
    parts = path.split("/")
    if "" in parts or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError(f"not a path below the folder: {path!r}")
    return path


def object_path(store: Path, oid: str) -> Path:
    """Return where a DVC cache or folder remote `store` keeps an object."""
    return store / "files" / "md5" / oid[:2] / oid[2:]


def read_listing(content: bytes, oid: str) -> Listing:
    """Return the files that a ``.dir`` object names.

    Raises:
        IntegrityBroken: its bytes are not those of `oid`, or it is no ``.dir`` object.
    """
    if hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir" == oid:
        try:
            files = {
                _checked_path(entry["relpath"]): _checked_oid(entry["md5"])
                for entry in json.loads(content)
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        else:
            return files
    raise IntegrityBroken(
        f"DVC's object {oid} is corrupt.",
        fix="Delete it from the cache and run `dvc pull` to fetch it again.",
        object=oid,
    )


def of_task(listing: Mapping[str, str], task: str) -> Listing:
    """Return the files below ``<task>/``, with that prefix cut."""
    prefix = f"{task}/"
    return {
        path.removeprefix(prefix): md5 for path, md5 in listing.items() if path.startswith(prefix)
    }


def dir_object(listing: Mapping[str, str]) -> tuple[str, bytes]:
    """Return (oid, bytes) of the ``.dir`` object of these files."""
    entries = [{"md5": listing[path], "relpath": path} for path in sorted(listing)]
    content = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir", content


def keep_object(path: Path, content: bytes) -> None:
    """Write a ``.dir`` object into a cache, read-only as DVC does; an intact one stays.

    Raises:
        OSError: it cannot be written.
    """
    if path.is_file() and path.read_bytes() == content:
        return
    write_atomic(path, content)
    path.chmod(0o444)


def walk(folder: Path, below: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield (path below the folder, entry) of all but folders, clutter and hidden files.

    A link is yielded and never followed. A folder that is not there has no files.

    Raises:
        OSError: a folder cannot be listed.
    """
    if not below and not folder.is_dir():
        return
    for entry in visible(folder / below):
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from walk(folder, path)
        else:
            yield path, entry


def links(folder: Path) -> list[str]:
    """Return the links below a folder: DVC would follow them, to wherever they lead."""
    return [path for path, entry in walk(folder) if entry.is_symlink()]


def md5_file(path: Path) -> str:
    """Return the md5 (32 hex) of a file's bytes: DVC's name for it, not a security promise.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def md5_and_sha256(path: Path) -> tuple[str, str]:
    """Return the md5 (32 hex) and the ``sha256:<hex>`` of a file, which is read once.

    Raises:
        OSError: it cannot be read.
    """
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
    return md5.hexdigest(), f"sha256:{sha256.hexdigest()}"
