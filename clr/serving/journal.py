"""Every answer and every label that came later, in one SQLite file under ``CLR_HOME``.

An answer is in the file before it leaves the server, so that its request id can be looked up
even if the server is killed a moment later. One thread writes, many rows a transaction; whoever
reads opens the file for itself.
"""

from __future__ import annotations

import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from clr.errors import ServiceUnavailable
from clr.serving.counts import keep_counts
from clr.serving.sweeping import sweep

_LOG = logging.getLogger(__name__)
_ROWS = 500
"""In one transaction, at most."""

_SWEEP_SECONDS = 3600.0
_WRITE_SECONDS = 5.0
"""How long answers wait for a file that somebody else has locked."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    request_id TEXT PRIMARY KEY, time REAL NOT NULL, client TEXT NOT NULL,
    release INTEGER NOT NULL, release_digest TEXT NOT NULL, task TEXT NOT NULL,
    how TEXT NOT NULL, adapter TEXT NOT NULL, version INTEGER NOT NULL, label TEXT NOT NULL,
    probability REAL NOT NULL, unit TEXT NOT NULL, arm TEXT NOT NULL, doubtful TEXT NOT NULL,
    unknown INTEGER NOT NULL, seconds REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_by_task ON answers (task, time);
CREATE INDEX IF NOT EXISTS answers_by_time ON answers (time);
CREATE TABLE IF NOT EXISTS feedback (
    request_id TEXT NOT NULL, time REAL NOT NULL, client TEXT NOT NULL, label TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS tried (
    request_id TEXT PRIMARY KEY, time REAL NOT NULL, trial TEXT NOT NULL, unit TEXT NOT NULL,
    share REAL NOT NULL, arm TEXT NOT NULL, champion TEXT NOT NULL, challenger TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tried_by_trial ON tried (trial, time);
CREATE INDEX IF NOT EXISTS tried_by_time ON tried (time);
CREATE INDEX IF NOT EXISTS feedback_by_request ON feedback (request_id);
CREATE INDEX IF NOT EXISTS feedback_by_time ON feedback (time);
"""


@dataclass(frozen=True)
class Entry:
    """One answer.

    Attributes:
        request_id: of the image.
        time: when its request came, seconds since 1970, UTC.
        client: name of the key that asked; empty: none was needed.
        release: number of the release.
        release_digest: of its ``release.json``.
        task: that answered.
        how: ``named``, ``only`` or ``routed``.
        adapter: digest of the adapter's file.
        version: of the task's registered model.
        label: the answer.
        probability: of it.
        unit: what an A/B test keeps in one arm.
        arm: ``champion`` or ``challenger``.
        doubtful: why the choice of the task is doubtful; empty: it is not.
        unknown: the image looks like none of the tasks.
        seconds: from request to answer.
    """

    request_id: str
    time: float
    client: str
    release: int
    release_digest: str
    task: str
    how: str
    adapter: str
    version: int
    label: str
    probability: float
    unit: str
    arm: str
    doubtful: str
    unknown: bool
    seconds: float


@dataclass(frozen=True)
class Told:
    """A label that came later: of which answer, when (seconds since 1970), from whom."""

    request_id: str
    time: float
    client: str
    label: str


@dataclass(frozen=True)
class Tried:
    """An answer of a task that is on trial, see clr/serving/trials.py.

    Attributes:
        request_id: of the image.
        time: when its arm was chosen, seconds since 1970, UTC.
        trial: id of the trial.
        unit: keyed hash of what stays in one arm.
        share: probability with which a unit met the challenger.
        arm: whose answer was given.
        champion: the champion's answer; empty: it was not asked.
        challenger: the challenger's answer; empty: it was not asked.
    """

    request_id: str
    time: float
    trial: str
    unit: str
    share: float
    arm: str
    champion: str
    challenger: str


Row = Entry | Told | Tried
_INSERT = {
    Entry: "INSERT OR REPLACE INTO answers VALUES",
    Told: "INSERT INTO feedback VALUES",
    Tried: "INSERT OR REPLACE INTO tried VALUES",
}


def journal_path(state: Path) -> Path:
    """Return where the journal is under ``CLR_HOME``."""
    return state / "serving" / "journal.db"


class Journal:
    """Writes what happens. If the disk is full, serving goes on and `problem` says why."""

    def __init__(self, path: Path, *, keep_days: float, keep_rows: int) -> None:
        """Open the file, making it on first use.

        Args:
            path: of the file.
            keep_days: older rows are deleted.
            keep_rows: of more answers than that, the oldest are deleted.

        Raises:
            ServiceUnavailable: it cannot be written.
        """
        self.path, self.problem = path, ""
        self._keep_days, self._keep_rows = keep_days, keep_rows
        self._waiting: queue.SimpleQueue[tuple[Sequence[Row], Future[bool]] | None]
        self._waiting = queue.SimpleQueue()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(path)
        except (OSError, sqlite3.Error) as error:
            raise ServiceUnavailable(
                f"The journal {path} cannot be written: {error}.",
                fix="Make the folder writable, or restore the file from a backup.",
            ) from error
        self._thread = threading.Thread(target=self._work, name="clr-journal", daemon=True)
        self._thread.start()

    def write(self, rows: Sequence[Row]) -> Future[bool]:
        """Return whether `rows` are in the file, once that is known; `problem` says why not."""
        done: Future[bool] = Future()
        # not to be cancelled by who waits no longer: the thread would end with what it cannot set
        done.set_running_or_notify_cancel()
        self._waiting.put((rows, done))
        return done

    def close(self) -> None:
        """Write what waits, then close the file."""
        self._waiting.put(None)
        self._thread.join()
        self._database.close()

    def _work(self) -> None:
        swept, sweeping, going = float("-inf"), None, True
        while going:
            batch, going = self._batch(wait=sweeping is None)
            if batch:
                rows = chain.from_iterable(some for some, _ in batch)
                if written := self._try(partial(self._insert, rows)):
                    self.problem = ""
                for _, done in batch:
                    done.set_result(written)
            if batch and time.monotonic() - swept > _SWEEP_SECONDS:
                swept = time.monotonic()
                sweeping = sweep(self._database, self._keep_days, self._keep_rows)
            # between two batches a little at a time, for which the next one waits
            if sweeping is not None and not self._try(partial(next, sweeping, False)):
                sweeping = None

    def _batch(self, *, wait: bool) -> tuple[list[tuple[Sequence[Row], Future[bool]]], bool]:
        """Return what is to be written in one transaction, and whether more may come."""
        batch: list[tuple[Sequence[Row], Future[bool]]] = []
        while sum(len(rows) for rows, _ in batch) < _ROWS:
            try:
                more = self._waiting.get(block=wait and not batch)
            except queue.Empty:
                break
            if more is None:
                return batch, False
            batch.append(more)
        return batch, True

    def _try(self, do: Callable[[], bool]) -> bool:
        """Return what `do` returns; False where it failed."""
        try:
            return do()
        except sqlite3.Error as error:
            if not self.problem:
                _LOG.warning("The journal %s cannot be written: %s.", self.path, error)
            self.problem = str(error)
        except Exception as error:  # else nobody would be answered any more
            _LOG.exception("journal   this should not happen; these answers are left out")
            self.problem = str(error)
        return False

    def _insert(self, rows: Iterable[Row]) -> bool:
        refused = None
        with self._database:
            for row in rows:
                values = astuple(row)
                places = ", ".join("?" * len(values))
                try:
                    self._database.execute(f"{_INSERT[type(row)]} ({places})", values)
                except sqlite3.IntegrityError as error:  # of this row; the others are kept
                    refused = error
        if refused is not None:
            raise refused
        return True


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_WRITE_SECONDS, check_same_thread=False)
    # after a kill nothing that was committed is lost; after a power failure the last moments are
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.executescript(_SCHEMA)
    keep_counts(database)
    return database


def _address(path: Path) -> str:
    """Return how SQLite opens a journal for reading, also in a folder that is mounted read-only."""
    if not path.exists():
        return ":memory:"
    # a server that ended took its log along, and SQLite opens no such file without making one
    logged = path.with_name(f"{path.name}-wal").exists()
    whole = not logged and not os.access(path.parent, os.W_OK)
    return f"{path.as_uri()}?mode=ro" + ("&immutable=1" if whole else "")


@contextmanager
def reading(state: Path) -> Iterator[sqlite3.Connection]:
    """Open the journal of ``CLR_HOME`` as of one moment; one that was never written is empty.

    Raises:
        ServiceUnavailable: its file is damaged, or locked for too long.
    """
    path = journal_path(state)
    try:
        with closing(sqlite3.connect(_address(path), uri=True, timeout=30)) as database:
            if not path.exists():
                database.executescript(_SCHEMA)
            database.execute("BEGIN")  # else what is written or swept meanwhile is half counted
            yield database
    except sqlite3.Error as error:
        raise ServiceUnavailable(
            f"The journal {path} cannot be read: {error}.",
            fix="Restore the file from a backup, or move it away: a new one is made.",
        ) from error


def answer(state: Path, request_id: str) -> Entry | None:
    """Return the answer with this request id; None: there is none, or it is too old."""
    with reading(state) as database:
        query = "SELECT * FROM answers WHERE request_id = ?"
        row = database.execute(query, (request_id,)).fetchone()
    return Entry(*(*row[:-2], bool(row[-2]), row[-1])) if row else None


def labelled(state: Path, request_id: str) -> list[Told]:
    """Return every label that came for an answer, oldest first."""
    query = "SELECT * FROM feedback WHERE request_id = ? ORDER BY rowid"
    with reading(state) as database:
        return [Told(*row) for row in database.execute(query, (request_id,))]
