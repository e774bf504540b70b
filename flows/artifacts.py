"""What a run shows in Prefect's UI: the gate's table, progress of training, links.

Only where a server lasts longer than the run. A failure to write one never fails the run.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

LOG = logging.getLogger("clr")
_SIGNS = {"pass": "✓", "fail": "✕", "inconclusive": "?"}
_ROWS = 200


def _quietly(write: Callable[[], Any]) -> Any:
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None or not os.environ.get("PREFECT_API_URL"):
        return None
    try:
        return write()
    except Exception as error:
        LOG.warning("artifact  not written: %s", error)
        return None


def key(*parts: str) -> str:
    """Return an artifact's key: lower-case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def gate(name: str, report: Mapping[str, Any]) -> None:
    """Show a gate report: its sentence, and its checks as a table, what failed first.

    Args:
        name: of a task, or of the flow.
        report: schema ``clr.gate/1``.
    """
    _quietly(lambda: _markdown(key("gate", name), gate_markdown(report), "Retention gate"))


def gate_markdown(report: Mapping[str, Any]) -> str:
    """Return a gate report as Markdown; what comes from outside cannot break out of its cell."""
    checks = sorted(report["checks"], key=lambda one: one["verdict"] == "pass")
    lines = [
        f"**{_SIGNS.get(report['verdict'], '')} {report['verdict']}** {_cell(report['sentence'])}",
        "",
        "| | check | task | proof | what was seen |",
        "|---|---|---|---|---|",
    ]
    for one in checks[:_ROWS]:
        cells = (one["name"], one["task"], one.get("how") or "", one.get("message", ""))
        lines.append(f"| {_SIGNS[one['verdict']]} | {' | '.join(map(_cell, cells))} |")
    if len(checks) > _ROWS:
        lines += ["", f"{len(checks) - _ROWS} more passed."]
    return "\n".join(lines)


def _cell(text: Any) -> str:
    plain = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", plain)


def _markdown(name: str, text: str, description: str) -> None:
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(text, key=name, description=description)


def links(task: str, found: Mapping[str, str]) -> None:
    """Show links of a task by name, such as its MLflow run; those without http are left out."""
    from prefect.artifacts import create_link_artifact

    for name, url in found.items():
        if url.startswith(("http://", "https://")):
            _quietly(
                lambda name=name, url=url: create_link_artifact(  # type: ignore[misc]
                    url, link_text=f"{task}: {name}", key=key(task, name), description=name
                )
            )


def progress(task: str) -> Callable[[float], None]:
    """Return what moves the bar of a task's training.

    Args:
        task: its name.

    Returns:
        A function of the share that is done, 0 to 1.
    """
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    made: list[UUID] = []

    def tell(share: float) -> None:
        percent = round(100 * min(max(share, 0.0), 1.0), 1)
        if made:
            _quietly(lambda: update_progress_artifact(made[0], progress=percent))
            return
        found = _quietly(
            lambda: create_progress_artifact(
                percent, key=key("training", task), description=f"Training of {task}"
            )
        )
        if found is not None:
            made.append(found)

    return tell
