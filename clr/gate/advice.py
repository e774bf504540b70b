"""What to do after a verdict: one sentence for each kind of check that did not pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FAILED = {
    "retention": "The offer changes answers of earlier tasks. Keep the shared parts frozen and "
    "train an adapter instead, or offer a change that keeps within the margin.",
    "backbone": "Serve the backbone that the earlier tasks were accepted with. A new one must be "
    "declared, and every earlier task proved again by test.",
    "adapter": "Put back the adapter files that were accepted; clr verify names every file that is "
    "not as recorded.",
    "preprocessing": "Put back the recorded preprocessing (size, mean, std, interpolation), or "
    "declare the change and prove every earlier task again by test.",
    "canary": "Find what changed outside the recorded files: the loader, the serving code, a "
    "library. Then run the gate again.",
    "test-data": "Restore the recorded test images with dvc pull; clr verify names what is missing "
    "or changed.",
    "replay": "Run the gate again with a replay of the tasks it names.",
    "routing": "Tasks that look alike cannot be told apart without a name: make one task of them, "
    "or give the newcomer images that differ.",
    "doubt": "The newcomer makes right choices doubtful: make one task of what looks alike, or "
    "give the newcomer images that differ.",
    "improvement": "The adapter does not pay: look at the data and the recipe, or serve the linear "
    "probe.",
    "own-champion": "Keep the version in use, or train again, with images of every class that it "
    "knows; to drop a class on purpose, retire the task first (clr retire).",
    "parameters": "Choose a smaller variant, or raise CLR_GATE_MAX_PARAMS_PCT on purpose.",
    "bytes": "Choose a smaller variant, or raise CLR_GATE_MAX_ADAPTER_MB on purpose.",
    "latency": "Measure again on a quiet machine; then choose a smaller variant, or raise "
    "CLR_GATE_MAX_LATENCY_RATIO on purpose.",
    "provenance": "Train inside the pipeline, so that data, code, environment and recipe are "
    "recorded.",
}
_OPEN = {
    "retention": "Add test images to the tasks that could not be judged, or bring them back to an "
    "identical state.",
    "routing": "Add test images to the tasks whose routing could not be judged.",
    "improvement": "Add test images to the newcomer: so few cannot show that it is better.",
}


def overlap_step(report: Mapping[str, Any]) -> str:
    """Return what to do about tasks that look alike; empty where there are none."""
    names = [one["task"] for one in report.get("overlaps", ())]
    if not names:
        return ""
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return (
        f"{report['newcomer']} looks like {listed}: name the task in requests, or make one task of "
        "them."
    )


def next_steps(report: Mapping[str, Any]) -> list[str]:
    """Return what the reader can do now, most pressing first.

    Args:
        report: the report in its ``gate.json`` form.
    """
    name = report["newcomer"]
    alike = list(filter(None, [overlap_step(report)]))
    if report["verdict"] == "pass":
        where = f" on its page in the registry, or by clr review {name} VERSION" if name else ""
        return [*alike, f"Review the candidate{where}; approving it puts it into service."]
    failed, undecided = _kinds(report["failed"]), _kinds(report["inconclusive"])
    steps = [_FAILED[kind] for kind in failed]
    steps += [_OPEN.get(kind, _FAILED[kind]) for kind in undecided if kind not in failed]
    return [*steps, *alike, "Nothing has changed: every version in use is still in use."]


def _kinds(keys: list[str]) -> list[str]:
    return list(dict.fromkeys(key.partition(":")[0] for key in keys))
