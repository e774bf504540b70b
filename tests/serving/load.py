"""Callers of a real prediction server, and a judge of which release may have answered them."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.supervise import free_port
from tests.factory import shell, until_line

START_SECONDS = 240


@dataclass(eq=False)
class Server:
    """A process of `clr serve`.

    Attributes:
        root: workspace.
        environment: its settings.
        port: that it listens on, after each start the same.
        log: file with its stderr.
        process: it; None before the first start.
    """

    root: Path
    environment: dict[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> dict[str, Any]:
        """Start it and wait until it answers; return what it says then."""
        command = [sys.executable, "-m", "flows.cli", "serve", "--json", "--port", str(self.port)]
        with self.log.open("ab") as err:
            self.process = subprocess.Popen(
                command,
                cwd=self.root,
                env={**shell(), "CLR_SERVE_KEYS": "false", **self.environment},
                stdout=subprocess.PIPE,
                stderr=err,
            )
        line = until_line(self.process, START_SECONDS)
        assert line.rstrip().endswith(b"}"), self.log.read_text()[-4000:]
        told: dict[str, Any] = json.loads(line)
        return told

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=60)
        finally:
            self.process.kill()
            if self.process.stdout is not None:
                self.process.stdout.close()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and JSON of one call."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            return call(connection, method, path, body)
        finally:
            connection.close()

    def memory(self) -> int:
        """Return its resident memory in MB (Linux)."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000


def call(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None
) -> tuple[int, Any]:
    """Return status and JSON of one call over an open connection."""
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@dataclass(frozen=True)
class Asked:
    """One request: when it was sent and answered (monotonic), with which status and answer."""

    began: float
    ended: float
    status: int
    answer: Any

    @property
    def release(self) -> int:
        """Of the answer."""
        return int(self.answer["release"])


@dataclass(frozen=True)
class Picture:
    """An image, its task, and how to ask for it."""

    task: str
    data: bytes

    def instance(self, *, named: bool) -> dict[str, Any]:
        """Return it as the server takes it."""
        text = base64.b64encode(self.data).decode()
        return {"image": text, **({"task": self.task} if named else {})}


class Callers:
    """Threads that ask one after another until they are stopped."""

    def __init__(self, port: int, pictures: Sequence[Picture], count: int) -> None:
        """Start `count` of them."""
        self.asked: list[Asked] = []
        self.broken: list[tuple[float, str]] = []
        self._port, self._pictures = port, list(pictures)
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(count)
        ]
        for one in self._threads:
            one.start()

    def stop(self) -> list[Asked]:
        """End them; return all that was answered."""
        self._stopping.set()
        for one in self._threads:
            one.join(timeout=90)
        return list(self.asked)

    def until(self, count: int, seconds: float = 120) -> None:
        """Wait for so many more answers."""
        wanted, end = len(self.asked) + count, time.monotonic() + seconds
        while len(self.asked) < wanted:
            assert time.monotonic() < end, f"{len(self.asked)} answers, {self.broken[-3:]}"
            time.sleep(0.02)

    def _work(self, seed: int) -> None:
        chance = random.Random(seed)
        connection: http.client.HTTPConnection | None = None
        while not self._stopping.is_set():
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            chosen = chance.choices(self._pictures, k=chance.choice((1, 1, 1, 2)))
            body = {"instances": [one.instance(named=chance.random() < 0.5) for one in chosen]}
            began = time.monotonic()
            try:
                status, answer = call(connection, "POST", "/v1/predict", body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.broken.append((began, f"{type(error).__name__}: {error}"))
                with suppress(OSError):
                    connection.close()
                connection = None
                time.sleep(0.05)
                continue
            self.asked.append(Asked(began, time.monotonic(), status, answer))


@dataclass(eq=False)
class Moves:
    """Which release was in force when, as far as an outsider can know.

    While one is put in force, both may be.
    """

    activate: Callable[[Any], None]
    first: Any
    _moves: list[tuple[float, float, int]] = field(default_factory=list)

    def to(self, release: Any) -> None:
        """Put a release in force."""
        began = time.monotonic()
        self.activate(release)
        self._moves.append((began, time.monotonic(), release.version))

    @property
    def count(self) -> int:
        """How often another release was put in force."""
        return len(self._moves)

    def at(self, when: float) -> set[int]:
        """Return which releases may have been in force at a moment."""
        known = {self.first.version}
        for began, ended, version in self._moves:
            if ended <= when:
                known = {version}
            elif began <= when:
                known.add(version)
        return known

    def during(self, began: float, ended: float) -> set[int]:
        """Return which releases may have been in force at a moment between two."""
        between = {version for at, _, version in self._moves if began <= at <= ended}
        return self.at(began) | between | self.at(ended)

    def never(self, asked: Sequence[Asked]) -> list[Asked]:
        """Return answers from a release that was in force at no moment of their request."""
        return [
            one
            for one in asked
            if one.status == 200 and one.release not in self.during(one.began, one.ended)
        ]

    def wrong(self, asked: Sequence[Asked]) -> list[Asked]:
        """Return answers from a release that was in force neither at start nor end."""
        return [
            one
            for one in asked
            if one.status == 200 and one.release not in self.at(one.began) | self.at(one.ended)
        ]
