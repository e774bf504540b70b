"""Keep what was refused: the report, a message for people, and the images if they came in.

A refusal changes nothing else. Images are moved only out of the folder ``incoming``, so that
the next look at it does not find them again, and out of what was unpacked for this; from
anywhere else they stay where their owner put them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from clr.core.files import write_atomic
from clr.data.archive_names import suffix_of
from clr.data.folder import printable, task_name
from clr.data.manifest import Manifest, is_as_scanned
from clr.data.suite import Finding, Validation
from clr.errors import DataRefused, ServiceUnavailable
from clr.settings import Settings

MESSAGE = "message.txt"
IMAGES = "images"
ARCHIVE = "archive"


def quarantine(manifest: Manifest, validation: Validation, settings: Settings) -> Path:
    """Keep a refused task's report in ``quarantine/<task>/<UTC time>/``.

    The folder holds ``message.txt`` (all files by name, with reasons), ``validation.json``,
    ``data-docs/index.html`` and, where the task came in through ``incoming``, its images
    as ``images/``. It appears whole or not at all; images move last, in one rename, or, from
    another disk, are copied first and removed last. Images that are others by now, since their
    owner has replaced them, stay.

    Args:
        manifest: what was judged, and where.
        validation: what was found.
        settings: names the workspace.

    Returns:
        The new folder.

    Raises:
        UsageError: the task's name cannot name one.
        ServiceUnavailable: the workspace cannot be written; the images are where they were.
    """
    name, source = manifest.task, manifest.root
    home = settings.workspace.absolute() / "quarantine" / task_name(name)
    came_in = any(_came_in(source, place) for place in (settings.inbox, settings.unpacked))
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _partial(home) as partial:
            shutil.copytree(validation.html.parent, partial / "data-docs")
            shutil.copyfile(validation.json, partial / "validation.json")
            target = _free(home)
            moves = came_in and is_as_scanned(manifest)
            copied = moves and _copied(source, partial / IMAGES)
            where = f"Its images are in {printable(str(target / IMAGES if moves else source))}."
            if came_in and not moves:
                where = f"{printable(str(source))} has changed since it was judged: it stays there."
            _finish(partial, target, _message(validation, name, where))
        if copied:
            if is_as_scanned(manifest):  # still: what came in meanwhile is nowhere else
                shutil.rmtree(source)
        elif moves:
            shutil.move(source, target / IMAGES)
    except OSError as error:
        raise ServiceUnavailable(
            f"The refused task {name} cannot be put into quarantine: {error}.",
            fix=f"Make {home} writable, free some space, and run the same again.",
            task=name,
        ) from error
    return target


def quarantine_archive(archive: Path, name: str, refusal: DataRefused, settings: Settings) -> Path:
    """Move a refused archive into ``quarantine/<task>/<UTC time>/``, beside ``message.txt``.

    Args:
        archive: the file, in the folder ``incoming``.
        name: a name of a task that its report is kept under.
        refusal: why it was refused.
        settings: names the workspace.

    Returns:
        The new folder.

    Raises:
        UsageError: `name` cannot name a task.
        ServiceUnavailable: the workspace cannot be written; the archive is where it was.
    """
    home = settings.workspace.absolute() / "quarantine" / task_name(name)
    called = printable(archive.name)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _partial(home) as partial:
            target = _free(home)
            file = f"{ARCHIVE}{suffix_of(archive.name)}"
            kept, copied = target / file, _copied(archive, partial / file)
            lines = [
                f"The archive {called} was refused. Nothing else was changed.",
                f"It is in {printable(str(kept))}.",
                "",
                refusal.message,
                f"What to do: {refusal.fix}",
                "",
            ]
            _finish(partial, target, "\n".join(lines))
        if copied:
            archive.unlink()
        else:
            shutil.move(archive, kept)
    except OSError as error:
        raise ServiceUnavailable(
            f"The refused archive {called} cannot be put into quarantine: {error}.",
            fix=f"Make {home} writable and free some space; it is tried again.",
            task=name,
        ) from error
    return target


@contextmanager
def _partial(home: Path) -> Iterator[Path]:
    """Give a new folder in `home`, which does not stay there if what is done with it fails."""
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=home))
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _copied(source: Path, place: Path) -> bool:
    """Copy what lies on another disk, from which no rename brings it; say whether it does."""
    if source.lstat().st_dev == place.parent.stat().st_dev:
        return False
    if source.is_dir():
        shutil.copytree(source, place, symlinks=True)
    else:
        shutil.copy2(source, place)
    return True


def _finish(partial: Path, target: Path, message: str) -> None:
    write_atomic(partial / MESSAGE, message.encode())
    partial.chmod(0o755)
    partial.rename(target)


def _came_in(source: Path, incoming: Path) -> bool:
    """Whether `source` itself, not what a link names, lies in the folder `incoming`."""
    if source.is_symlink():
        return False
    real, inbox = source.resolve(), incoming.resolve()
    return real != inbox and real.is_relative_to(inbox)


def _free(home: Path) -> Path:
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    names = [time, *(f"{time}-{number}" for number in range(2, 1000))]
    return next(home / name for name in names if not (home / name).exists())


def _message(validation: Validation, name: str, where: str) -> str:
    parts = [
        f"The task {name} was refused. Nothing else was changed.",
        where,
        "",
        "What to do: correct the points below, then hand the folder in again.",
        "The same with tables: data-docs/index.html",
        "",
    ]
    for finding in validation.refused:
        parts += _told(finding, "must be corrected")
    for finding in validation.warnings:
        parts += _told(finding, "worth a look")
    return "\n".join(parts)


def _told(finding: Finding, weight: str) -> list[str]:
    lines = [f"  - {detail}" for detail in finding.details]
    return [f"{finding.name} ({weight}): {finding.message}", *lines, ""]
