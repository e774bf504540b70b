"""What a command prints: one JSON document or text on stdout, everything else on stderr."""

from __future__ import annotations

import errno
import json
import logging
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from clr.errors import ClrError, ServiceUnavailable

LOG = logging.getLogger("clr")


def note(message: str) -> None:
    """Tell the person at the terminal something; on stderr, so that stdout stays clean."""
    _write(message, sys.stderr)


def _write(message: str, stream: TextIO) -> None:
    """Write lines that any terminal can show, whatever file names are in them.

    Control characters, which could rewrite the screen, and what the stream's encoding
    lacks become escapes.
    """
    safe = "".join(
        char if char.isprintable() or char in "\n " or ord(char) >= 0xA0 else _escape(char)
        for char in message
    )
    encoding = stream.encoding or "utf-8"
    stream.write(safe.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def emit(
    result: Any,
    as_json: bool,
    text: Callable[[Any], str],
    refusal: ClrError | None = None,
) -> None:
    """Print `result` as JSON or as `text(result)`, then end the command if it was refused."""
    _write(_document(result) if as_json else text(result), sys.stdout)
    if refusal is not None:
        _explain(refusal)
        raise SystemExit(refusal.exit_code)


def fail(error: ClrError, *, as_json: bool) -> None:
    """Explain an error: a sentence on stderr and, for machines, one object on stdout."""
    if as_json:
        _write(_document(error.as_dict()), sys.stdout)
    _explain(error)


def _document(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=not _speaks_unicode(), default=str)


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def _explain(error: ClrError) -> None:
    note(f"clr: {error.message}" + (f"\n     {error.fix}" if error.fix else ""))


def as_clr_error(error: Exception) -> ClrError:
    """Return `error` as one of ours: itself, the first of ours it came from, or a named bug."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ClrError):
            return cause
        if isinstance(cause, OSError) and cause.errno in _WORDS:
            where = f" ({cause.filename})" if cause.filename else ""
            return ServiceUnavailable(
                f"{_WORDS[cause.errno]}{where}.",
                fix="Put that right and run the same command again: it goes on where it stopped.",
            )
        cause = cause.__cause__ or cause.__context__
    return ClrError(
        f"Unexpected {type(error).__name__}: {error}",
        fix=f"This is a bug in clr; please report it with {_crash_report(error)}.",
    )


_WORDS = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk quota is used up",
    errno.EROFS: "The file system is read-only",
    errno.EACCES: "Permission denied",
    errno.EFBIG: "A file would pass the size limit",
}


def _crash_report(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    try:
        from clr.settings import load_settings

        folder = load_settings().state / "crashes"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.txt"
        path.write_text(text, encoding="utf-8")
    except Exception:
        note(text)
        return "the lines above"
    return str(path)


class _ToStderr(logging.Handler):
    """Write to what stderr is now, not to what it was when the handler was made."""

    def emit(self, record: logging.LogRecord) -> None:
        note(self.format(record))


def log_to_stderr() -> None:
    """Show this project's progress lines on stderr, with the time; once per process."""
    if any(isinstance(handler, _ToStderr) for handler in LOG.handlers):
        return
    handler = _ToStderr()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def workspace_path(path: Path, workspace: Path) -> str:
    """Return `path` relative to the workspace where it lies inside, else absolute."""
    return str(path.relative_to(workspace) if path.is_relative_to(workspace) else path)
