"""Smoke test: real task folders, where this checkout has some beside it, pass validation."""

from __future__ import annotations

from pathlib import Path

import pytest

PLACE = Path(__file__).resolve().parents[3] / "shared" / "tasks"
FOLDERS = sorted(path for path in PLACE.glob("*") if (path / "train").is_dir())


@pytest.mark.skipif(not FOLDERS, reason="there is no ../shared/tasks beside this checkout")
def test_the_smallest_real_task_is_accepted(tmp_path):
    from clr.data.folder import read_task
    from clr.data.manifest import scan
    from clr.data.suite import validate

    smallest = min(FOLDERS, key=lambda path: sum(1 for _ in path.rglob("*")))
    manifest = scan(read_task(smallest), max_pixels=50_000_000)
    report = validate(manifest, min_images_per_class=10, out=tmp_path)
    assert report.success, report.refused
