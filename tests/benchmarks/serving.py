"""`clr serve` under load, while releases are promoted and rolled back.

A real server process with the default backbone and eight tasks; 64 callers, each over its own
connection, ask for 1 or 2 images, half of them without naming the task; every ten seconds another
release is put in force. `CLR_BENCH_SECONDS` (300) is how long, `CLR_BENCH_CALLERS` (64) how many,
`CLR_BENCH_DEVICE` (cpu) where it computes, `CLR_WRITE_DOCS=1` puts the table into
docs/serving-load.md.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flows.provenance import hardware
from tests.serving.load import Asked, Callers, Moves, Picture, Server
from tests.serving.plants import Served, build

SECONDS = float(os.environ.get("CLR_BENCH_SECONDS", "300"))
CALLERS = int(os.environ.get("CLR_BENCH_CALLERS", "64"))
DEVICE = os.environ.get("CLR_BENCH_DEVICE", "cpu")
MOVE_SECONDS = 10.0
WARM_SECONDS = 30.0
"""Before the first figure of memory: by then every path has run."""

TASKS = tuple(f"task-{number}" for number in range(8))
SIDE = 96
DOCS = Path(__file__).parents[2] / "docs" / "serving-load.md"


def main() -> None:
    """Errors, answers of a wrong release, latency, throughput and memory under load."""
    with tempfile.TemporaryDirectory() as folder:
        served = build(Path(folder) / "plant", TASKS, small=False, side=SIDE)
        rows = measure(served, Path(folder) / "serve.log")
    table = as_table(rows)
    print(table, flush=True)
    if os.environ.get("CLR_WRITE_DOCS"):
        write_docs(table)


def measure(served: Served, log: Path) -> dict[str, str]:
    """Run the load; return what is told of it."""
    environment = {**served.environment, "CLR_DEVICE": DEVICE, "CLR_THREADS": "0"}
    server = Server(served.root, environment, log)
    server.start()
    try:
        served.activate(served.second)
        return _loaded(served, server, log)
    finally:
        server.stop()


def _given_up(log: Path) -> int:
    """Return how often the server says that it followed the registry again."""
    return log.read_text(encoding="utf-8").count("is followed again")


def _loaded(served: Served, server: Server, log: Path) -> dict[str, str]:
    pictures = [Picture(task, one.read_bytes()) for task in TASKS[:-1]
                for one in served.images(task)]  # fmt: skip
    moves, load = Moves(served.activate, served.second), os.getloadavg()[0]
    callers = Callers(server.port, pictures, CALLERS)
    time.sleep(WARM_SECONDS)
    began, memory = time.monotonic(), [server.memory()]
    stopping, mover = _moving(served, moves)
    for _ in range(2):
        time.sleep(SECONDS / 2)
        memory.append(server.memory())
    seconds = time.monotonic() - began
    stopping.set()
    mover.join()
    asked = [one for one in callers.stop() if one.began >= began]
    health = server.ask("GET", "/health")[1]
    return {
        **_figures(asked, callers.broken, moves, seconds),
        "memory at start, middle, end": ", ".join(f"{one:,} MB" for one in memory),
        "health at the end": str(health["status"]),
        "times that the registry was given up": str(_given_up(log)),
        "load of the machine before, after": f"{load:.1f}, {os.getloadavg()[0]:.1f}",
    }


def _moving(served: Served, moves: Moves) -> tuple[threading.Event, threading.Thread]:
    stopping = threading.Event()

    def work() -> None:
        releases = (served.first, served.second)
        number = 0
        while not stopping.wait(MOVE_SECONDS):
            moves.to(releases[number % 2])
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    return stopping, thread


def _figures(
    asked: Sequence[Asked], broken: Sequence[tuple[float, str]], moves: Moves, seconds: float
) -> dict[str, str]:
    taken = np.array([one.ended - one.began for one in asked]) * 1000
    statuses = Counter(one.status for one in asked if one.status != 200)
    good = [one for one in asked if one.status == 200]
    items = [found for one in good for found in one.answer["predictions"]]
    failed = sum("error" in one for one in items)
    return {
        "seconds": f"{seconds:.0f}",
        "promotions and rollbacks": str(moves.count),
        "requests": f"{len(asked):,}",
        "images": f"{len(items):,}",
        "requests without an answer": str(len(broken) + sum(statuses.values())),
        "images without an answer": str(failed),
        "answers from a release in force neither at start nor end": str(len(moves.wrong(asked))),
        "answers from a release in force at no moment of their request": str(
            len(moves.never(asked))
        ),
        "requests a second": f"{len(good) / seconds:.1f}",
        "images a second": f"{len(items) / seconds:.1f}",
        "p50": f"{np.percentile(taken, 50):.0f} ms",
        "p99": f"{np.percentile(taken, 99):.0f} ms",
        "slowest": f"{taken.max():.0f} ms",
    }


def as_table(rows: dict[str, str]) -> str:
    """Return the figures as Markdown."""
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )


def write_docs(table: str) -> None:
    """Write docs/serving-load.md."""
    where = f"{os.cpu_count()} cores of {hardware('cpu')}"
    if DEVICE != "cpu":
        where += f" and one {hardware(DEVICE)}"
    DOCS.write_text(
        "# The prediction server under load\n\n"
        f"`clr serve` with the default backbone at {SIDE} px and {len(TASKS)} tasks, on {where}; "
        f"its {CALLERS} callers run on the same machine, each over one connection, and ask for 1 "
        "or 2 images at once, half of them without naming the task. Every "
        f"{MOVE_SECONDS:.0f} s another release is put in force.\n\n"
        f"{table}\n\n"
        "The load is the number of processes that wanted a core (average over a minute); what "
        "others did is in the times, above all where it was high before.\n\n"
        "While a release is put in force, it and the one before count as in force. A release "
        "that came and went again while a request waited is in force neither at its start nor at "
        "its end.\n\n"
        "Measure it: `CLR_WRITE_DOCS=1 python -m tests.benchmarks serving`. How it works: "
        "[serving.md](serving.md).\n",
        encoding="utf-8",
    )
