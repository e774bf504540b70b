"""Flow runs that begin at once: a process that has loaded everything forks itself for each.

Loading Prefect, PyTorch, MLflow, Great Expectations and DVC takes some ten seconds of one core,
for each run again. ``python -m flows.warm serve SOCKET`` loads them once. The work pools' command
is ``python -m flows.warm``: it hands its environment, folder and output to that process, waits for
the run and ends as the run does. Where none answers at ``CLR_WARM``, it becomes the run itself.

The fork gets nothing from an earlier run: the first process never runs a flow. It dies with the
command that asked for it, so that whoever kills that command, or its worker, ends the run; and
with the first process, whose end it would outlive otherwise.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import json
import logging
import os
import random
import runpy
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import NoReturn

LOG = logging.getLogger("clr")
VARIABLE = "CLR_WARM"
"""Names the socket of the loaded process."""

ENGINE = "prefect.engine"
MODULES = (
    "prefect.engine", "prefect.flow_engine", "prefect.task_engine", "prefect.artifacts",
    "prefect.utilities.visualization", "anyio._backends._asyncio", "dvc.repo", "dvc.repo.graph",
    "dvc.data_cloud", "dvc.lock", "dvc.rwlock", "dvc_data.hashfile.build", "scmrepo.git",
    "networkx", "great_expectations", "great_expectations.render.renderer.site_builder",
    "imagehash", "scipy.fftpack", "matplotlib.figure", "matplotlib.backends.backend_agg",
    "mlflow.pyfunc", "mlflow.tracing.export", "mlflow.tracking.request_header.registry",
    "pyarrow.pandas_compat", "timm", "torchvision", "flows.onboard", "flows.register",
    "clr.audit.ledger", "clr.data.checks", "clr.data.former", "clr.data.manifest",
    "clr.data.suite", "clr.data.versioning", "clr.core.train", "clr.core.evaluate",
    "clr.core.evidence", "clr.core.latency", "clr.core.routing", "clr.gate.report",
    "clr.registry.card", "clr.registry.dataset", "clr.registry.fetch", "clr.registry.lineage",
    "clr.registry.plots", "clr.registry.roles", "clr.registry.runs", "clr.registry.versions",
    "clr.registry.releases", "clr.roi", "flows.replay_retention", "flows.drift",
)  # fmt: skip
"""What an onboarding loads."""

_SIZE = struct.Struct("!I")
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SET_PDEATHSIG = 1


def main() -> None:
    """Serve at a socket, or be a flow run."""
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]))
        return
    _end_with_parent()  # a worker that is killed asks nobody to stop
    code = ask(os.environ.get(VARIABLE, ""))
    if code is None:
        os.execv(sys.executable, [sys.executable, "-m", ENGINE, *sys.argv[1:]])  # noqa: S606
    sys.exit(code)


def ask(place: str) -> int | None:
    """Run the flow run of this environment in a fork of the loaded process.

    Args:
        place: its socket; may be empty.

    Returns:
        Exit code of the run; None where nobody answers, and nothing was done.
    """
    if not place:
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            _at(Path(place), connection.connect)
        except OSError:
            return None
        work = {"environment": dict(os.environ), "folder": str(Path.cwd()), "arguments": sys.argv}
        body = json.dumps(work).encode()
        outputs = array.array("i", [1, 2])
        try:
            connection.sendmsg(
                [_SIZE.pack(len(body))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, outputs)]
            )
            connection.sendall(body)
            process = _SIZE.unpack(_exactly(connection, _SIZE.size))[0]
        except OSError:
            return None
        for number in _FORWARDED:
            signal.signal(number, lambda which, _: _kill(process, which))
        try:
            return int(_SIZE.unpack(_exactly(connection, _SIZE.size))[0])
        except OSError:
            return 128 + signal.SIGKILL  # the loaded process was killed, and the run with it


def serve(place: Path) -> None:
    """Load everything, then fork for whoever asks, or asked meanwhile, until SIGTERM."""
    from flows import output

    output.log_to_stderr()
    with socket.socket(socket.AF_UNIX) as listener:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        os.umask(0o077)
        _at(place, listener.bind)
        listener.listen(64)  # who asks while all is loaded waits, which is sooner than by itself
        for name in MODULES:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # else the first collection in a fork touches, and so copies, every page of it
        LOG.info("warm      flow runs begin at once")
        runs: dict[int, socket.socket] = {}
        listener.settimeout(0.2)
        while True:
            _tell_ends(runs)
            with contextlib.suppress(TimeoutError):
                connection = listener.accept()[0]
                _begin(connection, listener, runs)


def _begin(
    connection: socket.socket, listener: socket.socket, runs: dict[int, socket.socket]
) -> None:
    """Fork for one who asks; one who does not ask to the end gets none."""
    connection.settimeout(5)
    outputs: list[int] = []
    try:
        head, outputs, _, _ = socket.recv_fds(connection, _SIZE.size, 2)
        work = json.loads(_exactly(connection, _SIZE.unpack(head)[0]))
    except (OSError, ValueError, struct.error):
        connection.close()
    else:
        parent = os.getpid()
        process = os.fork()
        if not process:
            listener.close()
            for other in runs.values():
                other.close()
            _be(work, outputs, connection, parent)
        runs[process] = connection
        with contextlib.suppress(OSError):
            connection.sendall(_SIZE.pack(process))
    for one in outputs:
        os.close(one)


def _be(
    work: dict[str, object], outputs: list[int], connection: socket.socket, parent: int
) -> NoReturn:
    """Become the run that was asked for, in the new process."""
    code = 1
    try:
        _end_with_parent()
        if os.getppid() != parent:
            os._exit(1)
        for number, one in enumerate(outputs, 1):
            os.dup2(one, number)
            os.close(one)
        os.environ.clear()
        os.environ.update(dict(work["environment"]))  # type: ignore[call-overload]
        os.chdir(str(work["folder"]))
        random.seed()
        connection.settimeout(None)
        threading.Thread(target=_die_with, args=(connection,), daemon=True).start()
        sys.argv = [ENGINE, *list(work["arguments"])[1:]]  # type: ignore[call-overload]
        sys.modules.pop(ENGINE, None)  # else runpy tells that it is there already
        runpy.run_module(ENGINE, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        logging.getLogger("clr").exception("warm      a flow run ended")
    finally:
        with contextlib.suppress(BaseException):
            import atexit

            logging.shutdown()
            atexit._run_exitfuncs()
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end_with_parent() -> None:
    """Get a SIGKILL when the parent ends, where the system can (Linux); kept by `os.execv`."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _die_with(connection: socket.socket) -> None:
    """End this process as soon as the command that asked for it is gone."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _tell_ends(runs: dict[int, socket.socket]) -> None:
    while runs:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        connection = runs.pop(process, None)
        if connection is not None:
            code = os.waitstatus_to_exitcode(status)
            with contextlib.suppress(OSError):
                connection.sendall(_SIZE.pack(code if code >= 0 else 128 - code))
            connection.close()


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the other side is gone")
        data += part
    return data


def _at(place: Path, act: object) -> None:
    """Use a socket by its name in its folder: a whole path may be longer than one may be."""
    here = Path.cwd()
    os.chdir(place.parent)
    try:
        act(place.name)  # type: ignore[operator]
    finally:
        os.chdir(here)


def _kill(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


if __name__ == "__main__":
    main()
