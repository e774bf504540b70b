"""The page of a task's image checks: the verdict first, nothing that runs or is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clr.data.checks import checks_html
from clr.data.folder import read_task
from clr.data.manifest import scan
from clr.data.suite import validate


def page(root: Path, out: Path) -> str:
    manifest = scan(read_task(root), max_pixels=1_000_000)
    validation = validate(manifest, min_images_per_class=10, out=out)
    return checks_html(json.loads(validation.json.read_bytes()))


def test_a_good_task_is_accepted_in_the_first_words(new_task: Any, tmp_path: Path) -> None:
    found = page(new_task(), tmp_path / "report")
    assert "<h1>✓ Accepted</h1>" in found
    assert "rules are kept. " in found
    assert "<th scope=row>duplicates-across-splits</th>" in found
    assert "Great Expectations 1." in found


def test_what_refused_the_task_comes_first_with_its_files(new_task: Any, tmp_path: Path) -> None:
    root = new_task()
    label = sorted((root / "train").iterdir())[0]
    (label / "torn.png").write_bytes(b"no image")
    found = page(root, tmp_path / "report")
    assert "<h1>✕ Refused</h1>" in found
    first = found[found.index("<tbody>") :]
    assert first.index("Broken") < first.index("Kept")
    assert "torn.png" in first


def test_nothing_runs_nothing_is_loaded_and_words_stay_words() -> None:
    hostile = "<script>alert(1)</script>"
    finding = {
        "name": hostile, "severity": "warning", "ok": False, "message": hostile,
        "files": [], "details": [hostile] * 30, "observed": {"broken": 1, "of": 2},
    }  # fmt: skip
    report = {
        "task": hostile, "manifest": hostile, "train": 1, "test": 1, "split_made": True,
        "success": True, "findings": [finding], "great_expectations": {},
    }  # fmt: skip
    found = checks_html(report)
    assert "<script" not in found
    assert "src=" not in found
    assert "http://" not in found
    assert "https://" not in found
    assert "10 more are in validation.json" in found
    assert "0 of 1 rules are kept, 1 warn. " in found
