"""Run `version_task` in forked children that kill themselves (SIGKILL) at a named point.

One process that has imported everything and has one thread; each line on stdin
(JSON: workspace, task, point) is one child, each line on stdout how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dvc.repo  # noqa: F401  before any child
import dvc.utils.serialize._yaml as dvc_yaml
import dvc_data.hashfile.build  # noqa: F401
import dvc_objects.fs.local as dvc_local

from clr.data import objects, swap, versioning
from clr.data.demo_images import Dice, png
from clr.data.folder import read_task
from clr.data.manifest import scan
from clr.data.workspace import init_workspace
from clr.settings import load_settings


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, call: int = 1, act: Callable[..., None] | None = None) -> None:
    """Die at the given call of a function, after `act` with its arguments."""
    real, calls = getattr(owner, name), [0]

    def replacement(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            if act:
                act(*args, **kwargs)
            die()
        return real(*args, **kwargs)

    setattr(owner, name, replacement)


def half_a_data_dvc(_data: Any, stream: Any) -> None:
    stream.write("outs:\n- md5: 0123")
    stream.flush()


def half_a_file(source: str, target: str, **_: Any) -> None:
    Path(target).write_bytes(Path(source).read_bytes()[:20])


POINTS: dict[str, Callable[[], None]] = {
    "staging": lambda: before(swap, "_copy", 3),
    "staged": lambda: before(swap, "write_atomic"),
    "journal written": lambda: before(swap, "_swap"),
    "old moved out": lambda: before(swap.Path, "rename", 2),
    "new moved in": lambda: before(objects, "add"),
    "object half copied": lambda: before(dvc_local, "copyfile", 4, half_a_file),
    "data.dvc half written": lambda: before(dvc_yaml, "_dump", 1, half_a_data_dvc),
    "pinned": lambda: before(versioning, "_require_exact"),
    "decided": lambda: before(swap.shutil, "rmtree", 2),
    "pushing": lambda: before(objects, "_missing", 2),
    "pushed": lambda: before(versioning, "git_state"),
    "repair 1": lambda: before(swap.Path, "rename", 1),
    "repair 2": lambda: before(swap.Path, "rename", 2),
}


def child(workspace: str, path: str, point: str) -> None:
    task = read_task(path)
    manifest = scan(task, max_pixels=10_000)
    POINTS[point]()
    versioning.version_task(task, manifest, load_settings(Path(workspace)))


def warm_up() -> None:
    """Import what is imported on first use, so that the children need not."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"):
            path = Path(folder, "task", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(Dice.named(name).noise(8, 8, 99) + 128))
        init_workspace(Path(folder, "w"))
        task = read_task(Path(folder, "task"))
        settings = load_settings(Path(folder, "w"))
        versioning.version_task(task, scan(task, max_pixels=10_000), settings)


warm_up()
for line in sys.stdin:
    arguments = json.loads(line)
    pid = os.fork()
    if pid == 0:
        try:
            child(**arguments)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    print(json.dumps({"signal": status & 0x7F}), flush=True)
