"""The rules, evaluated by Great Expectations for real, and what people read."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from clr.data.demo import make_demo
from clr.data.folder import read_task
from clr.data.lookalike import look_alikes
from clr.data.manifest import Manifest, Row, scan
from clr.data.rules import rules
from clr.data.suite import Finding, Validation, validate

Judge = Callable[..., Validation]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    def run(root: Path, least: int = 10) -> Validation:
        manifest = scan(read_task(root), max_pixels=1_000_000)
        return validate(manifest, min_images_per_class=least, out=tmp_path / "report")

    return run


def finding(validation: Validation, name: str) -> Finding:
    return next(item for item in validation.results if item.name == name)


def broken(validation: Validation) -> set[str]:
    return {item.name for item in validation.results if not item.ok}


def test_a_good_task_passes_every_rule(new_task: Any, judge: Judge) -> None:
    validation = judge(new_task())
    assert validation.success
    assert broken(validation) == set()
    assert [item.name for item in validation.results] == [rule.name for rule in rules(10)]
    assert validation.html.is_file()


def test_a_good_task_without_a_test_folder_passes(new_task: Any, judge: Judge) -> None:
    assert broken(judge(new_task(train=50, test=0))) == set()


def test_names_of_rules_are_unique() -> None:
    names = [rule.name for rule in rules(10)]
    assert len(set(names)) == len(names)


def test_damaged_files_refuse_the_task_and_are_named(new_task: Any, judge: Judge) -> None:
    root = new_task(train=13)
    (root / "train/good/zero.jpg").write_bytes(b"")
    (root / "train/good/text.jpg").write_text("hello")
    validation = judge(root)
    found = finding(validation, "decodable")
    assert not validation.success
    assert broken(validation) == {"decodable"}
    assert set(found.files) == {"train/good/zero.jpg", "train/good/text.jpg"}
    assert "train/good/zero.jpg is empty (0 bytes)" in found.message
    assert "train/good/text.jpg is not an image" in found.details
    assert found.observed == {"broken": 2, "of": 48}


def test_the_refusal_names_files_reasons_and_the_report(new_task: Any, judge: Judge) -> None:
    root = new_task()
    (root / "train/good/zero.jpg").write_bytes(b"")
    validation = judge(root)
    error = validation.refusal()
    assert error.exit_code == 3
    assert "train/good/zero.jpg is empty" in str(error)
    assert str(validation.html) in str(error)
    assert error.data["failed"] == ["decodable"]
    assert error.data["files"] == ["train/good/zero.jpg"]


def test_a_long_list_is_cut_in_the_message_only(new_task: Any, judge: Judge) -> None:
    root = new_task()
    for number in range(40):
        (root / f"train/good/bad{number:02d}.jpg").write_text(f"x{number}")
    found = finding(judge(root), "decodable")
    assert "bad04" in found.message
    assert "and 35 more" in found.message
    assert "bad30" not in found.message
    assert len(found.files) == len(found.details) == 40


def test_a_format_that_is_not_accepted_is_named(new_task: Any, judge: Judge) -> None:
    root = new_task()
    (root / "train/good/x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1")
    assert "x.heic (HEIC)" in finding(judge(root), "formats").message


def test_tiny_images_are_refused(new_task: Any, judge: Judge, draw: Any) -> None:
    root = new_task()
    draw(90, side=7).save(root / "train/good/tiny.png")
    assert "tiny.png (7 x 7)" in finding(judge(root), "smallest-side").message


def test_one_class_is_refused(new_task: Any, judge: Judge) -> None:
    validation = judge(new_task(classes=("good",)))
    assert broken(validation) == {"classes"}
    assert not validation.success


def test_two_images_are_too_few(new_task: Any, judge: Judge) -> None:
    validation = judge(new_task(train=1, test=0))
    assert not validation.success
    assert {"images-per-class", "same-classes"} <= broken(validation)
    assert "train/bad (0)" in finding(validation, "images-per-class").message


def test_an_empty_class_is_refused_although_it_has_no_row(new_task: Any, judge: Judge) -> None:
    root = new_task()
    (root / "train/ugly").mkdir()
    validation = judge(root)
    assert finding(validation, "same-classes").files == ("train/ugly", "test/ugly")
    assert not validation.success


def test_a_task_of_empty_classes_is_refused(new_task: Any, judge: Judge, tmp_path: Path) -> None:
    for name in ("a/train/x", "a/train/y"):
        (tmp_path / name).mkdir(parents=True)
    assert "same-classes" in broken(judge(tmp_path / "a"))


def test_a_class_that_only_test_has_is_refused(new_task: Any, judge: Judge) -> None:
    root = new_task()
    shutil.rmtree(root / "train/good")
    assert finding(judge(root), "same-classes").files == ("train/good",)


def test_the_limit_per_class_counts_usable_images_in_each_split(
    new_task: Any, judge: Judge
) -> None:
    root = new_task(train=12, test=10)
    assert finding(judge(root, least=10), "images-per-class").ok
    (root / "test/good/000.png").write_bytes(b"broken")
    found = finding(judge(root, least=10), "images-per-class")
    assert found.files == ("test/good",)
    assert "test/good (9)" in found.message


def test_imbalance_is_a_warning(new_task: Any, judge: Judge, draw: Any) -> None:
    root = new_task(train=12)
    for number in range(1000, 1120):
        draw(number).save(root / f"train/good/more{number}.png")
    validation = judge(root)
    assert validation.success
    assert broken(validation) == {"imbalance"}
    assert finding(validation, "imbalance").files == ("train/bad",)


def test_an_image_in_both_splits_is_refused(new_task: Any, judge: Judge) -> None:
    root = new_task()
    shutil.copy(root / "train/good/000.png", root / "test/good/leak.png")
    validation = judge(root)
    found = finding(validation, "duplicates-across-splits")
    assert not validation.success
    assert set(found.files) == {"train/good/000.png", "test/good/leak.png"}
    assert "test/good/leak.png (same as train/good/000.png)" in found.message


def test_an_image_in_two_classes_is_refused(new_task: Any, judge: Judge) -> None:
    root = new_task()
    shutil.copy(root / "train/good/000.png", root / "train/bad/again.png")
    found = finding(judge(root), "label-conflicts")
    assert (found.ok, found.severity) == (False, "critical")
    assert set(found.files) == {"train/good/000.png", "train/bad/again.png"}


def test_an_image_twice_in_one_class_is_a_warning(new_task: Any, judge: Judge) -> None:
    root = new_task()
    shutil.copy(root / "train/good/000.png", root / "train/good/again.png")
    validation = judge(root)
    assert validation.success
    assert broken(validation) == {"duplicates-in-split"}


def test_copies_without_a_test_folder_stay_in_one_split(new_task: Any, judge: Judge) -> None:
    root = new_task(train=50, test=0)
    for number in range(10):
        shutil.copy(root / f"train/good/{number:03d}.png", root / f"train/good/c{number}.png")
    assert broken(judge(root)) == {"duplicates-in-split"}


def test_two_empty_files_are_not_duplicates(new_task: Any, judge: Judge) -> None:
    root = new_task()
    for path in ("train/good/x.png", "test/bad/y.png"):
        (root / path).write_bytes(b"")
    assert broken(judge(root)) == {"decodable"}


# Copies under other bytes


def as_jpeg(image: Image.Image, quality: int = 85) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same pixels": lambda image: image.copy(),
    "JPEG": as_jpeg,
    "twice the size": lambda image: image.resize((80, 80), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
def test_a_copy_under_other_bytes_is_refused(
    new_task: Any, judge: Judge, draw: Any, change: Callable[[Image.Image], Image.Image]
) -> None:
    root = new_task()
    original = Image.open(root / "train/good/003.png")
    change(original).save(root / "test/good/leak.bmp")
    validation = judge(root)
    found = finding(validation, "near-duplicates-across-splits")
    assert not validation.success
    assert set(found.files) == {"train/good/003.png", "test/good/leak.bmp"}
    assert "test/good/leak.bmp (like train/good/003.png)" in found.message


def test_images_of_one_product_line_are_not_called_copies(
    judge: Judge, tmp_path: Path, draw: Any
) -> None:
    """One layout and one lamp, near-equal hashes; every piece has its own faint grain."""
    layout = np.asarray(draw(7, side=48, mode="L"), dtype=float)
    for seed, path in enumerate(
        f"{split}/{label}/{number}.png"
        for split, count in (("train", 30), ("test", 12))
        for label in ("clean", "pit")
        for number in range(count)
    ):
        grain = np.random.default_rng(seed).normal(0, 3, layout.shape)
        file = tmp_path / "cells" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(layout + grain, 0, 255).astype(np.uint8)).save(file)
    manifest = scan(read_task(tmp_path / "cells"), max_pixels=1_000_000)
    hashes = [int(row.phash, 16) for row in manifest.rows]
    assert sum((hashes[0] ^ other).bit_count() <= 4 for other in hashes) > 20  # a hash alone errs
    assert finding(judge(tmp_path / "cells"), "near-duplicates-across-splits").ok


def test_another_crop_of_one_photograph_is_worth_a_look(
    new_task: Any, judge: Judge, draw: Any
) -> None:
    root = new_task()
    image = draw(502, side=200)
    image.save(root / "train/good/whole.png")
    image.crop((4, 4, 200, 200)).save(root / "test/good/crop.png")
    validation = judge(root)
    assert "test/good/crop.png" in {
        file
        for name in ("look-alikes-across-splits", "near-duplicates-across-splits")
        for file in finding(validation, name).files
    }


def test_the_demo_tasks_pass(tmp_path: Path, judge: Judge) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    for folder in make_demo(tmp_path / "data"):
        validation = judge(folder)
        assert broken(validation) == set(), folder.name


def test_files_that_vanish_after_the_scan_are_no_evidence(new_task: Any) -> None:
    root = new_task()
    Image.open(root / "train/good/003.png").save(root / "test/good/leak.bmp")
    manifest = scan(read_task(root), max_pixels=1_000_000)
    assert look_alikes(manifest)[0].is_copy
    (root / "test/good/leak.bmp").unlink()
    assert look_alikes(manifest) == ()


# Blank images and drift


def test_a_blank_image_is_a_warning(new_task: Any, judge: Judge) -> None:
    root = new_task()
    Image.new("RGB", (40, 40), "black").save(root / "train/good/black.png")
    validation = judge(root)
    assert validation.success
    assert broken(validation) == {"blank"}
    assert finding(validation, "blank").files == ("train/good/black.png",)


def test_a_class_of_blank_images_is_refused(new_task: Any, judge: Judge) -> None:
    root = new_task()
    for number, file in enumerate(sorted((root / "train/good").iterdir())):
        Image.new("RGB", (40, 40), (number, number, number)).save(file)
    validation = judge(root)
    assert not validation.success
    assert finding(validation, "blank-classes").files == ("train/good",)


def test_drift_between_the_splits_is_a_warning(new_task: Any, judge: Judge) -> None:
    root = new_task(train=30, test=30)
    for file in (root / "test").rglob("*.png"):
        dark = ImageEnhance.Brightness(Image.open(file)).enhance(0.4)
        dark.convert("L").resize((60, 40)).save(file)
    validation = judge(root)
    found = finding(validation, "drift")
    assert validation.success
    for changed in ("width", "brightness", "contrast", "share of colour images"):
        assert changed in found.message
    assert "height" not in found.message


def test_unused_folders_are_a_warning(new_task: Any, judge: Judge) -> None:
    root = new_task()
    (root / "val").mkdir()
    validation = judge(root)
    assert validation.success
    assert finding(validation, "unused-folders").files == ("val",)


# The report


def test_the_report_is_json_and_html(new_task: Any, judge: Judge) -> None:
    validation = judge(new_task())
    report = json.loads(validation.json.read_text())
    assert (report["schema"], report["success"]) == ("clr.validation/1", True)
    assert report["manifest"] == validation.digest
    assert [item["name"] for item in report["findings"]] == [r.name for r in validation.results]
    assert set(report["great_expectations"]) == {"images", "classes", "drift", "folders"}
    pages = list(validation.html.parent.rglob("*.html"))
    text = "".join(page.read_text() for page in pages)
    for rule in rules(10):
        assert rule.name in text


def test_names_cannot_inject_html_into_the_report(new_task: Any, judge: Judge, draw: Any) -> None:
    root = new_task()
    name = "<img src=x onerror=alert(1)> $HOME ${x} %s.png"
    (root / "train/good" / name).write_bytes(b"")
    Image.open(root / "train/good/000.png").save(root / "train/good" / f"1{name}")
    Image.open(root / "train/good/001.png").save(root / "test/good" / f"2{name}", "BMP")
    validation = judge(root)
    assert f"train/good/{name}" in finding(validation, "decodable").files
    assert f"test/good/2{name}" in finding(validation, "near-duplicates-across-splits").files
    for page in validation.html.parent.rglob("*.html"):
        assert "<img src=x" not in page.read_text()


def test_a_former_report_is_replaced(new_task: Any, judge: Judge) -> None:
    root = new_task()
    judge(root)
    validation = judge(root)
    pages = list((validation.html.parent / "validations/images").rglob("*.html"))
    assert len(pages) == 1


def test_validation_writes_nothing_outside_its_folder(new_task: Any, tmp_path: Path) -> None:
    root = new_task()
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    code = (
        "import sys; from pathlib import Path\n"
        "from clr.data.folder import read_task\n"
        "from clr.data.manifest import scan\n"
        "from clr.data.suite import validate\n"
        "m = scan(read_task(sys.argv[1]), max_pixels=10**6)\n"
        "assert 'great_expectations' not in sys.modules and 'pandas' not in sys.modules\n"
        "validate(m, min_images_per_class=10, out=Path(sys.argv[2]))\n"
    )
    before = sorted(root.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", code, root, tmp_path / "out"],
        cwd=work,
        env={
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Calculating Metrics" not in done.stderr  # no progress bars in logs
    assert sorted(root.rglob("*")) == before
    assert list(work.iterdir()) == []
    assert [p for p in home.rglob("*") if p.is_file() and ".cache" not in p.parts] == []


def test_ten_thousand_images_take_seconds(tmp_path: Path) -> None:
    """Rows of a real scan, multiplied: half with near-equal hashes, as a dull product has."""
    rng = np.random.default_rng(0)
    template = Row(
        path="train/a/x.png", label="a", format="PNG", mode="L", width=32, height=32, bytes=900
    )
    rows = []
    for number in range(10_000):
        label, split = "abcdefghij"[number % 10], "test" if number // 10 % 5 == 0 else "train"
        bits = int(rng.integers(0, 1 << 63)) if number % 2 else 1 << int(rng.integers(0, 60))
        path = f"{split}/{label}/{number:05d}.png"
        values = {"path": path, "split": split, "label": label, "phash": f"{bits:016x}"}
        values |= {"sha256": f"sha256:{number}", "mean": 100 + number % 50, "std": 30.0}
        rows.append(replace(template, **values))
    rows.sort(key=lambda row: row.path)
    manifest = Manifest("big", tmp_path, tuple("abcdefghij"), False, tuple(rows))
    validate(replace(manifest, rows=tuple(rows[:500])), min_images_per_class=10, out=tmp_path)
    start = time.process_time()
    assert validate(manifest, min_images_per_class=10, out=tmp_path / "report").success
    assert time.process_time() - start < 10  # 2 s on a free core
