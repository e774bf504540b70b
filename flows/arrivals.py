"""What came in: one record for each content, from the moment it is seen to its result.

A record is a file ``CLR_HOME/arrivals/<16 hex of the digest>.json``. The same content under
the same name has the same digest (clr/data/content.py), whatever way it came: it is claimed
once, so that it starts one run.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from clr.core.files import canonical_json, write_atomic
from clr.errors import ServiceUnavailable, UsageError
from clr.settings import Settings

LOG = logging.getLogger("clr")
LOCK_SECONDS = 60.0
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

State = Literal["seen", "announced", "running", "done", "refused", "failed"]
Source = Literal["folder", "archive", "git", "command", "event"]
LIVE = frozenset({"seen", "announced", "running"})
"""States of what is still to be finished; the others are ends."""


@dataclass(frozen=True)
class Arrival:
    """One content that came in, and what has become of it.

    Attributes:
        digest: ``sha256:<64 hex>``, see `content_digest`.
        task: name of the task; empty where what came in has no name that can be one.
        path: its folder or file, relative to the workspace where it lies inside.
        source: how it came.
        seen_at: UTC, ISO 8601.
        announced_at: when Prefect's server last took its event; empty before.
        state: how far it is.
        attempts: how often it was announced.
        flow_run: id of the flow run that works, or worked, on it; empty before one is known.
        result: what ``clr onboard --json`` prints, or an error as `ClrError.as_dict` gives it.
        origin: `Packed.origin` of the archive, or the commit, that it came in; empty for a folder.
        left: what was refused has been taken away since: the same again is a new arrival.
    """

    digest: str
    task: str
    path: str
    source: Source
    seen_at: str
    announced_at: str = ""
    state: State = "seen"
    attempts: int = 0
    flow_run: str = ""
    result: dict[str, Any] | None = None
    origin: str = ""
    left: bool = False

    def __post_init__(self) -> None:
        if _DIGEST.fullmatch(self.digest) is None:
            raise UsageError(
                f"{self.digest!r} is no digest of a content.", fix="Give `sha256:` and 64 hex."
            )
        if self.state not in get_args(State) or self.source not in get_args(Source):
            raise UsageError(
                f"An arrival has no state {self.state!r} or source {self.source!r}.",
                fix=f"Use one of {', '.join(get_args(State) + get_args(Source))}.",
            )

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.state not in LIVE

    @property
    def fruitless(self) -> bool:
        """Whether it ended without a version that may be reviewed."""
        passed = (self.result or {}).get("verdict", "passed") == "passed"
        return self.finished and not (self.state == "done" and passed)


def claim(
    settings: Settings,
    task: str,
    path: Path,
    digest: str,
    source: Source,
    *,
    origin: str = "",
    again: bool = False,
) -> Arrival | None:
    """Make the record of a content, if nobody has; of many processes one succeeds.

    Args:
        settings: of the workspace.
        task: name of the task.
        path: its folder.
        digest: of its content.
        source: how it came.
        origin: the archive or commit that it came in.
        again: also where an earlier arrival of it is finished.

    Returns:
        The record, in state ``seen``; None where there is one already (see `get`).

    Raises:
        UsageError: no digest of a content.
        ServiceUnavailable: the records cannot be written.
    """
    shown = _shown(settings, path)
    new = Arrival(digest, task, shown, source, _now(), origin=origin)
    with _exclusive(settings) as folder:
        old = _read(_file(folder, digest))
        if old is not None and not (again and old.finished):
            return None
        _write(folder, new)
    return new


def update(
    settings: Settings, digest: str, *, expect: Collection[str] = (), **changes: Any
) -> Arrival | None:
    """Change fields of a record; a reader sees the old one or the new one.

    Args:
        settings: of the workspace.
        digest: of the content.
        expect: states in one of which it must be; empty: any.
        changes: fields and their new values.

    Returns:
        The record as it is now; None where there is none or it was in another state.

    Raises:
        UsageError: no such state.
        ServiceUnavailable: the records cannot be written.
    """
    with _exclusive(settings) as folder:
        old = get(settings, digest)
        if old is None or (expect and old.state not in expect):
            return None
        new = replace(old, **changes)
        if new != old:
            _write(folder, new)
    return new


def get(settings: Settings, digest: str) -> Arrival | None:
    """Return the record of a content, if there is one."""
    if _DIGEST.fullmatch(digest) is None:  # it may come from anywhere, and names a file
        return None
    found = _read(_file(_folder(settings), digest))
    return found if found is not None and found.digest == digest else None


def read_all(settings: Settings) -> list[Arrival]:
    """Return all records, in the order in which they came; a file is read once while unchanged."""
    found = []
    for file in _folder(settings).glob("*.json"):
        try:
            seen = file.stat()
        except OSError:
            continue
        stamp = (seen.st_mtime_ns, seen.st_ino, seen.st_size)
        kept = _KEPT.get(file)
        if kept is None or kept[0] != stamp:
            kept = _KEPT[file] = (stamp, _read(file))
        if kept[1] is not None:
            found.append(kept[1])
    return sorted(found, key=lambda one: (one.seen_at, one.digest))


_KEPT: dict[Path, tuple[tuple[int, int, int], Arrival | None]] = {}


def location(settings: Settings, arrival: Arrival) -> Path:
    """Return the absolute path of what came in."""
    return settings.workspace.absolute() / arrival.path


def digest_folder(settings: Settings, folder: Path, task: str) -> str:
    """Return the digest of a folder's content; files that did not change are not read again.

    Raises:
        ServiceUnavailable: something in it cannot be read.
    """
    from clr.data.content import content_digest

    try:
        return content_digest(folder, task, settings.state / "cache" / "content")
    except (OSError, RecursionError) as error:
        raise ServiceUnavailable(
            f"{folder} cannot be read: {error}.", fix="Make it readable for this user.", task=task
        ) from error


def confine(settings: Settings, path: Path | str, arrival: str = "") -> Path:
    """Return the absolute folder that a run may read, links resolved.

    Whoever can send an event names a path: only what came in, what was unpacked and the
    workspace's own folders are read for them. What somebody named on the command line of this
    machine is in a record of source ``command``, and may lie anywhere.

    Args:
        settings: of the workspace.
        path: absolute, or relative to the workspace.
        arrival: digest that the run was started with.

    Raises:
        UsageError: it lies elsewhere.
    """
    workspace = settings.workspace.resolve()
    try:
        real = (workspace / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise _elsewhere(settings, path) from error
    known = get(settings, arrival) if arrival else None
    if known and known.source == "command" and real == location(settings, known).resolve():
        return real
    state = settings.state.resolve()
    inside = any(
        real != place and real.is_relative_to(place)
        for place in (settings.inbox.resolve(), settings.unpacked.resolve())
    )
    if inside:
        return real
    own = real != workspace and real.is_relative_to(workspace)
    private = (state, workspace / ".git", workspace / ".dvc")
    if not own or any(real.is_relative_to(place) for place in private):
        raise _elsewhere(settings, path)
    return real


def _elsewhere(settings: Settings, path: Path | str) -> UsageError:
    from clr.data.folder import printable

    return UsageError(
        f"{printable(str(path))[:300]} is outside the folders that an event may name.",
        fix=f"Put the task below {settings.inbox}, or run `clr onboard PATH` on this machine.",
    )


def _shown(settings: Settings, path: Path) -> str:
    """Relative to the workspace where it lies inside: another machine may mount it elsewhere."""
    whole, workspace = path.absolute(), settings.workspace.absolute()
    return str(whole.relative_to(workspace) if whole.is_relative_to(workspace) else whole)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _folder(settings: Settings) -> Path:
    return settings.state / "arrivals"


def _file(folder: Path, digest: str) -> Path:
    return folder / f"{digest.removeprefix('sha256:')[:16]}.json"


def _read(file: Path) -> Arrival | None:
    """Return what a file says; a damaged one is none, and is written anew."""
    try:
        values = json.loads(file.read_bytes())
        names = {one.name for one in fields(Arrival)}
        return Arrival(**{name: value for name, value in values.items() if name in names})
    except (OSError, ValueError, TypeError, AttributeError, UsageError):
        return None


def _write(folder: Path, arrival: Arrival) -> None:
    write_atomic(_file(folder, arrival.digest), canonical_json(asdict(arrival)))


@contextmanager
def _exclusive(settings: Settings) -> Iterator[Path]:
    """Hold the records for a moment; the system frees them if this process dies.

    Raises:
        ServiceUnavailable: they cannot be written, or somebody holds them for a minute.
    """
    from filelock import FileLock, Timeout

    folder = _folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
            yield folder
    except (OSError, Timeout) as error:
        raise ServiceUnavailable(
            f"The records of what came in cannot be written: {error}.",
            fix=f"Make {folder} writable or free some space; nothing is lost, it is tried again.",
        ) from error
