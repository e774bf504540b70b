"""Where all files of the suite lie: in memory, where there is enough of it.

A workspace with three tasks is a thousand files and folders. On a disk, copying and removing one
for a test costs half a second of a core; in memory it costs nothing. ``TMPDIR`` wins.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

PLACE = Path("/dev/shm")
WANTED = 12 * 2**30
"""Bytes of memory that have to be free: the processes of the suite need most of them."""

ROOM = 4 * 2**30
"""Bytes that the place has to hold; the suite needs less than half."""


def keep_files_in_memory() -> None:
    """Put this process's temporary files, and those of all that it starts, into memory."""
    if "TMPDIR" not in os.environ and _is_fit():
        os.environ["TMPDIR"] = tempfile.tempdir = str(PLACE)


def _is_fit() -> bool:
    if sys.platform != "linux" or not os.access(PLACE, os.W_OK):
        return False
    seen = os.statvfs(PLACE)
    runs_programs = not seen.f_flag & os.ST_NOEXEC
    enough = seen.f_bavail * seen.f_frsize >= ROOM and psutil.virtual_memory().available >= WANTED
    return runs_programs and enough


def keep_nothing(config: pytest.Config) -> None:
    """Let no files stay in memory of tests that passed, nor of a run that did."""
    if Path(tempfile.gettempdir()) == PLACE:
        factory = config._tmp_path_factory  # type: ignore[attr-defined]
        factory._retention_policy, factory._retention_count = "failed", 1
