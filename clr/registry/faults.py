"""What MLflow, its database and its files can fail with, said as one of our errors."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from clr.errors import ClrError, IntegrityBroken, ServiceUnavailable

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS}
_DENIED = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
_DOWN = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}
_UNREACHABLE = (
    "ConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "Timeout",
    "MaxRetryError",
    "RetryError",
    "ChunkedEncodingError",
)


class RegistryDenied(ServiceUnavailable):
    """The registry is there, and refuses this user to do this."""


def redact(uri: str) -> str:
    """Return `uri` without user name and password, fit for messages."""
    try:
        parts = urlsplit(uri)
    except ValueError:  # no address at all, which may hold a password as well
        return uri.rpartition("@")[2]
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@contextmanager
def calling(uri: str, doing: str) -> Iterator[None]:
    """Turn failures of the registry at `uri` while `doing` something into our errors.

    Errors that are ours already, and errors that no circumstance explains (bugs),
    pass unchanged.

    Raises:
        ServiceUnavailable: unreachable, denied, no space, read-only, locked.
        IntegrityBroken: the database file is not one.
    """
    try:
        yield
    except ClrError:
        raise
    except Exception as error:
        known = explain(error, uri, doing)
        if known is None:
            raise
        raise known from error


def explain(error: BaseException, uri: str, doing: str) -> ClrError | None:
    """Return `error` as one of our errors, or None where it looks like a bug."""
    place = redact(uri)
    for link in _chain(error):
        found = _explain_one(link, place, doing)
        if found is not None:
            return found
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _explain_one(error: BaseException, place: str, doing: str) -> ClrError | None:
    if isinstance(error, OSError) and error.errno in _NO_SPACE | _NO_WRITE:
        return _explain_os(error, place, doing)
    text, served = str(error), place.startswith("http")
    if not served and (found := _explain_database(text, place, doing)) is not None:
        return found
    names = {kind.__name__ for kind in type(error).__mro__}
    code = str(getattr(error, "error_code", ""))
    status = getattr(getattr(error, "response", None), "status_code", None)
    if code in _DENIED or status in (401, 403):
        return RegistryDenied(
            f"The registry {place} did not allow: {doing}. It says: {_short(text)}",
            fix="Ask its administrator for the right to do this, or set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a user who has it.",
            registry=place,
        )
    if names.intersection(_UNREACHABLE) or "Max retries exceeded" in text:
        return unreachable(place, doing, text)
    failed = code in _DOWN or (served and code == "INTERNAL_ERROR")
    if failed or (isinstance(status, int) and status >= 500):
        return ServiceUnavailable(
            f"The registry {place} failed while doing this: {doing}. It says: {_short(text)}",
            fix="Look at its log, then run the same command again: what was done is kept.",
            registry=place,
        )
    return None


def unreachable(place: str, doing: str, why: str, *, own: bool = False) -> ServiceUnavailable:
    """Return the error of a registry server that does not answer.

    Args:
        place: its address.
        doing: what was being done.
        why: what the network said.
        own: whether it is the server that was once started in this workspace.
    """
    fix = "Start it (`clr up registry`)"
    if not own:
        fix += ", correct CLR_REGISTRY_URL, or unset it to use this workspace's own registry"
    return ServiceUnavailable(
        f"The registry {redact(place)} does not answer ({doing}): {_short(why)}",
        fix=f"{fix}; then run the same command again.",
        registry=redact(place),
    )


def _explain_os(error: OSError, place: str, doing: str) -> ServiceUnavailable:
    path = error.filename2 or error.filename  # of a copy the second is where it went
    where = f" {path}" if path else ""
    if error.errno in _NO_SPACE:
        return ServiceUnavailable(
            f"No space left{where and ' for' + where} ({doing}).",
            fix="Free space there, or set CLR_HOME to a larger disk; then run the same command "
            "again: what was done is kept.",
            registry=place,
        )
    return ServiceUnavailable(
        f"No right to write{where} ({doing}): {error.strerror}.",
        fix="Make it writable for this user, or set CLR_HOME to a folder that is.",
        registry=place,
    )


def _explain_database(text: str, place: str, doing: str) -> ClrError | None:
    for marks, kind, message, fix in _DATABASE:
        if any(mark in text.lower() for mark in marks):
            said = message.format(place=place, doing=doing)
            return kind(said, fix=fix.format(place=place), registry=place)
    return None


_DATABASE: tuple[tuple[tuple[str, ...], type[ClrError], str, str], ...] = (
    (
        ("database or disk is full", "disk i/o error"),
        ServiceUnavailable,
        "No space left, or a failing disk, for the registry {place} ({doing}).",
        "Free space there, then run the same command again: what was done is kept.",
    ),
    (
        ("readonly database", "unable to open database file"),
        ServiceUnavailable,
        "The registry {place} cannot be written by this user ({doing}).",
        "Make its file and folder writable, or set CLR_HOME to a folder that is.",
    ),
    (
        ("database is locked",),
        ServiceUnavailable,
        "The registry {place} is locked by another process ({doing}).",
        "Wait for the other command to end, then run this one again; for several users at once "
        "start a server (`clr up registry`).",
    ),
    (
        ("file is not a database", "disk image is malformed"),
        IntegrityBroken,
        "The registry {place} is not a readable SQLite database ({doing}).",
        "Restore it from a backup, or move it away to start with an empty registry.",
    ),
    (
        ("out-of-date database schema",),
        ServiceUnavailable,
        "The registry {place} was written by another version of MLflow ({doing}).",
        "Back it up, then run `mlflow db upgrade {place}`.",
    ),
)


def _short(text: str, limit: int = 300) -> str:
    line = re.sub(r"\s+", " ", re.sub(r"://[^/@\s]*@", "://", text)).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"
