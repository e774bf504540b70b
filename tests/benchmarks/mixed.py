"""A batch of 32 images over 1, 4, 16 and 32 tasks, and a thousand adapters in memory.

The default backbone at 96 pixels, adapters of random kernels, batches of random pixels: neither
changes how long anything takes. Each mix is compared with (a) the same batch of one task, (b) each
task's part by itself, (c) the bare backbone, in turns; ratios are of medians over the rounds.
Times are of processor time on one thread, which says the same on a machine that is busy with other
things; with `CLR_BENCH_THREADS=2` the mixes alone are measured, by the clock. `CLR_BENCH_ROUNDS`
sets the rounds, `CLR_WRITE_DOCS=1` puts the tables into docs/serving-speed.md.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.pages import write_docs

THREADS = int(os.environ.get("CLR_BENCH_THREADS", "1"))
ROUNDS = int(os.environ.get("CLR_BENCH_ROUNDS", "15"))
IMAGES, SIDE, CLASSES = 32, 96, 10
MIXES = (1, 4, 16, 32)
MANY = 1000
PLACES = ((32, 48), (96, 24), (144, 24), (240, 12), (480, 6), (672, 6), (1152, 3))
"""Channels and side of maps of the default backbone at 96 pixels."""

Calls = dict[str, Callable[[], object]]


def main() -> None:
    """Measure mixes, ways and memory, and print the tables."""
    import torch

    from clr.core.allocation import keep_freed_memory
    from clr.core.backbone import load_backbone

    torch.set_num_threads(THREADS)
    backbone = load_backbone("tf_efficientnet_lite0")
    tables: dict[str, str] = {}
    if THREADS == 1:  # first, while what is freed goes back to the system
        tables["memory"] = memory(backbone)
    keep_freed_memory()
    tables |= {"mixes" if THREADS == 1 else "mixes-cores": mixes(backbone)}
    if THREADS == 1:
        tables["ways"] = ways()
    for table in tables.values():
        print(table + "\n", flush=True)
    if os.environ.get("CLR_WRITE_DOCS"):
        write_docs("serving-speed.md", tables)


def adapter(backbone: Any, seed: int) -> Any:
    """Return an adapter of the default recipe's form with random kernels and head.

    Kernels of the first layers are identity, as they are of few images.
    """
    import torch

    from clr.core.adapter import Adapter, AdapterSpec, new_adapter
    from clr.core.images import Preprocessing
    from clr.core.recipe import Recipe, first_stride
    from clr.core.sites import is_early, late_sites

    labels = tuple(f"class-{number}" for number in range(CLASSES))
    way = Preprocessing(SIDE, backbone.mean, backbone.std)
    spec = AdapterSpec(f"task-{seed}", labels, backbone.name, backbone.digest, way, storage="int4")
    generator = torch.Generator().manual_seed(seed)
    head = torch.randn(CLASSES, backbone.channels, generator=generator), torch.zeros(CLASSES)
    made = new_adapter(spec, backbone, head)
    late = late_sites(backbone, first_stride(Recipe(), images=0))
    for name, tensor in made.tensors.items():
        if name.startswith("kernels.") and not is_early(name, late):
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return Adapter(spec, made.tensors).compressed()


def mixes(backbone: Any) -> str:
    """Return the table of mixes."""
    import torch

    from clr.core.mixed import MixedNetwork

    network = MixedNetwork(backbone)
    for seed in range(max(MIXES)):
        network.attach(adapter(backbone, seed))
    batch = torch.randn(IMAGES, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    calls: Calls = {"bare": lambda: network.features(batch)}
    for tasks in MIXES:
        names = [f"task-{row % tasks}" for row in range(IMAGES)]
        alone = [(batch[n::tasks].contiguous(memory_format=torch.channels_last), names[n::tasks])
                 for n in range(tasks)]  # fmt: skip
        calls[f"mixed {tasks}"] = lambda names=names: network.logits(batch, names)  # type: ignore[misc]
        calls[f"alone {tasks}"] = lambda alone=alone: [network.logits(*one) for one in alone]  # type: ignore[misc]
    took = interleaved(calls, ROUNDS)
    lines = [
        "| tasks | ms a batch | images/s | of (a) one task | times (b) by parts | of (c) bare |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for tasks in MIXES:
        mixed = took[f"mixed {tasks}"]
        lines.append(
            f"| {tasks} | {1000 * mixed:.0f} | {IMAGES / mixed:.0f} "
            f"| {took['mixed 1'] / mixed:.2f} | {took[f'alone {tasks}'] / mixed:.2f} "
            f"| {took['bare'] / mixed:.2f} |"
        )
    lines.append(f"| bare | {1000 * took['bare']:.0f} | {IMAGES / took['bare']:.0f} | | | |")
    return "\n".join(lines)


def ways() -> str:
    """Return the table of the ways in which 32 tasks can apply their kernels to a map."""
    import torch
    import torch.nn.functional as F

    from clr.core.mixing.convolve import narrow, wide
    from clr.core.mixing.fold import Step
    from clr.core.mixing.steps import alone, together

    lines = [
        "| channels × side | one task | 32 convolutions | channels first | wide | wide before |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for channels, side in PLACES:
        steps = [Step(torch.randn(channels, 1, 3, 3), torch.randn(channels))
                 for _ in range(IMAGES)]  # fmt: skip
        x = torch.randn(IMAGES, channels, side, side).contiguous(memory_format=torch.channels_last)
        taken = narrow(wide(x), IMAGES)

        def each(x: Any = x, steps: Any = steps) -> Any:
            return torch.cat([alone(x[n : n + 1], step) for n, step in enumerate(steps)])

        def first(x: Any = x, steps: Any = steps) -> Any:
            kernels = torch.cat([step.kernel for step in steps])
            flat = x.contiguous().view(1, len(kernels), *x.shape[2:])
            shifts = torch.cat([step.shift for step in steps])
            y = F.conv2d(flat, kernels, shifts, padding=1, groups=len(kernels))
            return y.view(x.shape).contiguous(memory_format=torch.channels_last)

        calls: Calls = {
            "one": lambda x=x, steps=steps: alone(x, steps[0]),  # type: ignore[misc]
            "each": each,
            "first": first,
            "wide": lambda x=x, steps=steps: together(x, steps),  # type: ignore[misc]
            "before": lambda x=taken, steps=steps: together(x, steps),  # type: ignore[misc]
        }
        with torch.inference_mode():
            took = interleaved(calls, ROUNDS)
        cells = " | ".join(f"{1000 * took[name]:.2f}" for name in calls)
        lines.append(f"| {channels} × {side} | {cells} |")
    return "\n".join(lines)


def memory(backbone: Any) -> str:
    """Return how much memory a thousand adapters take, and how long they take to be ready."""
    import torch

    from clr.core.mixed import MixedNetwork

    made = [adapter(backbone, seed) for seed in range(20)]
    network = MixedNetwork(backbone, ready_bytes=64 * 2**20)
    batch = torch.randn(1, 3, SIDE, SIDE)
    for number in range(300):  # until the ready ones fill their share
        network.attach(made[number % len(made)], f"task-{number}")
    before, seconds = resident(), []
    for number in range(300, 300 + MANY):
        begin = _clock()()
        last = f"task-{number}"
        network.attach(made[number % len(made)], last)
        seconds.append(_clock()() - begin)
    grown = resident() - before
    numbers = iter(range(MANY))  # each is asked for once, and so is not ready
    calls: Calls = {
        "ready": lambda: network.logits(batch, [last]),
        "packed": lambda: network.logits(batch, [f"task-{next(numbers)}"]),
    }
    took = interleaved(calls, 3 * ROUNDS)
    return "\n".join(
        (
            "| what | |",
            "|---|---:|",
            f"| memory of {MANY:,} more adapters | {grown / 1e6:.0f} MB |",
            f"| to attach one: checked, packed, ready | {1000 * median(seconds):.1f} ms |",
            f"| one image of a task that is ready | {1000 * took['ready']:.1f} ms |",
            f"| one image of a task that is packed | {1000 * took['packed']:.1f} ms |",
        )
    )


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def interleaved(calls: Calls, rounds: int) -> dict[str, float]:
    """Return the median seconds of each call, after two rounds to warm up.

    Each round calls all in another order: how much of its memory a call finds in the cache depends
    on the one before it.
    """
    clock, order, names = _clock(), random.Random(0), list(calls)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 2):
        order.shuffle(names)
        for name in names:
            begin = clock()
            calls[name]()
            if number > 1:
                found[name].append(clock() - begin)
    return {name: median(seconds) for name, seconds in found.items()}


def _clock() -> Callable[[], float]:
    return time.thread_time if THREADS == 1 else time.perf_counter
