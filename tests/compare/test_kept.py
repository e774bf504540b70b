"""What comparisons keep on disk, and what becomes of it later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clr.settings import Settings
from flows.compare.plan import Plan, Request, keep_plan, make_plan, read_plan
from flows.compare.tasks import File, Task

FILES = tuple(File(f"train/{at % 2}/{at}.png", at % 2, f"sha256:{at}") for at in range(8))
FACTS = {"seed": 0, "device": "cpu", "backbone": {"digest": "sha256:b"}}


def plan_of(root: str) -> Plan:
    task = Task("parts", root, ("good", "bad"), 32, FILES, FILES[:2])
    return make_plan(Request(("probe",), 1), [task], {"probe": False}, FACTS)


def test_a_comparison_goes_on_where_its_task_folders_are_now(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path, home=tmp_path)
    before, now = plan_of("/there"), plan_of("/here")
    assert before.digest == now.digest
    path = keep_plan(settings, before, "clr compare /there", "2026")
    keep_plan(settings, replace(before), "clr compare /there --seeds 1", "2027")
    assert read_plan(path)[1:] == ("clr compare /there", "2026")
    keep_plan(settings, now, "clr compare /here", "2027")
    plan, command, made_at = read_plan(path)
    assert plan.tasks["parts"].root == "/here"
    assert (command, made_at) == ("clr compare /there", "2026")
