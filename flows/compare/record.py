"""A comparison in MLflow: one run, and below it one for each unit of work."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clr.compare.unit import Unit
from clr.errors import ServiceUnavailable
from flows.compare.plan import Plan, finished, read_unit
from flows.session import Session
from flows.steps import digest_of

if TYPE_CHECKING:
    from clr.registry.runs import Run

LOG = logging.getLogger("clr")
EXPERIMENT = "clr/compare"
_TASK = "compare"


class Record:
    """The runs of one comparison; each is written once, however often the comparison goes on.

    While units are worked on, a registry that cannot be reached is no reason to stop: what
    is missing is written in the end.
    """

    def __init__(self, session: Session, plan: Plan) -> None:
        """Open nothing yet."""
        self._session, self._plan = session, plan
        self._silent = False

    @cached_property
    def _parent(self) -> Run:
        from clr.registry.runs import find_or_start_run, log_params

        about, registry = self._plan.about, self._session.registry
        run = find_or_start_run(
            registry,
            _TASK,
            self._plan.digest,
            name=f"compare {self._plan.name}",
            experiment=EXPERIMENT,
        )
        params = {
            "methods": ", ".join(about["methods"]),
            "tasks": ", ".join(self._plan.tasks),
            "seeds": len(about["seeds"]),
            "orders": len(about["orders"]),
            "amounts": about["amounts"],
            **about["budget"],
            "backbone": about["backbone"]["name"],
            "backbone_digest": about["backbone"]["digest"],
            "device": about["device"],
            "code_digest": about["code"],
        }
        log_params(registry, run, params)
        return run

    def unit(self, key: str) -> None:
        """Write one finished unit; a registry that is away is told of once."""
        if self._silent:
            return
        try:
            self._write(read_unit(self._session.settings, self._plan, key))
        except ServiceUnavailable as error:
            self._silent = True
            LOG.warning("compare   not recorded for now: %s", error.message)

    def everything(self, document: Mapping[str, Any], files: Mapping[str, Path]) -> str:
        """Write what is missing, the figures of all methods, and the report; return the run's id.

        Args:
            document: of schema ``clr.compare/1``.
            files: of the report, by name.

        Raises:
            ServiceUnavailable: the registry cannot be reached.
        """
        from clr.registry.nested import finished_children
        from clr.registry.runs import finish, log_bytes, log_metrics

        registry, parent = self._session.registry, self._parent
        there = finished_children(registry, parent)
        for key, unit in finished(self._session.settings, self._plan).items():
            if self._child_key(key) not in there:
                self._write(unit)
        log_metrics(registry, parent, _figures(document))
        log_bytes(registry, parent, {name: path.read_bytes() for name, path in files.items()})
        finish(registry, parent, "FAILED" if document["failed"] else "FINISHED")
        return parent.id

    def _child_key(self, key: str) -> str:
        return digest_of([self._plan.digest, key])

    def _write(self, unit: Unit) -> None:
        from clr.registry.nested import start_child
        from clr.registry.runs import finish, log_metrics, log_params

        registry, asked = self._session.registry, unit.asked
        run = start_child(registry, self._parent, self._child_key(unit.key), str(asked), EXPERIMENT)
        params = {
            "method": asked.method,
            "tasks": " → ".join(asked.tasks),
            "seed": asked.seed,
            "images": asked.images or "all",
            "per_class": asked.per_class or "",
            "unit": unit.key,
            "hardware": unit.about["hardware"],
            "threads": unit.about["threads"],
        }
        log_params(registry, run, {name: one for name, one in params.items() if one != ""})
        for number, step in enumerate(unit.steps):
            values = {f"accuracy.{task}": unit.accuracy(number, task) for task in step.logits}
            log_metrics(
                registry,
                run,
                {
                    **values,
                    "accuracy": float(np.mean(list(values.values()))),
                    "seconds": step.seconds,
                    "cpu_seconds": step.cpu_seconds,
                    "memory_mb": step.memory_mb,
                    "latency_ms": step.latency["p50"],
                    **{f"added.{name}": value for name, value in step.cost.items()},
                },
                step=number,
            )
        finish(registry, run)


def _figures(document: Mapping[str, Any]) -> dict[str, float]:
    """Return the main figures of every method, by MLflow's name of a metric."""
    found: dict[str, float] = {}
    for one in document["methods"]:
        method = one["name"].replace("+", " ").replace("=", ":")  # MLflow refuses these two
        for name in ("average", "forgetting", "backward_transfer", "forward_transfer", "seconds"):
            if one.get(name):
                found[f"{method}.{name}"] = one[name]["mean"]
        if one["seeds"]:
            found[f"{method}.bytes"] = one["cost"]["mean"]["bytes"]
    return found
