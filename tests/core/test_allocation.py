"""Freed memory stays with a process that asks for it, and the system need not clear it anew."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
from clr.core.allocation import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("no glibc")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in range(1, 63):
    block = b"x" * (size * 2**19)  # half a megabyte more each time, up to 31
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(how: str) -> int:
    """Pages that the system clears while 980 MB are taken, each block in place of the one before.

    Each is larger than all before: glibc learns from the blocks that it gives back, and may keep
    the next ones that are no larger.
    """
    command = [sys.executable, "-c", _PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.strip())
    return int(done.stdout)


def test_memory_that_was_freed_is_not_taken_page_by_page_again() -> None:
    assert pages("keep") < pages("as-it-comes") / 10
