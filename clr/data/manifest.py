"""The manifest: one row for every file of a task, made by one parallel scan.

Everything that validation, versioning and the audit say about a task's images comes
from this table.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from PIL import Image

from clr.core.files import canonical_json, sha256_bytes
from clr.data.folder import SPLITS, TaskFolder, printable, unusable_name, visible
from clr.data.inspect import OUTSIDE, Look, UnreadableError, inspect, max_bytes, read_confined
from clr.errors import IntegrityBroken, ServiceUnavailable

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "clr.manifest/1"
TEST_EVERY = 5
"""Without a test folder, one distinct image in so many becomes a test image."""


@dataclass(frozen=True)
class Row(Look):
    """One file of a task: where it lies, and what it is (see `Look` for the rest).

    Attributes:
        path: POSIX path below the task folder.
        split: ``train`` or ``test``, as used, which may differ from the path's first part.
        label: name of its class folder; empty for a file outside all of them.
    """

    path: str = ""
    split: str = "train"
    label: str = ""

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or ".." in parts or parts[0] == "/" or self.split not in SPLITS:
            raise IntegrityBroken(
                f"A manifest row has the path {printable(self.path)!r} in the split "
                f"{printable(self.split)!r}.",
                fix="Scan the task folder again.",
            )


@dataclass(frozen=True)
class Manifest:
    """All files of a task.

    Attributes:
        task: the task's name.
        root: the folder that was scanned; not part of the digest.
        classes: declared classes, those without images too.
        split_made: whether the test split was made here, see `split_off_test`.
        rows: sorted by path.
        unused: folders that nothing reads.
        max_pixels: the limit that the scan applied.
    """

    task: str
    root: Path
    classes: tuple[str, ...]
    split_made: bool
    rows: tuple[Row, ...]
    unused: tuple[str, ...] = ()
    max_pixels: int = 50_000_000

    @property
    def train(self) -> int:
        """Number of usable training images."""
        return sum(row.split == "train" and not row.error for row in self.rows)

    @property
    def test(self) -> int:
        """Number of usable test images."""
        return sum(row.split == "test" and not row.error for row in self.rows)

    @cached_property
    def digest(self) -> str:
        """``sha256:…`` of the task's content: paths, splits, labels and bytes of all files.

        Measurements are left out, so that another decoder's grey levels do not change it.
        """
        files = [[row.path, row.split, row.label, row.sha256] for row in self.rows]
        return sha256_bytes(canonical_json([SCHEMA, list(self.classes), files]))

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a data frame with one column for each field of `Row`."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows], columns=_COLUMNS)

    def to_json(self) -> str:
        """Return the manifest as JSON (schema ``clr.manifest/1``)."""
        values = {
            "schema": SCHEMA,
            "task": self.task,
            "root": str(self.root),
            "classes": list(self.classes),
            "split_made": self.split_made,
            "unused": list(self.unused),
            "max_pixels": self.max_pixels,
            "digest": self.digest,
            "rows": [asdict(row) for row in self.rows],
        }
        return canonical_json(values).decode()

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Return the manifest that `to_json` wrote.

        Raises:
            IntegrityBroken: unknown schema, wrong fields, or another digest than it says.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            if values["schema"] != SCHEMA:
                raise IntegrityBroken(
                    f"Unknown manifest schema {printable(str(values['schema']))!r}.",
                    fix="Scan the task folder again.",
                )
            manifest = cls(
                task=values["task"],
                root=Path(values["root"]),
                classes=tuple(values["classes"]),
                split_made=values["split_made"],
                rows=tuple(Row(**row) for row in values["rows"]),
                unused=tuple(values["unused"]),
                max_pixels=values["max_pixels"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityBroken(
                f"The manifest is damaged: {printable(str(error))}.",
                fix="Scan the task folder again.",
            ) from error
        if manifest.digest != values["digest"]:
            raise IntegrityBroken(
                "The manifest's digest is not that of its rows.", fix="Scan the task folder again."
            )
        return manifest


_COLUMNS = ["path", "split", "label", *(field.name for field in fields(Look))]


def scan(
    task: TaskFolder,
    *,
    max_pixels: int,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Read, decode and measure every file of a task.

    A file that cannot be used is a row with a reason in `error`, not an exception.
    Hidden files and system clutter (``Thumbs.db``) are left out.

    Args:
        task: the folder.
        max_pixels: larger images are refused unread.
        workers: threads; one a core (at most 8) by default.
        on_progress: called as (files done, files) after every file, from this thread.

    Raises:
        ServiceUnavailable: the folder vanished or cannot be listed.
    """
    try:
        places = _places(task.root)
    except OSError as error:
        raise ServiceUnavailable(
            f"{printable(str(error.filename))} cannot be listed: {error.strerror}.",
            fix="Make it readable for this user and run the same again.",
        ) from error
    rows = []
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1), "clr-scan") as pool,
    ):
        # the limit of ours replaces Pillow's warning, which would be printed a file
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module="PIL")
        for row in pool.map(lambda place: _row(task.root, place, max_pixels), places):
            rows.append(row)
            if on_progress:
                on_progress(len(rows), len(places))
    rows.sort(key=lambda row: row.path)
    if not task.has_test:
        rows = list(split_off_test(rows))
    return Manifest(
        task=task.name,
        root=task.root,
        classes=task.classes,
        split_made=not task.has_test,
        rows=tuple(rows),
        unused=task.unused,
        max_pixels=max_pixels,
    )


def is_as_scanned(manifest: Manifest) -> bool:
    """Read the folder again and say whether it holds the manifest's files, byte by byte."""
    root, limit = manifest.root, max_bytes(manifest.max_pixels)
    expected = {row.path: row.sha256 for row in manifest.rows}
    try:
        places = _places(root)
    except OSError:
        return False
    if {place.path for place in places} != expected.keys():
        return False
    return all(_digest(root, place, limit) == expected[place.path] for place in places)


def _digest(root: Path, place: _Place, limit: int) -> str:
    """Digest of a file as in its row: empty where it is not read."""
    try:
        return "" if place.error else sha256_bytes(read_confined(root, place.relative, limit=limit))
    except UnreadableError:
        return ""


def split_off_test(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows with a stratified split that depends on the images' content alone.

    In each class, the distinct contents are ordered by sha256 and the first of every five
    goes to test. Copies of one content stay together, whatever their names and classes.
    Rows with an error stay in train.
    """
    rows = list(rows)
    contents: dict[str, set[str]] = {}
    for row in rows:
        if not row.error:
            contents.setdefault(row.label, set()).add(row.sha256)
    test: set[str] = set()
    seen: set[str] = set()
    for label in sorted(contents):
        test.update(sorted(contents[label] - seen)[::TEST_EVERY])
        seen |= contents[label]
    for row in rows:
        is_test = not row.error and row.sha256 in test
        yield replace(row, split="test" if is_test else "train")


@dataclass(frozen=True)
class _Place:
    """Where a file lies; `error` where it must not be opened."""

    relative: str
    split: str
    label: str
    error: str = ""

    @property
    def path(self) -> str:
        """As its row says it: what cannot be encoded as escapes."""
        return self.relative.encode("utf-8", "backslashreplace").decode()


def _places(root: Path) -> list[_Place]:
    return [place for split in SPLITS for place in _walk(root, split)]


def _walk(root: Path, split: str) -> Iterator[_Place]:
    """Yield every visible file of a split, at any depth below its class folder."""
    if not (root / split).is_dir():
        return
    pending = [split]
    while pending:
        folder = pending.pop()
        for entry in visible(root / folder):
            relative = f"{folder}/{entry.name}"
            error = unusable_name(entry.name)
            if entry.is_dir(follow_symlinks=False):
                if not error:
                    pending.append(relative)
                    continue
            elif entry.is_symlink() and Path(entry.path).is_dir():
                inside = Path(os.path.realpath(entry.path)).is_relative_to(root)
                error = error or ("is a link to a folder" if inside else OUTSIDE)
            elif folder == split:
                error = error or "lies outside the class folders"
            label = relative.split("/")[1] if folder != split else ""
            yield _Place(relative, split, label, error)


def _row(root: Path, place: _Place, max_pixels: int) -> Row:
    look = Look(error=place.error)
    if not place.error:
        try:
            data = read_confined(root, place.relative, limit=max_bytes(max_pixels))
            look = inspect(data, max_pixels=max_pixels)
        except UnreadableError as error:
            look = Look(error=str(error))
    return Row(path=place.path, split=place.split, label=place.label, **asdict(look))
