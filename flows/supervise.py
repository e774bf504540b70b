"""Processes that live as long as this one: started, logged, started again, stopped together."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import logging
import logging.handlers
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from flows import output

LOG = logging.getLogger("clr")
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
STEADY_SECONDS = 60.0
"""Who ran so long is started again at once when it ends."""

LOG_BYTES = 10_000_000
_SET_PDEATHSIG = 1


def unused_ports(count: int) -> list[int]:
    """Return as many different ports of the loopback address that nobody listens on now."""
    with contextlib.ExitStack() as held:  # asked for one by one, the system may name the same twice
        free = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in free]


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on now."""
    return unused_ports(1)[0]


class Child:
    """One process and what is left to do about it.

    Attributes:
        name: in messages, and before each of its lines on the terminal.
        command: program and arguments.
        folder: where the process works.
        log: file that gets its output; older parts beside it as ``.1`` to ``.3``.
        environment: it gets exactly this.
        process: the running or ended process.
        orphaned: signal that it gets when this process is killed (Linux).
        started_at: UTC time of its last start, ISO 8601; empty before the first.
        restarts: how often it was started again.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
    ) -> None:
        """Start nothing yet; `folder` is where the process will work."""
        self.name, self.folder, self.log = name, folder, log
        self.environment = dict(environment)
        self.command = list(command)
        self.process: subprocess.Popen[bytes] | None = None
        self.orphaned = signal.SIGTERM
        self._delay, self._due = FIRST_DELAY, 0.0
        self._started = 0.0
        self.started_at, self.restarts = "", 0
        self._pump: threading.Thread | None = None

    def start(
        self,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start the process; call it in the main thread, whose end it would not survive.

        Args:
            command: this once instead of its own.
            environment: this once instead of its own.
            descriptors: files that stay open in it.
        """
        self._clear()
        self.process = subprocess.Popen(
            command or self.command,
            env=dict(environment or self.environment),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C reaches this process alone, which stops them in order
            preexec_fn=_die_with_parent(os.getpid(), self.orphaned),
        )
        self._started = time.monotonic()
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._pump = threading.Thread(target=self._copy_output, daemon=True)
        self._pump.start()

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def keep(self) -> None:
        """Start the process again if it ended, each time after a longer pause.

        A start that fails, since its folder is away for a moment, say, is tried again likewise.
        """
        if self.running or self.process is None:
            return
        now = time.monotonic()
        if not self._due:
            if now - self._started > STEADY_SECONDS:
                self._delay = FIRST_DELAY
            self._pause(f"ended ({_ending(self.process.returncode)})")
        elif now >= self._due:
            self.restarts += 1
            try:
                self.start()
            except OSError as error:
                self._pause(f"did not start ({error})")
            else:
                self._due = 0.0

    def _pause(self, why: str) -> None:
        """Say when it is started again, and double the pause after that."""
        self._due = time.monotonic() + self._delay
        LOG.info("restart   %s %s; again in %.0f s", self.name, why, self._delay)
        self._delay = min(self._delay * 2, LONGEST_DELAY)

    def tail(self, lines: int = 12) -> str:
        """Return the last lines of its output."""
        if self._pump is not None and not self.running:
            self._pump.join(timeout=2)
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self.process is not None and self.running:
            self.process.terminate()

    def end(self, seconds: float) -> None:
        """Wait so long for it to end, then kill it and what it started."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=max(0.0, seconds))
        self._clear()

    def _clear(self) -> None:
        """Kill what is left of the process and of those that it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _copy_output(self) -> None:
        process = self.process
        assert process is not None
        assert process.stdout is not None
        with contextlib.closing(self._open_log()) as file:
            for line in process.stdout:
                text = line.decode("utf-8", "replace").rstrip()
                file.handle(logging.makeLogRecord({"msg": "%s", "args": (text,)}))
                _SCREEN.show(output.passed_on(self.name, text))

    def _open_log(self) -> logging.Handler:
        """Open the log; where it cannot be, drop lines: whom nobody reads, a full pipe stops."""
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            return logging.handlers.RotatingFileHandler(
                self.log, maxBytes=LOG_BYTES, backupCount=3, encoding="utf-8", errors="replace"
            )
        except OSError as error:
            LOG.warning("log       %s writes none: %s", self.name, error)
            return logging.NullHandler()


def stop(children: Iterable[Child], seconds: float) -> None:
    """Ask all to stop, give them so many seconds together, then kill them."""
    everyone, deadline = list(children), time.monotonic() + seconds
    for child in everyone:
        child.ask_to_stop()
    for child in everyone:
        child.end(deadline - time.monotonic())


def answers(url: str, seconds: float = 5.0) -> bool:
    """Say whether `url` answers 200 within so many seconds."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, http.client.HTTPException):  # or not HTTP, or no address
        return False


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"  # a real-time signal, which has no name
    return f"exit code {code}"


def _die_with_parent(parent: int, number: int) -> Callable[[], None] | None:
    """Return what makes a new process end when this one is killed, where the system can (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it was killed before that was said
            os._exit(1)

    return ask


class _Screen:
    """Lines for the terminal; one that is not read delays no server, it loses lines."""

    def __init__(self) -> None:
        self._lines: queue.Queue[str] = queue.Queue(maxsize=1000)
        self._writer: threading.Thread | None = None

    def show(self, line: str) -> None:
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, daemon=True)
            self._writer.start()
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(line)

    def _write(self) -> None:
        while True:
            with contextlib.suppress(OSError, ValueError):
                output.note(self._lines.get())


_SCREEN = _Screen()
