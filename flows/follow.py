"""`clr onboard` where `clr up` runs: a worker does it, the command follows and tells the result."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from clr import errors
from clr.errors import ClrError, Interrupted, ServiceUnavailable
from clr.settings import Settings
from flows import arrivals, output, prefect_api, running
from flows.announce import announce
from flows.arrivals import Arrival

LOG = logging.getLogger("clr")
Result = dict[str, Any]
LOOK_SECONDS = 1.0
PATIENCE = 60.0
"""Seconds without `clr up`, or without a flow run, after which the command says so."""

LAST_LINES_SECONDS = 6.0
"""How long the last lines of a run may take on their way: Prefect's client sends them in lots."""

_PAGE = 200


def is_possible(settings: Settings) -> bool:
    """Say whether `clr up` of this workspace runs Prefect's server, and no other is asked for."""
    known = running.find(settings)
    if known is None or not known.prefect:
        return False
    return os.environ.get(running.API, known.prefect).rstrip("/") == known.prefect.rstrip("/")


def onboard(settings: Settings, path: Path, name: str | None) -> Result:
    """Let a task arrive by command, and follow what a worker does with it to its end.

    Args:
        settings: of the workspace.
        path: task folder, anywhere on this machine.
        name: task name where the folder's is not one.

    Returns:
        what ``clr onboard --json`` prints.

    Raises:
        ClrError: see `begin`, `end` and `until_interrupted`.
    """
    with until_interrupted():
        return end(settings, begin(settings, path, name))


def begin(settings: Settings, path: Path, name: str | None) -> str:
    """Let a task arrive by command.

    A content that is finished already starts again: the flow answers that it is known. One that
    is being worked on is followed.

    Returns:
        digest of the arrival.

    Raises:
        UsageError, DataRefused: it is no task folder.
        ServiceUnavailable: it cannot be read, or the records cannot be written.
    """
    from clr.data.folder import read_task

    folder = read_task(path, name)
    digest = arrivals.digest_folder(settings, folder.root, folder.name)
    new = arrivals.claim(settings, folder.name, folder.root, digest, "command", again=True)
    if new is not None:
        try:
            announce(settings, new)
        except ServiceUnavailable as error:
            LOG.info("onboard   %s", error.message)  # the watcher tells it as soon as it can
    LOG.info(
        "onboard   a worker of clr up does %s; Ctrl-C ends the following, not the run", folder.name
    )
    return digest


def end(settings: Settings, digest: str) -> Result:
    """Follow an arrival to its end.

    Returns:
        what ``clr onboard --json`` prints.

    Raises:
        ClrError: what ended the flow.
        ServiceUnavailable: `clr up` ended meanwhile; the arrival waits for its next start.
    """
    return _result(_followed(settings, digest))


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Let Ctrl-C end the following alone.

    Raises:
        Interrupted: it was pressed; what has begun goes on.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            "No longer followed.",
            fix="What a worker has begun goes on; its result will be in `clr status`, and the "
            "same command follows it again.",
        ) from None


def _followed(settings: Settings, digest: str) -> Arrival:
    """Wait for the end of an arrival; show what its flow runs log."""
    logs = _Logs(settings)
    alive = quiet = time.monotonic()
    while True:
        known = arrivals.get(settings, digest)
        if known is None:
            raise ServiceUnavailable(
                "The record of this arrival is gone.", fix="Run the same command again."
            )
        logs.show(known.flow_run)
        if known.finished:
            logs.end(known.flow_run)
            return known
        now = time.monotonic()
        if running.find(settings) is not None:
            alive = now
        if now - alive > PATIENCE:
            raise ServiceUnavailable(
                "clr up has ended.",
                fix="Start it again: it goes on with this task by itself, and the same command "
                "follows it.",
                task=known.task,
            )
        if not known.flow_run and now - quiet > PATIENCE:
            LOG.info("onboard   %s waits for a free worker; see `clr status`", known.task)
            quiet = now
        time.sleep(LOOK_SECONDS)


def _has_ended(settings: Settings, run: str) -> bool:
    body = {"flow_runs": {"id": {"any_": [run]}}}
    try:
        return any(
            one["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            for one in prefect_api.post(settings, "/flow_runs/filter", body)
        )
    except ServiceUnavailable:
        return True


class _Logs:
    """The progress lines of a flow run, each shown once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._run, self._shown = "", 0

    def end(self, run: str) -> None:
        """Show the last lines: a result is told a moment before its run has ended."""
        end = time.monotonic() + LAST_LINES_SECONDS
        while run and not _has_ended(self._settings, run) and time.monotonic() < end:
            time.sleep(0.2)
        quiet_since, shown = time.monotonic(), self._shown
        while run and time.monotonic() < min(end, quiet_since + LOOK_SECONDS):
            time.sleep(0.2)
            self.show(run)
            if self._shown != shown:
                quiet_since, shown = time.monotonic(), self._shown

    def show(self, run: str) -> None:
        """Show what is new; a server that does not answer now is asked again."""
        if run != self._run:
            if self._run:
                LOG.info("onboard   started again as run %s", run)
            self._run, self._shown = run, 0
        while run:
            body = {
                "logs": {"flow_run_id": {"any_": [run]}, "level": {"ge_": logging.INFO}},
                "sort": "TIMESTAMP_ASC",
                "limit": _PAGE,
                "offset": self._shown,
            }
            try:
                lines = prefect_api.post(self._settings, "/logs/filter", body)
            except ServiceUnavailable:
                return
            self._shown += len(lines)
            for line in lines:
                if line["name"] == LOG.name:
                    at = datetime.fromisoformat(line["timestamp"]).astimezone()
                    output.note(f"{at:%H:%M:%S}  {line['message']}")
            if len(lines) < _PAGE:
                return


def _result(arrival: Arrival) -> Result:
    """Return the result of a finished arrival, or raise the error that ended it."""
    result = arrival.result or {}
    if "error" not in result or result.get("verdict"):
        if result:
            return result
        raise ClrError(
            f"The run {arrival.flow_run} of {arrival.task} ended without a result.",
            fix="Look at it in Prefect's UI, then run the same command again.",
        )
    data = {
        name: value
        for name, value in result.items()
        if name not in ("error", "message", "fix", "exit_code")
    }
    kind = getattr(errors, str(result["error"]), ClrError)
    if not (isinstance(kind, type) and issubclass(kind, ClrError)):
        kind = ClrError
    raise kind(str(result.get("message", "")), fix=str(result.get("fix", "")), **data)
