"""What a command prints: one JSON document or text on stdout, everything else on stderr."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from clr.errors import ClrError, ServiceUnavailable

LOG = logging.getLogger("clr")


def note(message: str) -> None:
    """Tell the person at the terminal something; on stderr, so that stdout stays clean.

    Where stderr takes nothing, as on a full disk, the work goes on unheard.
    """
    with suppress(OSError, ValueError):
        _write(message, sys.stderr)


def give_up() -> None:
    """Drop what stdout and stderr did not take: Python would end with 120 because of it."""
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            setattr(sys, name, None)


def _write(message: str, stream: TextIO | None) -> None:
    """Write lines that any terminal can show, whatever file names are in them.

    Control characters, which could rewrite the screen, and what the stream's encoding
    lacks become escapes. Whoever closed the stream (``>&-``) wants to hear nothing.
    """
    if stream is None:
        return
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


def asks_somebody() -> bool:
    """Say whether there is a person at a terminal, who can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()  # None: it was closed


def fail(error: ClrError, *, as_json: bool) -> None:
    """Explain an error: a sentence on stderr and, for machines, one object on stdout."""
    if as_json:
        _write(_document(error.as_dict()), sys.stdout)
    _explain(error)


def _document(value: Any) -> str:
    ascii_only = not _speaks_unicode()
    text = json.dumps(value, indent=2, ensure_ascii=ascii_only, default=str, allow_nan=False)
    # which JSON allows as they are, but no terminal should get
    return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _speaks_unicode() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")


def _explain(error: ClrError) -> None:
    note(f"clr: {error.message}" + (f"\n     {error.fix}" if error.fix else ""))


def as_clr_error(error: Exception) -> ClrError:
    """Return `error` as one of ours: itself, the first of ours it came from, or a named bug."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ClrError):
            return cause
        short = shortage(cause)
        if short is not None:
            return short
        if isinstance(cause, ModuleNotFoundError) and cause.name in _COMPUTE:
            return without(cause.name)
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


def without(name: str) -> ServiceUnavailable:
    """Return an error that says that a package is not here which only some images have."""
    return ServiceUnavailable(
        f"This needs {name}, which is not installed here; the image clr-server has none.",
        fix="In containers: docker compose exec release-service python -m flows.entry run clr …",
    )


def shortage(error: BaseException) -> ClrError | None:
    """Return an error that says the memory did not suffice; None where `error` is another.

    PyTorch has a class of its own for that on a GPU, and none on a CPU.
    """
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    named = named or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    told = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    if not (named or told):
        return None
    why = (str(error).splitlines() or [""])[0][:200]
    return ServiceUnavailable(
        f"Not enough memory{f': {why}' if why else '.'}",
        fix="Free some, or ask for less: recipe.batch_size and recipe.image_size in task.yaml, "
        "CLR_PARALLEL, CLR_IMAGE_CACHE_MB. The same command goes on where it stopped.",
    )


_COMPUTE = ("torch", "torchvision", "timm")
_WORDS = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk quota is used up",
    errno.EROFS: "The file system is read-only",
    errno.EACCES: "Permission denied",
    errno.EFBIG: "A file would pass the size limit",
    errno.EEXIST: "Something else stands where a folder belongs",
    errno.ENOTDIR: "A file stands where a folder belongs",
    errno.EISDIR: "A folder stands where a file belongs",
    errno.ENAMETOOLONG: "A name is too long",
    errno.ELOOP: "Links lead in a circle",
    errno.EMFILE: "Too many files are open for one process (see ulimit -n)",
    errno.ENFILE: "Too many files are open on this machine",
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


class _AsJson(logging.Formatter):
    """One object a line: {time, level, message, …}, with what `log_context` says."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time,
            "level": record.levelname,
            "message": record.getMessage(),
            **_CONTEXT.get(),
        }
        run = _flow_run()
        if run:
            line["flow_run"] = run
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


_CONTEXT: ContextVar[dict[str, str]] = ContextVar("log_context", default={})  # noqa: B039


@contextmanager
def log_context(**fields: str) -> Iterator[None]:
    """Add fields, as ``task`` and ``run``, to every line that is logged inside the block.

    Only ``CLR_LOG_FORMAT=json`` shows them. Nested blocks add to each other; an empty field
    says nothing. Threads started inside see them where they run in a copy of the context.
    """
    known = {name: value for name, value in fields.items() if value}
    before = _CONTEXT.set({**_CONTEXT.get(), **known})
    try:
        yield
    finally:
        _CONTEXT.reset(before)


def log_also(**fields: str) -> None:
    """Add fields to what the block of `log_context` around this says, until it ends."""
    _CONTEXT.set({**_CONTEXT.get(), **fields})


def _flow_run() -> str:
    """Return the id of Prefect's flow run that this is part of, without importing Prefect."""
    loaded = sys.modules.get("prefect.context")
    for kind in ("FlowRunContext", "TaskRunContext") if loaded else ():
        context = getattr(loaded, kind).get()
        run = getattr(context, "flow_run", None) or getattr(context, "task_run", None)
        found = getattr(run, "id" if kind == "FlowRunContext" else "flow_run_id", None)
        if found:
            return str(found)
    return os.environ.get("PREFECT__FLOW_RUN_ID", "")


@lru_cache(maxsize=1)
def logs_json() -> bool:
    """Say whether lines of the log are JSON (``CLR_LOG_FORMAT``); text where nothing says so."""
    from clr.settings import load_settings

    try:
        return load_settings().log_format == "json"
    except ClrError:  # told by the command itself
        return False


def passed_on(service: str, line: str) -> str:
    """Return a line of a service for the log that holds those of all.

    Text gets the name before it. In JSON it gets a field ``service``; what is not JSON, as the
    lines of a library, becomes the message of an object.
    """
    if not logs_json():
        return f"{service} | {line}"
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        said = {"time": time, "level": "INFO", "message": line}
    return json.dumps({**said, "service": service})


def log_to_stderr() -> None:
    """Show this project's progress lines on stderr, with the time; once per process."""
    if any(isinstance(handler, _ToStderr) for handler in LOG.handlers):
        return
    handler = _ToStderr()
    text = logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S")
    handler.setFormatter(_AsJson() if logs_json() else text)
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def workspace_path(path: Path, workspace: Path) -> str:
    """Return `path` relative to the workspace where it lies inside, else absolute."""
    return str(path.relative_to(workspace) if path.is_relative_to(workspace) else path)
