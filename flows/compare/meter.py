"""What a piece of work costs: wall time, processor time, and memory above what was there."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_LOCK = threading.Lock()
_running: dict[int, bool] = {}
"""Work that is measured now, by an own number; whether other work ran beside it."""


@dataclass
class Spent:
    """Filled when the work is over.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time; None where it cannot be told from other work's.
        memory_mb: peak resident memory above what was there before, in MB of 1,000,000 bytes;
            None where the system does not tell, or other work ran beside it.
    """

    seconds: float = 0.0
    cpu_seconds: float | None = None
    memory_mb: float | None = None


@contextmanager
def measured() -> Iterator[Spent]:
    """Measure the block."""
    import torch

    spent, number = Spent(), threading.get_ident()
    with _LOCK:
        for other in _running:
            _running[other] = True
        _running[number] = bool(_running)
    single = torch.get_num_threads() == 1  # then all is done by this very thread
    clock = time.thread_time if single else time.process_time
    before = _reset_peak()
    wall, cpu = time.perf_counter(), clock()
    try:
        yield spent
    finally:
        spent.seconds, used, peak = time.perf_counter() - wall, clock() - cpu, _status("VmHWM")
        with _LOCK:
            crowded = _running.pop(number)
        spent.cpu_seconds = used if single or not crowded else None
        if not crowded and before is not None and peak is not None:
            spent.memory_mb = max(0.0, (peak - before) / 1e6)


def _reset_peak() -> int | None:
    """Let the peak start at what is resident now, and return that; None where it cannot.

    What earlier work has freed is given back to the system first, so that it counts again
    where this work needs it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    try:
        _CLEAR.write_text("5", encoding="ascii")  # see proc(5)
    except OSError:
        return None
    return _status("VmRSS")


def _status(name: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{name}:")), None)
    return 1024 * int(found.split()[1]) if found else None
