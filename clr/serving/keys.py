"""API keys of the prediction server: what one may do, and the file that holds them.

A key is ``clr_<id>_<secret>`` with a secret of 256 random bits. The file has the SHA-256 of the
whole key and nothing it could be made from. A plain hash is enough, and a slow one would be
worse: no list of likely secrets shortens a search among 2^256, so salt and stretching protect
nothing, but each call, a stranger's too, would cost the server the time of stretching.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError

SCHEMA = "clr.keys/1"
SCOPES = ("predict", "feedback", "metrics", "admin")
"""What keys may do; ``admin`` may do all."""

PREFIX = "clr"
METRICS_KEY = "CLR_SERVE_METRICS_KEY"
"""Environment variable of a key that only reads ``/metrics``, for Prometheus in a container."""

_ID = re.compile(r"[0-9a-f]{12}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_WRITTEN = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_[A-Za-z0-9_-]{{43}}")
_FOR = re.compile(r"([1-9]\d{0,4})([hd])")
_LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Key:
    """One API key, without its secret.

    Attributes:
        id: 12 hex digits, a part of the key that is no secret.
        name: whose it is; the journal and the ledger have it. One usable key a name.
        sha256: hex digest of the whole key.
        scopes: of `SCOPES`, sorted.
        tasks: the only ones it is for, sorted; empty: all.
        made: UTC, ISO 8601.
        expires: the same; empty: never.
        revoked: when; empty: it is not.
    """

    id: str
    name: str
    sha256: str
    scopes: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    made: str = ""
    expires: str = ""
    revoked: str = ""

    def __post_init__(self) -> None:
        """Raise UsageError where a field is not what it has to be."""
        from clr.data.folder import task_name

        object.__setattr__(self, "scopes", tuple(sorted(set(self.scopes))))
        object.__setattr__(self, "tasks", tuple(sorted(set(self.tasks))))
        if not _ID.fullmatch(self.id):
            raise UsageError(f"{self.id!r} is no id of a key.")
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} cannot be the name of a key.",
                fix="Use small letters, digits and -, at most 63.",
            )
        unknown = sorted(set(self.scopes) - set(SCOPES))
        if unknown or not self.scopes:
            raise UsageError(f"A key has scopes of {', '.join(SCOPES)}, not {unknown}.")
        for task in self.tasks:
            task_name(task)
        for time in (self.expires, self.revoked):
            if time and datetime.fromisoformat(time).tzinfo is None:
                raise UsageError(f"The time {time} of key {self.name} has no time zone.")

    def may(self, scope: str) -> bool:
        """Say whether it has a scope."""
        return scope in self.scopes or "admin" in self.scopes

    def covers(self, task: str) -> bool:
        """Say whether it is for a task."""
        return not self.tasks or task in self.tasks

    def has_expired(self, now: datetime) -> bool:
        """Say whether its time is over."""
        return bool(self.expires) and now >= datetime.fromisoformat(self.expires)


def make_key(
    name: str, scopes: Sequence[str], tasks: Sequence[str], expires: str, now: datetime
) -> tuple[Key, str]:
    """Return a new key, and as it is written: the only time that anybody sees it.

    Args:
        name: whose it is.
        scopes: of `SCOPES`.
        tasks: names of tasks; empty: all.
        expires: see `expiry`.
        now: with a time zone.

    Raises:
        UsageError: a name, scope or time is not one.
    """
    identity, written = new_written_key()
    key = Key(
        identity,
        name,
        digest(written),
        tuple(scopes),
        tuple(tasks),
        now.isoformat(timespec="seconds"),
        expiry(expires, now),
    )
    return key, written


def new_written_key() -> tuple[str, str]:
    """Return a new id, and a new key with it as it is written."""
    identity = secrets.token_hex(6)
    return identity, f"{PREFIX}_{identity}_{secrets.token_urlsafe(32)}"


def metrics_key(written: str) -> Key:
    """Return the key that is made outside of `clr keys`, and reads metrics alone.

    Raises:
        UsageError: it is not written like a key.
    """
    identity = id_of(written)
    if not identity:
        raise UsageError(
            f"{METRICS_KEY} is not written like an API key.",
            fix="Make one: python -m flows.entry secrets FOLDER writes serve.metrics.key.",
        )
    return Key(identity, "metrics", digest(written), ("metrics",))


def digest(written: str) -> str:
    """Return the SHA-256 of a key as it is written, in hex."""
    return hashlib.sha256(written.encode()).hexdigest()


def id_of(written: str) -> str:
    """Return the id in a key as it is written; empty where it is not written like a key."""
    match = _WRITTEN.fullmatch(written)
    return match[1] if match else ""


def expiry(text: str, now: datetime) -> str:
    """Return when a key expires: ``90d``, ``12h``, a date or a time, UTC; empty: never.

    Raises:
        UsageError: it is none of these, or is over already.
    """
    if not text:
        return ""
    match = _FOR.fullmatch(text)
    try:
        if match:
            hours = int(match[1]) * (24 if match[2] == "d" else 1)
            end = now + timedelta(hours=hours)
        else:
            end = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text!r} is no time.", fix="Write 90d, 12h, or a date such as 2027-12-31."
        ) from error
    end = end.replace(tzinfo=UTC) if end.tzinfo is None else end.astimezone(UTC)
    if end <= now:
        raise UsageError(f"{text} is over already.", fix="Give a time to come.")
    return end.isoformat(timespec="seconds")


def keys_path(state: Path) -> Path:
    """Return where an installation keeps its keys (`state` is ``CLR_HOME``)."""
    return state / "serving" / "keys.json"


def read_keys(path: Path) -> tuple[Key, ...]:
    """Return all keys, those that are revoked or expired, too; none where there is no file.

    Raises:
        IntegrityBroken: the file is not one of keys, or others may read or write it.
        ServiceUnavailable: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ServiceUnavailable(
            f"{path} cannot be read: {error.strerror}.",
            fix="Make it a file that this user may read, or restore it from a backup.",
        ) from error
    if mode & 0o077:
        raise IntegrityBroken(
            f"The file of keys {path} has mode {mode:04o}: others may read or write it.",
            fix=f"See who could have changed it, then run `chmod 600 {path}`.",
        )
    try:
        return _parse(json.loads(data))
    except (ValueError, TypeError, KeyError, UsageError) as error:
        raise IntegrityBroken(
            f"{path} is no file of keys: {error}.",
            fix="Restore it from a backup, or remove it and make new keys: clr keys add NAME.",
        ) from error


def _parse(document: Any) -> tuple[Key, ...]:
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']!r} is not {SCHEMA}")
    return tuple(Key(**one) for one in document["keys"])


def add_key(path: Path, key: Key, now: datetime) -> None:
    """Put a key into the file.

    Raises:
        UsageError: another key of its name can be used.
        IntegrityBroken: see `read_keys`.
        ServiceUnavailable: the file cannot be written, or is locked.
    """
    with _changing(path) as keys:
        refuse_taken(keys, key.name, now)
        _write(path, (*keys, key))


def refuse_taken(keys: Sequence[Key], name: str, now: datetime) -> None:
    """Raise UsageError where a key of this name can be used."""
    if any(one.name == name and not one.revoked and not one.has_expired(now) for one in keys):
        raise UsageError(
            f"There is a key {name} already.",
            fix=f"Choose another name, or revoke it first: clr keys revoke {name}",
        )


def revoke_key(path: Path, name: str, now: datetime) -> Key:
    """Make a key unusable for good and return it; one that is so already stays as it is.

    Args:
        path: of the file.
        name: or id of the key; of several of one name the newest.
        now: with a time zone.

    Raises:
        UsageError: there is none.
        IntegrityBroken: see `read_keys`.
        ServiceUnavailable: the file cannot be written, or is locked.
    """
    with _changing(path) as keys:
        found = next((one for one in reversed(keys) if name in (one.name, one.id)), None)
        if found is None:
            raise UsageError(f"There is no key {name}.", fix="`clr keys list` shows all.")
        if found.revoked:
            return found
        gone = replace(found, revoked=now.isoformat(timespec="seconds"))
        _write(path, tuple(gone if one is found else one for one in keys))
        return gone


@contextmanager
def _changing(path: Path) -> Iterator[tuple[Key, ...]]:
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
            yield read_keys(path)
    except Timeout as error:
        raise ServiceUnavailable(
            f"Another command changes {path}.", fix="Run this again when it has ended."
        ) from error
    except OSError as error:
        raise ServiceUnavailable(f"{path} cannot be written: {error.strerror}.") from error


def _write(path: Path, keys: Sequence[Key]) -> None:
    from clr.core.files import write_atomic

    document = {"schema": SCHEMA, "keys": [asdict(one) for one in keys]}
    write_atomic(path, json.dumps(document, indent=2).encode() + b"\n", 0o600)
