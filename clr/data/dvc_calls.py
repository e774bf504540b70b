"""Calls into DVC: quiet, patient, and what they raise told in one sentence.

It is imported here, inside functions: that takes a second.

Source: DVC 3.67, `dvc/ui/__init__.py`, `dvc/lock.py`.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from clr.errors import ClrError, ServiceUnavailable

LOG = logging.getLogger("clr")
LOCK_SECONDS = 600.0

_T = TypeVar("_T")
_QUIET = ("dvc", "dvc_data", "dvc_objects")
_TELLING = ("dvc_data.hashfile.transfer", "dvc_objects.fs.generic")
"""Loggers that say why a single file failed; DVC raises only how many did."""


def patiently(act: Callable[[], _T], what: str, workspace: Path) -> _T:
    """Return ``act()``; while another process holds DVC's lock, try again.

    Raises:
        ServiceUnavailable: the lock was not free in LOCK_SECONDS, or DVC failed.
    """
    from dvc.lock import LockError

    deadline = time.monotonic() + LOCK_SECONDS
    with translated(what, workspace):
        while True:
            try:
                return act()
            except LockError as error:
                if time.monotonic() > deadline:
                    raise ServiceUnavailable(
                        f"Another process has held DVC's lock for {LOCK_SECONDS:.0f} s.",
                        fix=f"See which dvc process still runs in {workspace}, then run again.",
                    ) from error
                LOG.info("version   waiting for another process that uses DVC")


@contextmanager
def translated(what: str, workspace: Path, *, any_error: bool = False) -> Iterator[None]:
    """Turn what DVC raises into ServiceUnavailable with the reason in one sentence.

    Args:
        what: what the body does, as in "cannot …".
        workspace: named in the error.
        any_error: also what a remote's library raises, which has no common base.
    """
    load()
    from dvc.exceptions import DvcException
    from dvc_data.hashfile.build import IgnoreInCollectedDirError
    from dvc_objects.errors import ObjectDBError
    from scmrepo.exceptions import SCMError

    known: tuple[type[Exception], ...] = (
        DvcException,
        IgnoreInCollectedDirError,
        ObjectDBError,
        SCMError,
        OSError,
        sqlite3.Error,
    )
    if any_error:
        known = (Exception,)
    with _remembered_failures() as failures:
        try:
            yield
        except ClrError:
            raise
        except known as error:
            reason = next((text for text in failures if text), _reason(error))
            raise ServiceUnavailable(
                f"Cannot {what}: {reason}.",
                fix="Free some space, make the workspace writable or the remote reachable, "
                "then run the same again; it goes on where it stopped.",
                workspace=str(workspace),
            ) from error


def _reason(error: BaseException) -> str:
    """The system's own words where there are some below DVC's."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            return f"{below.strerror} ({below.filename})" if below.filename else below.strerror
        below = below.__cause__ or below.__context__
    return str(error).strip().rstrip(".") or type(error).__name__


@contextmanager
def _remembered_failures() -> Iterator[list[str]]:
    reasons: list[str] = []

    class Remember(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1] is not None:
                reasons.append(_reason(record.exc_info[1]))

    handler = Remember(logging.ERROR)
    for name in _TELLING:
        logging.getLogger(name).addHandler(handler)
    try:
        yield reasons
    finally:
        for name in _TELLING:
            logging.getLogger(name).removeHandler(handler)


def load() -> None:
    """Import DVC, but leave the terminal alone: stdout belongs to ``--json``.

    It would wrap stdout and stderr (colorama), log hints to stdout and show spinners.
    """
    if "dvc" in sys.modules:
        return
    streams = sys.stdout, sys.stderr
    from dvc.ui import ui

    sys.stdout, sys.stderr = streams
    ui.rich_console.quiet = ui.error_console.quiet = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in _TELLING:
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
