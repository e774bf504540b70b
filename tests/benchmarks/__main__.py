"""Run the benchmarks: ``python -m tests.benchmarks [NAME]``; see each one's docstring."""

from __future__ import annotations

import sys

from tests.benchmarks import (
    adapter_size,
    audit,
    backbones,
    gate,
    growth,
    legs,
    mixed,
    plan,
    registry,
    routing,
    serving,
    training,
    trial,
)

BENCHMARKS = {
    "adapter-size": adapter_size.main,
    "audit": audit.main,
    "backbones": backbones.main,
    "gate": gate.main,
    "growth": growth.main,
    "legs": legs.main,
    "mixed": mixed.main,
    "plan": plan.main,
    "registry": registry.main,
    "routing": routing.main,
    "serving": serving.main,
    "training": training.main,
    "trial": trial.main,
}


def main() -> None:
    """Run the benchmarks that are named, by default all."""
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"{name}: {BENCHMARKS[name].__doc__}\n", flush=True)
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
