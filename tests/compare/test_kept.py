"""What comparisons keep on disk, and what becomes of it later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clr.core.baseline import Baseline
from clr.core.probe import Probe
from clr.errors import IntegrityBroken
from clr.settings import Settings
from flows.compare import baselines
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


@pytest.mark.parametrize("left", [0, 9, 60, -4])
def test_a_damaged_baseline_is_an_error_that_says_what_to_do(tmp_path: Path, left: int) -> None:
    probe = Probe(torch.zeros(2, 3), torch.zeros(2), 1.0)
    whole = Probe(torch.ones(2, 3), torch.ones(2), 1.0)
    made = Baseline(probe, whole, torch.arange(3), torch.arange(2), (), torch.ones(2))
    path = tmp_path / "one.safetensors"
    path.write_bytes(baselines._to_bytes(made, 1.0)[:left])
    with pytest.raises(IntegrityBroken, match="is damaged"):
        baselines._read(path)
