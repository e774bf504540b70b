"""Freed memory stays with a process that asks for it, and the system need not clear it anew."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys, torch
from clr.core.allocation import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("no glibc")
def work():
    for _ in range(20):
        layers = [torch.ones(4, 2**20) for _ in range(3)]  # 16 MB each
        del layers
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(how: str) -> int:
    """Pages that the system clears while 960 MB are taken and freed again."""
    command = [sys.executable, "-c", _PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.strip())
    return int(done.stdout)


def test_memory_that_was_freed_is_not_taken_page_by_page_again() -> None:
    usual = pages("as-it-comes")
    if not usual:  # what lies above the blocks in the heap may keep them, too
        pytest.skip("this process keeps what it frees by itself")
    assert pages("keep") < usual / 10
