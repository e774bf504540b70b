"""The objects of DVC's cache and remote: hash, add, push and look whether they are there.

Sources: DVC 3.67, `dvc/repo/add.py`, `dvc_data/hashfile/{build,state,db,transfer}`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from clr.data.dvc import REMOTE
from clr.data.dvc_calls import patiently, translated
from clr.data.listing import Listing, md5_file
from clr.errors import ServiceUnavailable, UsageError

if TYPE_CHECKING:
    from dvc_data.hashfile.tree import Tree

LOG = logging.getLogger("clr")


def hashes(repo: Any) -> Listing:
    """Return the files of ``data/`` as they are now; only new and changed ones are read.

    DVC's state database knows the md5 of every file whose inode, size and time of
    change are as they were.

    Raises:
        ServiceUnavailable: a file cannot be read.
    """
    from dvc_data.hashfile.build import build

    folder = str(Path(repo.root_dir) / "data")

    def collect() -> Listing:
        _, _, tree = build(
            repo.cache.local, folder, repo.fs, "md5", dry_run=True, ignore=repo.dvcignore
        )
        return {"/".join(key): found.value for key, _, found in cast("Tree", tree)}

    with translated("read data/", Path(repo.root_dir)):
        return collect()


def add(repo: Any) -> None:
    """Copy what is new in ``data/`` to DVC's cache and pin the folder in ``data.dvc``.

    Raises:
        ServiceUnavailable: DVC's lock stays taken, the disk is full, …
    """
    folder = str(Path(repo.root_dir) / "data")
    # relink=False: nothing in data/ is replaced by a link to the cache or by a new copy
    patiently(lambda: repo.add(folder, relink=False), "version data/ with DVC", Path(repo.root_dir))


def drop_corrupt(repo: Any, oids: Collection[str]) -> list[str]:
    """Remove those of these objects from the cache whose bytes are not their name's.

    DVC trusts whatever lies read-only in its cache; `add` writes a removed one again.

    Returns:
        The objects removed.
    """
    dropped = []
    for oid in sorted(oids):
        path = cache_path(repo, oid)
        if path.is_file() and md5_file(path) != oid.removesuffix(".dir"):
            path.unlink()
            dropped.append(oid)
    if dropped:
        LOG.warning("version   %d corrupt objects in DVC's cache written again", len(dropped))
    return dropped


def cache_path(repo: Any, oid: str) -> Path:
    """Return the file of an object in the cache."""
    return Path(repo.cache.local.oid_to_path(oid))


def open_remote(repo: Any) -> Any:
    """Return the object store of the remote; nothing is sent yet.

    Raises:
        UsageError: DVC knows no such remote, or lacks the package for it.
    """
    from dvc.config import ConfigError

    try:
        return repo.cloud.get_remote_odb(REMOTE, "push")
    except (ImportError, ConfigError) as error:
        raise UsageError(
            f"The setting CLR_DVC_REMOTE cannot be used: {error}.",
            fix="Install what it needs (for s3:// the extra `s3`), or correct it.",
            setting="CLR_DVC_REMOTE",
        ) from error


def push(repo: Any, oids: Collection[str]) -> None:
    """Bring these objects to the remote and see that they have arrived.

    Not `dvc push`: it takes the files of a folder object that it pushed once for
    present for ever, and so never restores one that was lost.

    Raises:
        ServiceUnavailable: the remote cannot be reached, lacks room, or lacks an
            object after all.
    """
    remote = open_remote(repo)
    with translated("reach the DVC remote", Path(repo.root_dir), any_error=True):
        missing = _missing(repo, remote, oids)
        if missing:
            # folder objects last: they promise that their files are there
            for part in (
                [oid for oid in missing if not oid.endswith(".dir")],
                [oid for oid in missing if oid.endswith(".dir")],
            ):
                paths = [str(cache_path(repo, oid)) for oid in part]
                remote.add(paths, repo.cache.local.fs, part, check_exists=False)
            missing = _missing(repo, remote, missing)
    if missing:
        raise ServiceUnavailable(
            f"The DVC remote {remote.path} lacks {len(missing)} objects after the push.",
            fix="See whether it has room and keeps what is written to it; then run the same again.",
            objects=missing[:20],
        )


def _missing(repo: Any, remote: Any, oids: Collection[str]) -> list[str]:
    """Those that the remote lacks; in a folder also those whose size is wrong (removed)."""
    if remote.fs.protocol != "local":
        present = set(remote.oids_exist(sorted(oids)))
        return [oid for oid in sorted(oids) if oid not in present]
    missing = []
    for oid in sorted(oids):
        there = Path(remote.oid_to_path(oid))
        try:
            if there.stat().st_size == cache_path(repo, oid).stat().st_size:
                continue
            there.unlink()
        except FileNotFoundError:
            pass
        missing.append(oid)
    return missing


def fetch_object(repo: Any, oid: str) -> bytes | None:
    """Return an object's bytes from the cache, else from the remote, else None."""
    path = cache_path(repo, oid)
    if path.is_file():
        return path.read_bytes()
    try:
        remote = repo.cloud.get_remote_odb(REMOTE, "fetch")
        content: bytes = remote.fs.fs.cat_file(remote.oid_to_path(oid))
        return content
    except Exception as error:
        # whatever the remote's library raises, the answer is: not to be had
        LOG.debug("version   %s is not in the remote: %s", oid, error)
        return None
