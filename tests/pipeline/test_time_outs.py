"""A step ends when its time is over, and what may pass is tried again; refusals are not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from clr.errors import DataRefused, ServiceUnavailable

CODE = """
import sys, time
from pathlib import Path
from prefect import flow
from clr.errors import ClrError, DataRefused, ServiceUnavailable
from clr.settings import Settings
from flows.session import Session
from flows.stages import _AGAIN, step

session, calls = Session(Settings(workspace=Path(sys.argv[2]), step_minutes=0.03)), []

@step("slow")
def slow(session):
    time.sleep(60)

@step("shaky", **(_AGAIN | {"retry_delay_seconds": 0.1}))
def shaky(session, error, times):
    calls.append(1)
    if len(calls) <= times:
        raise error("no")
    return len(calls)

@flow
def run():
    kind = sys.argv[1]
    if kind == "slow":
        return slow(session)
    return shaky(session, ServiceUnavailable if kind == "away" else DataRefused, 2)

try:
    print("answer", run())
except ClrError as error:
    print(type(error).__name__, len(calls), error.message)
"""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("slow", f"{ServiceUnavailable.__name__} 0 The step slow was ended after 0.03 minutes."),
        ("away", "answer 3"),
        ("refused", f"{DataRefused.__name__} 1 no"),
    ],
)
def test_what_ends_and_what_is_tried_again(prefect_api, tmp_path, kind, said):

    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CODE, kind, str(tmp_path)],
        capture_output=True, text=True, timeout=200,
        env={**os.environ, "PREFECT_API_URL": prefect_api, "CLR_WORKSPACE": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.strip().splitlines()[-1] == said, done.stderr[-3000:]
    assert time.monotonic() - began < 55
