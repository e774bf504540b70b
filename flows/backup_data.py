"""The part of a backup that is data: pinned, in DVC, come in, known to git, answered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clr.data import dvc, listing
from clr.data.repository import git_output, git_root
from clr.data.versioning import exclusive
from clr.errors import IntegrityBroken
from flows import databases, named

if TYPE_CHECKING:
    from clr.settings import Settings
    from flows.backup import Collection
    from flows.session import Session

FOLDERS = {
    ".dvc": frozenset({"cache", "tmp", "config.local"}),
    "quarantine": frozenset(),
    "mlflow": frozenset(),
}
"""Folders of a workspace, and what below them is left out or taken otherwise."""

FILES = (".dvcignore", ".gitignore", "clr.env")


def collect(got: Collection, session: Session) -> None:
    """Take the workspace's own files and every object of its data.

    ``data/`` itself is not taken: it is what ``data.dvc`` and DVC's objects say.

    Raises:
        IntegrityBroken: ``data.dvc`` is damaged, or a list of files is, in every place.
        ServiceUnavailable: git does not tell which files it has.
    """
    workspace = session.settings.workspace
    with exclusive(workspace):  # not while a version is being made
        got.file(workspace / "data.dvc", "workspace/data.dvc")
    for name, skip in FOLDERS.items():
        got.tree(workspace / name, f"workspace/{name}", skip)
    for name in FILES:
        got.file(workspace / name, f"workspace/{name}")
    inbox = session.settings.inbox
    if inbox.is_relative_to(workspace):
        got.tree(inbox, f"workspace/{inbox.relative_to(workspace).as_posix()}")
    else:
        got.left_out.append(f"the watched folder {inbox}")
    _seen_by_git(got, session)
    _objects(got, session)


def _seen_by_git(got: Collection, session: Session) -> None:
    """Take the working files that git tracks, or would: those it does not ignore."""
    workspace = session.settings.workspace
    if git_root(workspace) is None:
        return
    asked = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate")
    ours = [workspace / name for name in ("data", *FOLDERS)]
    ours += [session.settings.state, got.store.folder]
    for path in filter(None, git_output(workspace, *asked).split("\0")):
        file = workspace / path
        if not any(file.is_relative_to(one) for one in ours) and "\ufffd" not in path:
            got.file(file, f"workspace/{path}")


@dataclass(frozen=True)
class _Sources:
    """Where an object's bytes may be: folders of objects, and files of ``data/`` by md5."""

    places: list[Path]
    files: dict[str, Path]

    def find(self, oid: str) -> Path | None:
        """Return a file with the bytes of an object."""
        for path in [*(listing.object_path(one, oid) for one in self.places), self.files.get(oid)]:
            try:
                if path is not None and listing.md5_file(path) == oid.removesuffix(".dir"):
                    return path
            except OSError:
                continue
        return None


def _objects(got: Collection, session: Session) -> None:
    workspace = session.settings.workspace
    places = dvc.stores(session.settings)
    needed = {listing.pinned_oid(workspace)} | named.by_ledger(session)
    wanted, unknown = named.objects(needed, places)
    former, _ = named.objects(named.by_git(workspace) - needed, places)
    sources = _Sources(places, _pinned(workspace, places, got))
    for oid in sorted({*wanted, *former, *_there(places[0])}):
        source, path = listing.object_path(places[0], oid), f"cache/{oid[:2]}/{oid[2:]}"
        known = got.before.get(path)
        one = got.file(source, path)
        if one is not None and (known is not None and known.sha256 == one.sha256):
            continue
        if one is not None and listing.md5_file(got.store.object(one.sha256)) == _md5(oid):
            continue
        got.files.pop(path, None)
        better = sources.find(oid)
        if better is not None:
            got.file(better, path)
        elif not _fetched(got, session, oid, path) and oid in wanted | unknown:
            got.damaged.append(oid)


def _md5(oid: str) -> str:
    return oid.removesuffix(".dir")


def _there(cache: Path) -> set[str]:
    """Return every object of a cache; what DVC is just writing has another name."""
    places = (cache / "files" / "md5").glob("[0-9a-f][0-9a-f]/*")
    return {oid for path in places if listing.is_oid(oid := path.parent.name + path.name)}


def _pinned(workspace: Path, places: list[Path], got: Collection) -> dict[str, Path]:
    oid = listing.pinned_oid(workspace)
    for place in places:
        path = listing.object_path(place, oid)
        try:
            files = listing.read_listing(path.read_bytes(), oid)
        except (OSError, IntegrityBroken):
            continue
        return {md5: workspace / "data" / name for name, md5 in files.items()}
    got.left_out.append("files of data/ that only data/ has: the list of them is missing")
    return {}


def _fetched(got: Collection, session: Session, oid: str, path: str) -> bool:
    """Take an object from a remote that is no folder."""
    import hashlib

    from clr.data.objects import fetch_object

    if "://" not in dvc.remote_url(session.settings):
        return False
    with dvc.open_repo(session.settings) as repo:
        data = fetch_object(repo, oid)
    if data is None or hashlib.md5(data, usedforsecurity=False).hexdigest() != _md5(oid):
        return False
    got.files[path] = got.store.keep_bytes(data, path, 0o444)
    return True


def answers(got: Collection, settings: Settings) -> None:
    """Take the prediction server's answers; they name no file, and damage to them stops nothing.

    Raises:
        ServiceUnavailable: they stayed locked, or there is no room.
    """
    source, path = settings.state / databases.JOURNAL, f"state/{databases.JOURNAL}"
    if not source.is_file():
        return
    try:
        databases.copy_sqlite(source, got.temporary(path))
    except IntegrityBroken as error:
        got.temporary(path).unlink(missing_ok=True)
        got.left_out.append(f"the answers of the prediction server: {error.message}")
    else:
        got.taken(path)
