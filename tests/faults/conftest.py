"""Commands in real processes that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def processes(prefect_api: str) -> Iterator[Run]:
    """Function (job, …) -> answers; a job is (plant, arguments, kill, keep) — see driver.py."""
    driver = Path(__file__).parent / "driver.py"
    environment = {
        **os.environ, "PREFECT_API_URL": prefect_api,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, str(driver)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin
    assert process.stdout

    def run(*jobs: tuple[Any, ...]) -> list[Any]:
        lines = [
            {
                "root": str(plant.root),
                "settings": plant.settings,
                "arguments": [str(one) for one in arguments],
                "kill": kill,
                "keep": keep and str(keep),
            }
            for plant, arguments, kill, keep in ((*job, None, None)[:4] for job in jobs)
        ]
        print(json.dumps(lines), file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    yield run
    process.stdin.close()
    process.wait(timeout=30)
