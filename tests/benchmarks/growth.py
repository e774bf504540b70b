"""How seconds grow with the number of registered tasks: 10, 100 and 1,000 of them.

Seconds are of processor time, which says the same on a machine that is busy with other things.

Real adapters over a small network, real images pinned by DVC, rows of the registry and entries of
the ledger as onboarding and review leave them. `CLR_BENCH_TASKS=10,100,1000,10000` chooses the
sizes; above 1,000 a task has one image a class.
`CLR_BENCH_BACKBONE=default` takes the default backbone, `CLR_WRITE_DOCS=1` puts the table into
docs/scale.md.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.session import Session
from tests import synthetic
from tests.benchmarks.pages import write_docs

SIZES = tuple(int(one) for one in os.environ.get("CLR_BENCH_TASKS", "10,100,1000").split(","))
LARGE = 1000
SMALL = os.environ.get("CLR_BENCH_BACKBONE", "small") == "small"
NEWCOMER = "newcomer"

Figures = dict[str, float]
ROWS = {
    "version": "pin one more task with DVC and push it",
    "register": "register it",
    "cold": "gate, first of a process",
    "warm": "gate, again",
    "identity": "gate, again, where no task is due for a replay",
    "report": "its report as a page",
    "write": "write the release",
    "activate": "make it serve",
    "look": "look for what is left to do",
    "status": "clr status",
    "verify": "clr verify",
}


def main() -> None:
    """Time what is done once a task, a release or a command, in seconds of processor time."""
    found: dict[int, Figures] = {}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            figures = measure(Path(folder), size)
            found[size] = figures
            took = time.perf_counter() - started
            told = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
            print(f"  {size} tasks, {took:.0f} s in all: {told}", flush=True)
    table = as_table(found)
    print("\n" + table, flush=True)
    if os.environ.get("CLR_WRITE_DOCS"):
        write_docs("scale.md", {"growth": table})


def measure(folder: Path, size: int) -> Figures:
    """Build a workspace of `size` tasks and time each row of the table."""
    figures: Figures = {}
    session, release = build(folder, size)
    with _clock(figures, "version"):
        _version(session, folder / NEWCOMER)
    _gate(session, folder, size, figures)
    _commands(session, figures)
    _next_release(session, release, figures)
    return figures


def build(folder: Path, size: int) -> tuple[Session, Any]:
    """Return a workspace of `size` tasks and the release that serves them."""
    session = synthetic.workspace(folder / "plant", small=SMALL)
    tasks = [f"task-{number}" for number in range(size)]
    data = session.settings.workspace / "data"
    for number, task in enumerate(tasks):
        synthetic.images(data / task, number, 1 if size > LARGE else synthetic.IMAGES)
    synthetic.pin(session)
    champions = synthetic.register(session, tasks)
    synthetic.record(session, champions)
    release = synthetic.release(session, champions)
    _record_release(session, release, champions)
    print(f"  {size} tasks are there", flush=True)
    return session, release


@contextmanager
def _clock(figures: Figures, name: str) -> Iterator[None]:
    started = time.process_time()
    yield
    figures[name] = time.process_time() - started


def _version(session: Session, folder: Path) -> None:
    from clr.data.folder import read_task
    from clr.data.manifest import scan
    from clr.data.versioning import version_task

    synthetic.images(folder, 1_000_000)
    (folder / "test").rename(folder / "train")
    synthetic.images(folder, 1_000_001)
    task = read_task(folder)
    version_task(task, scan(task, max_pixels=10_000), session.settings)


def _gate(session: Session, folder: Path, size: int, figures: Figures) -> None:
    from clr.core.files import sha256_bytes
    from clr.gate.report import gate_html
    from clr.registry.releases import current_release
    from flows.judge import judge

    made, data = synthetic.adapter(session, NEWCOMER)
    digest = sha256_bytes(data)
    newcomer = synthetic.evidence(session, made, digest)
    fresh = synthetic.workspace(folder / "plant", small=SMALL)
    fresh.network.attach(made, digest)
    serving = current_release(fresh.registry)
    judged: Any = None
    for name in ("cold", "warm"):
        with _clock(figures, name):
            judged = judge(fresh, newcomer, serving)
        assert judged.report["metrics"]["earlier_tasks"] == size
        broken = [key for key in judged.report["failed"] if not key.endswith(f":{NEWCOMER}")]
        assert not broken, broken
    figures["identity"] = _without_replays(fresh, newcomer, made, digest, serving)
    replayed = [
        one
        for one in judged.report["checks"]
        if one["name"] == "retention" and one["facts"]["replayed"]
    ]
    figures["replays"] = len(replayed)
    figures["bytes"] = len(judged.data)
    with _clock(figures, "report"):
        page = gate_html(judged.report)
    figures["page"] = len(page)


def _without_replays(
    session: Session, newcomer: Any, made: Any, digest: str, serving: Any
) -> float:
    """Return seconds of a gate, not a process's first, that finds no task due for a replay."""
    from flows.judge import judge

    figures: Figures = {}
    never = session.settings.model_copy(update={"gate_replay_every": 10**9})
    calm = Session(never)
    calm.network.attach(made, digest)
    for name in ("first", "again"):
        with _clock(figures, name):
            report = judge(calm, newcomer, serving).report
    few = len(serving.tasks) <= never.gate_replay_tasks
    assert few or not any(one["facts"].get("replayed") for one in report["checks"])
    return figures["again"]


def _record_release(session: Session, release: Any, champions: list[Any]) -> None:
    joined = [
        {
            "task": one.task,
            "version": 1,
            "adapter": one.adapter_digest,
            "source": synthetic.source(session, one),
            "needed": 1,
            "reviewers": [{"reviewer": "alice", "authentication": "local-os-user"}],
        }
        for one in champions
    ]
    payload = {"release": release.digest, "previous": release.previous}
    # an entry holds 1 MiB: in life each promotion joins one
    parts = [joined[at : at + 1000] for at in range(0, len(joined), 1000)]
    for part in parts:
        session.ledger.append(
            "release.activated",
            f"clr-release/{release.version}",
            {**payload, "joined": part},
            actor="bench",
            authentication="local-os-user",
        )


def _next_release(session: Session, release: Any, figures: Figures) -> None:
    """Promote a second version of the first task, as far as the registry goes."""
    from dataclasses import replace

    from clr.core.files import canonical_json, sha256_bytes, write_atomic
    from clr.registry.package import BackboneReference
    from clr.registry.releases import activate, write_release
    from clr.registry.runs import find_or_start_run, finish
    from clr.registry.versions import register_adapter

    _, data = synthetic.adapter(session, "again")
    digest, task = sha256_bytes(data), "task-0"
    path = session.settings.state / "again.safetensors"
    write_atomic(path, data)
    with _clock(figures, "register"):
        run = find_or_start_run(session.registry, task, digest)
        backbone = BackboneReference(session.backbone.name, session.backbone.digest)
        data_digest = release.tasks[task].data_digest
        version = register_adapter(
            session.registry, run, path, key=digest, backbone=backbone,
            data_digest=data_digest, card="", tags={"clr.verdict": "passed"},
        )  # fmt: skip
        finish(session.registry, run)
    report = canonical_json({"matrix": None, "of": digest})
    champion = replace(
        release.tasks[task], version=version.version, adapter_digest=digest, run_id=run.id
    )
    following = replace(
        release,
        tasks={**release.tasks, task: champion},
        gate=sha256_bytes(report),
        previous=release.digest,
    )
    with _clock(figures, "write"):
        written = write_release(session.registry, following, {"gate.json": report})
    with _clock(figures, "activate"):
        activate(session.registry, written)


def _commands(session: Session, figures: Figures) -> None:
    from flows.reconcile import look
    from flows.status import read_status
    from flows.verify import run_verify

    commands: dict[str, Callable[[Session], Any]] = {
        "look": look,
        "status": read_status,
        "verify": run_verify,
    }
    for name, command in commands.items():
        with _clock(figures, name):
            answer = command(session)
    # a release that all tasks joined at once is one that no gate report admits
    found = [one["kind"] for one in answer["problems"]]
    assert found == ["gate-mismatch"], answer["problems"][:5]


def as_table(found: dict[int, Figures]) -> str:
    """Return the figures in Markdown: a row each, a column a size, and the growth exponent."""
    sizes = sorted(found)
    lines = [
        "| seconds of processor time | "
        + " | ".join(f"{size:,} tasks" for size in sizes)
        + " | exponent |",
        "|---|" + "---:|" * (len(sizes) + 1),
    ]
    for name, title in ROWS.items():
        values = [found[size].get(name) for size in sizes]
        cells = " | ".join("–" if value is None else f"{value:.3f}" for value in values)
        lines.append(f"| {title} | {cells} | {_exponent(sizes, values)} |")
    for name, title in (("cold", "cold"), ("warm", "warm"), ("identity", "warm, no replays")):
        cells = " | ".join(
            f"{1000 * found[size][name] / size:.2f}" if name in found[size] else "–"
            for size in sizes
        )
        lines.append(f"| gate, {title}: milliseconds an earlier task | {cells} | |")
    for name, title in (("replays", "tasks replayed in it"), ("bytes", "bytes of gate.json")):
        cells = " | ".join(
            f"{found[size][name]:,.0f}" if name in found[size] else "–" for size in sizes
        )
        lines.append(f"| {title} | {cells} | |")
    return "\n".join(lines)


def _exponent(sizes: list[int], values: list[float | None]) -> str:
    """Return b of seconds = a · tasks^b between the two largest sizes measured."""
    known = [(size, value) for size, value in zip(sizes, values, strict=True) if value]
    if len(known) < 2:
        return "–"
    (small, before), (large, after) = known[-2:]
    return f"{math.log(after / before) / math.log(large / small):.2f}"
