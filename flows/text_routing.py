"""What a person reads about the choice of a task, by the router or in spite of it."""

from __future__ import annotations

from typing import Any

Result = dict[str, Any]


def overlaps(gate: Result) -> list[str]:
    """Warn of tasks whose images the router cannot tell from the newcomer's.

    Args:
        gate: what ``clr onboard --json`` says of the gate; of earlier versions, too.
    """
    found = gate.get("overlaps", ())
    lines = [f"  overlap    {one['sentence']}" for one in found]
    if lines:
        lines.append("             name the task in requests, or make one task of what looks alike")
    return lines


def predicted(result: Result) -> str:
    """List each image with its label, or with what was wrong with it."""
    lines = [f"release {result['release']}"]
    for one in result["predictions"]:
        if "error" in one:
            lines.append(f"{one['file']}: {one['error']}")
            continue
        how = "routed" if one["routed"] else "given"
        lines.append(
            f"{one['file']}: {one['label']} ({one['probability']:.3f}), task {one['task']} ({how})"
        )
        if one["unknown"]:
            lines.append(f"  unknown: unlike the images of {one['task']}, which is nearest")
        if one["doubtful"]:
            lines.append(f"  doubtful: {one['doubtful']} Name the task with --task")
    return "\n".join(lines)
