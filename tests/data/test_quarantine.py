"""What is kept of a refused task, and where its images are afterwards."""

from __future__ import annotations

import json
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clr.data.folder import read_task
from clr.data.manifest import Manifest, scan
from clr.data.quarantine import quarantine, quarantine_archive
from clr.data.suite import Validation, validate
from clr.errors import DataRefused, ServiceUnavailable, UsageError
from clr.settings import Settings

Judge = Callable[[Path], tuple[Manifest, Validation]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    workspace = tmp_path / "workspace"
    (workspace / "incoming").mkdir(parents=True)
    return Settings(workspace=workspace)


@pytest.fixture
def bad_task(new_task: Any) -> Path:
    root: Path = new_task()
    (root / "train/good/zero.jpg").write_bytes(b"")
    (root / "train/good/two words.jpg").write_text("text")
    return root


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    def run(root: Path) -> tuple[Manifest, Validation]:
        manifest = scan(read_task(root), max_pixels=1_000_000)
        out = tmp_path / "report"
        return manifest, validate(manifest, min_images_per_class=10, out=out)

    return run


def files_below(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_the_report_and_a_message_that_names_files_are_kept(
    bad_task: Path, judge: Judge, settings: Settings
) -> None:
    kept = quarantine(*judge(bad_task), settings)
    assert kept.parent == settings.workspace / "quarantine" / "cells"
    assert kept.name.endswith("Z")
    message = (kept / "message.txt").read_text()
    assert "train/good/zero.jpg is empty" in message
    assert "train/good/two words.jpg is not an image" in message
    assert (kept / "data-docs/index.html").is_file()
    assert json.loads((kept / "validation.json").read_text())["success"] is False


def test_images_from_elsewhere_stay_and_the_message_says_where(
    bad_task: Path, judge: Judge, settings: Settings
) -> None:
    before = files_below(bad_task)
    kept = quarantine(*judge(bad_task), settings)
    assert files_below(bad_task) == before
    assert f"Its images are in {bad_task}." in (kept / "message.txt").read_text()
    assert not (kept / "images").exists()


def test_images_that_came_in_move_into_the_quarantine(
    bad_task: Path, judge: Judge, settings: Settings
) -> None:
    source = settings.workspace / "incoming" / "cells"
    shutil.move(bad_task, source)
    before = files_below(source)
    kept = quarantine(*judge(source), settings)
    assert not source.exists()
    assert files_below(kept / "images") == before
    assert str(kept / "images") in (kept / "message.txt").read_text()


@pytest.mark.parametrize("change", ["corrected", "removed", "added"])
def test_quarantine_moves_only_what_was_judged(
    bad_task: Path, judge: Judge, settings: Settings, change: str
) -> None:
    source = settings.workspace / "incoming" / "cells"
    shutil.move(bad_task, source)
    judged = judge(source)
    if change == "corrected":
        shutil.copyfile(source / "train/good/000.png", source / "train/good/zero.jpg")
    elif change == "removed":
        (source / "train/good/zero.jpg").unlink()
    else:
        (source / "test/good/new.png").write_bytes(b"new")
    before = files_below(source)
    kept = quarantine(*judged, settings)
    assert files_below(source) == before
    assert not (kept / "images").exists()
    message = (kept / "message.txt").read_text()
    assert f"{source} has changed since it was judged: it stays there." in message
    assert "train/good/zero.jpg is empty" in message


def test_links_and_names_that_were_never_read_do_not_keep_images_where_they_are(
    bad_task: Path, judge: Judge, settings: Settings
) -> None:
    source = settings.workspace / "incoming" / "cells"
    shutil.move(bad_task, source)
    (source / "train/good/out.png").symlink_to("/etc/hostname")
    (source / os.fsdecode(b"train/good/\xff.png")).write_bytes(b"x")
    kept = quarantine(*judge(source), settings)
    assert not source.exists()
    assert (kept / "images/train/good/out.png").is_symlink()


def test_another_incoming_and_what_was_unpacked_count_as_well(
    bad_task: Path, judge: Judge, settings: Settings, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    moved = settings.model_copy(update={"incoming": inbox})
    for place in (inbox, settings.unpacked / "0123"):
        source = place / "cells"
        shutil.copytree(bad_task, source)
        kept = quarantine(*judge(source), moved)
        assert not source.exists()
        assert files_below(kept / "images") == files_below(bad_task)


def test_a_refused_archive_moves_beside_the_reason(settings: Settings) -> None:
    archive = settings.inbox / "cells.tar.gz"
    archive.write_bytes(b"no archive")
    refusal = DataRefused("It is damaged.", fix="Copy it again.")
    kept = quarantine_archive(archive, "cells", refusal, settings)
    assert kept.parent == settings.workspace / "quarantine" / "cells"
    assert files_below(kept) == {"message.txt", "archive.tar.gz"}
    assert not archive.exists()
    message = (kept / "message.txt").read_text()
    assert "It is damaged." in message
    assert "Copy it again." in message


def test_a_link_in_incoming_does_not_move_what_it_names(
    bad_task: Path, judge: Judge, settings: Settings
) -> None:
    link = settings.workspace / "incoming" / "cells"
    link.symlink_to(bad_task)
    before = files_below(bad_task)
    quarantine(*judge(link), settings)
    assert files_below(bad_task) == before


def test_a_way_around_incoming_does_not_move_images(
    bad_task: Path, judge: Judge, settings: Settings
) -> None:
    around = settings.workspace / "incoming" / ".." / ".." / "cells"
    quarantine(*judge(around), settings)
    assert bad_task.is_dir()


def test_two_refusals_in_one_second_are_both_kept(
    bad_task: Path, judge: Judge, settings: Settings
) -> None:
    judged = judge(bad_task)
    kept = {quarantine(*judged, settings) for _ in range(3)}
    assert len(kept) == 3
    assert all((folder / "message.txt").is_file() for folder in kept)


def test_nothing_else_in_the_workspace_changes(
    bad_task: Path, judge: Judge, settings: Settings
) -> None:
    (settings.workspace / "data.dvc").write_text("x")
    quarantine(*judge(bad_task), settings)
    names = {path.name for path in settings.workspace.iterdir()}
    assert names == {"data.dvc", "incoming", "quarantine"}
    assert not list((settings.workspace / "quarantine/cells").glob(".*"))


def test_a_name_cannot_lead_out_of_the_quarantine(
    bad_task: Path, judge: Judge, settings: Settings
) -> None:
    manifest, validation = judge(bad_task)
    with pytest.raises(UsageError):
        quarantine(replace(manifest, task="../cells"), validation, settings)


def test_where_nothing_can_be_written_the_images_stay(
    bad_task: Path, judge: Judge, settings: Settings
) -> None:
    source = settings.workspace / "incoming" / "cells"
    shutil.move(bad_task, source)
    (settings.workspace / "quarantine").write_text("a file is in the way")
    before = files_below(source)
    with pytest.raises(ServiceUnavailable, match="quarantine"):
        quarantine(*judge(source), settings)
    assert files_below(source) == before


@pytest.fixture
def elsewhere(settings: Settings) -> Iterator[Settings]:
    """A folder `incoming` on another disk, as a share is."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="clr-tests-") as disk:
        if os.stat(disk).st_dev == settings.workspace.stat().st_dev:
            pytest.skip("this machine has but one disk for tests")
        yield settings.model_copy(update={"incoming": Path(disk)})


def test_what_came_in_on_another_disk_moves_as_well(
    bad_task: Path, judge: Judge, elsewhere: Settings
) -> None:
    source, archive = elsewhere.inbox / "cells", elsewhere.inbox / "cells.zip"
    shutil.move(bad_task, source)
    archive.write_bytes(b"no archive")
    before = files_below(source)
    kept = quarantine(*judge(source), elsewhere)
    assert files_below(kept / "images") == before
    refusal = DataRefused("It is damaged.", fix="Copy it again.")
    kept = quarantine_archive(archive, "cells", refusal, elsewhere)
    assert (kept / "archive.zip").read_bytes() == b"no archive"
    assert list(elsewhere.inbox.iterdir()) == []


def test_of_another_disk_nothing_half_copied_is_left_nor_taken_away(
    bad_task: Path, judge: Judge, elsewhere: Settings
) -> None:
    source, archive = elsewhere.inbox / "cells", elsewhere.inbox / "cells.zip"
    shutil.move(bad_task, source)
    archive.write_bytes(os.urandom(300_000))
    (source / "train/good/large.bin").write_bytes(os.urandom(300_000))
    judged, before = judge(source), files_below(source)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limit[1]))  # the report itself fits
    try:
        with pytest.raises(ServiceUnavailable, match="quarantine"):
            quarantine(*judged, elsewhere)
        with pytest.raises(ServiceUnavailable, match="quarantine"):
            quarantine_archive(archive, "cells", DataRefused("", fix=""), elsewhere)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list((elsewhere.workspace / "quarantine/cells").iterdir()) == []
    assert (files_below(source), archive.exists()) == (before, True)


def test_a_disk_that_takes_no_more_leaves_no_half_report(
    bad_task: Path, judge: Judge, settings: Settings
) -> None:
    judged = judge(bad_task)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))  # the system refuses the rest
    try:
        with pytest.raises(ServiceUnavailable, match="quarantine"):
            quarantine(*judged, settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((settings.workspace / "quarantine/cells").iterdir()) == []
    assert (bad_task / "train/good/zero.jpg").exists()
