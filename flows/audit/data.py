"""The images of one version: are the bytes that are here still those of its digest?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clr.audit.claims import BrokenLink
from clr.errors import IntegrityBroken

if TYPE_CHECKING:
    from clr.data.listing import Listing
    from clr.data.manifest import Manifest
    from clr.settings import Settings

FETCH = "Fetch the file again with `dvc pull`, or from a backup."


@dataclass(frozen=True)
class Look:
    """What was seen of a version's data.

    Attributes:
        manifest: of the images; None where it is missing or no manifest.
        same_bytes: whether all files are the recorded ones; None: they are not on this machine.
        findings: what is wrong.
        notes: (subject, message) of what is worth knowing.
    """

    manifest: Manifest | None
    same_bytes: bool | None
    findings: tuple[BrokenLink, ...]
    notes: tuple[tuple[str, str], ...]


def look(settings: Settings, task: str, digest: str, manifest_json: bytes) -> Look:
    """Hash the files of a version wherever they are: ``data/``, DVC's cache, a folder remote.

    Args:
        settings: of the workspace.
        task: task name.
        digest: ``md5:<32 hex>.dir``.
        manifest_json: the manifest kept with the run; empty where it is missing.
    """
    from clr.data.check import version_files

    manifest, damaged = _manifest(task, manifest_json)
    subject = f"data/{task}"
    try:
        files = version_files(settings, task, digest) if digest else None
    except IntegrityBroken as error:
        wrong = BrokenLink("data", subject, "changed", error.message, FETCH)
        return Look(manifest, False, (*damaged, wrong), ())
    if files is None:
        return Look(manifest, None, damaged, ((subject, _absent(digest)),))
    seen = _Seen(subject, files)
    for place, paths in _places(settings, task, digest, files).items():
        seen.look_at(place, paths)
    if not seen.good and not seen.findings:
        return Look(manifest, None, damaged, ((subject, _absent(digest)),))
    findings = [*damaged, *seen.findings, *seen.lost()]
    if manifest is not None:
        findings += _against_manifest(subject, manifest, seen.good, files)
    same = not any(one.link == "data" for one in findings)
    return Look(manifest, same, tuple(findings), tuple(seen.notes()))


def _absent(digest: str) -> str:
    return f"The files of {digest or 'this version'} are not on this machine: none was hashed."


def _manifest(task: str, text: bytes) -> tuple[Manifest | None, tuple[BrokenLink, ...]]:
    from clr.data.manifest import Manifest

    if not text:
        return None, ()
    try:
        return Manifest.from_json(text.decode("utf-8", "replace")), ()
    except (IntegrityBroken, json.JSONDecodeError) as error:
        message = error.message if isinstance(error, IntegrityBroken) else str(error)
        return None, (BrokenLink("images", f"data/{task}", "changed", message),)


def _places(
    settings: Settings, task: str, digest: str, files: Listing
) -> dict[str, dict[str, Path]]:
    """Return where each file can be, by place: the working copy, DVC's cache, a folder remote."""
    from clr.data import dvc, listing
    from clr.data.check import task_digests

    workspace = settings.workspace.absolute()
    found: dict[str, dict[str, Path]] = {}
    try:
        pinned = task_digests(workspace).get(task) == digest
    except IntegrityBroken:
        pinned = False
    if pinned:
        found["data/"] = {path: workspace / "data" / task / path for path in files}
    for name, store in zip(("DVC's cache", "DVC's remote"), dvc.stores(settings), strict=False):
        found[name] = {path: listing.object_path(store, md5) for path, md5 in files.items()}
    return found


class _Seen:
    """What was found of each file so far."""

    def __init__(self, subject: str, files: Mapping[str, str]) -> None:
        self._subject, self._files = subject, files
        self._missing: dict[str, int] = {}
        self.good: dict[str, str] = {}
        self.findings: list[BrokenLink] = []

    def look_at(self, place: str, paths: Mapping[str, Path]) -> None:
        """Hash the files of one place; `good` gets path to ``sha256:…`` of right bytes."""
        from clr.data.listing import md5_and_sha256

        for path, file in sorted(paths.items()):
            try:
                md5, sha256 = md5_and_sha256(file)
            except OSError:
                self._missing[place] = self._missing.get(place, 0) + 1
                continue
            if md5 == self._files[path]:
                self.good[path] = sha256
                continue
            subject = f"{self._subject}/{path}"
            message = f"{subject} has other bytes in {place}: md5 {md5}, not {self._files[path]}."
            self.findings.append(BrokenLink("data", subject, "changed", message, FETCH))

    def lost(self) -> Iterator[BrokenLink]:
        """Yield the files of which no place has the right bytes."""
        told = {one.subject for one in self.findings}
        for path in sorted(self._files.keys() - self.good.keys()):
            subject = f"{self._subject}/{path}"
            if subject not in told:
                message = f"{subject} is missing everywhere on this machine."
                yield BrokenLink("data", subject, "missing", message, FETCH)

    def notes(self) -> Iterator[tuple[str, str]]:
        """Yield which places lack files that another place has."""
        for place, count in self._missing.items():
            of = len(self._files)
            yield self._subject, f"{count} of {of} files are not in {place}; another place has them"


def _against_manifest(
    subject: str, manifest: Manifest, good: Mapping[str, str], files: Mapping[str, str]
) -> Iterator[BrokenLink]:
    """Yield where the manifest, which validation judged, and the pinned files differ."""
    from clr.data.folder import TASK_FILE

    judged = {pinned_path(row.split, row.path): row.sha256 for row in manifest.rows}
    for path in sorted(judged.keys() ^ (files.keys() - {TASK_FILE})):
        where = "the manifest, but not in the data" if path in judged else "the data, unvalidated"
        message = f"{subject}/{path} is in {where}."
        yield BrokenLink("images", f"{subject}/{path}", "differs", message)
    for path, sha256 in sorted(judged.items()):
        if good.get(path, sha256) != sha256:
            message = f"{subject}/{path} is {good[path]}, but {sha256} in the manifest."
            yield BrokenLink("images", f"{subject}/{path}", "differs", message)


def pinned_path(split: str, path: str) -> str:
    """Return where an image of the manifest lies below ``data/<task>``."""
    return f"{split}/{path.split('/', 1)[1]}"
