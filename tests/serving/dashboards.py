"""A server with half a year behind it: answers, labels and upkeep made up, all else real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from tests import web
from tests.serving.journals import DAY, answers, told, write

TASK = "red"
INCIDENTS = {20: "Lamp of line 3 replaced", 75: "Camera moved", 130: "Network down for an hour"}


def fill(served: Any, now: datetime, days: int = 170) -> None:
    """Give a served workspace (tests/serving/plants.py) answers, labels and upkeep.

    Args:
        served: is changed.
        now: end of the last day.
        days: before it.
    """
    random = np.random.default_rng(8)
    rows, labels = [], []
    begin = now.timestamp() - days * DAY
    for day in range(days):
        count = int(random.integers(30, 60)) * (0 if day % 7 == 6 else 1) + day // 6
        new = answers(
            count, begin + day * DAY + 7 * 3600, 600.0, task=TASK, label="left",
            seconds=float(random.gamma(9, 0.002)), release=served.second.version,
        )  # fmt: skip
        new = [replace(one, label="right") if random.random() < 0.04 else one for one in new]
        rows += new
        labels += told(new[: count // 8], wrong=int(random.random() < 0.35), other="right")
    write(served.state, rows, labels, answers(40, begin + 160 * DAY, 60.0, task="green"))
    _record(served, now, days)


def _record(served: Any, now: datetime, days: int) -> None:
    from clr.audit.ledger import open_ledger
    from clr.serving.upkeep import LOGGED, logged_payload

    ledger, today = open_ledger(served.state), now.date()
    for at in range(10, days, 21):
        about: date = today - timedelta(days=days - at)
        near = next((words for day, words in INCIDENTS.items() if abs(day - at) < 11), "")
        payload = logged_payload(1.5 + at % 3, near, about, today)
        ledger.append(LOGGED, f"clr-{TASK}", payload, actor="olga", authentication="local-os-user")
    for release in (served.first, served.second):
        joined = [
            {"task": one, "version": ref.version} for one, ref in sorted(release.tasks.items())
        ]
        ledger.append(
            "release.activated", f"clr-release/{release.version}",
            {"release": release.digest, "joined": joined}, actor="rita",
            authentication="mlflow-basic-auth",
        )  # fmt: skip


@contextmanager
def running(settings: Any) -> Iterator[str]:
    """Run a prediction server in this process; yield its address."""
    with web.running(settings) as (port, _):
        yield f"http://{web.HOST}:{port}"
