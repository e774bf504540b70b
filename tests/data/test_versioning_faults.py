"""What is left after kill -9, a full disk and a read-only one, and that the same call finishes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clr.data import dvc, swap
from clr.data.demo_images import Dice, png
from clr.data.folder import read_task
from clr.data.manifest import scan
from clr.data.versioning import (
    DataVersion,
    check_data,
    require_pinned,
    task_digest,
    version_task,
)
from clr.data.workspace import init_workspace
from clr.errors import ServiceUnavailable
from clr.settings import Settings, load_settings

POINTS = (
    "staging",
    "staged",
    "journal written",
    "old moved out",
    "new moved in",
    "object half copied",
    "data.dvc half written",
    "pinned",
    "decided",
    "pushing",
    "pushed",
)


def make_task(folder: Path, seed: str, images: int = 3, side: int = 8) -> Path:
    for split in ("train", "test"):
        for label in ("left", "right"):
            for index in range(images):
                path = folder / split / label / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                dice = Dice.named(f"{seed}/{folder.name}/{split}/{label}/{index}")
                path.write_bytes(png(dice.noise(side, side, 120) + 128))
    return folder


def version(path: Path, settings: Settings) -> DataVersion:
    task = read_task(path)
    return version_task(task, scan(task, max_pixels=10_000), settings)


Kill = Callable[[Path, Path, str], int]


@pytest.fixture(scope="module")
def kill() -> Iterator[Kill]:
    """Version a task in a process that dies at a point; returns the signal that ended it."""
    script = Path(__file__).with_name("kill_at.py")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(script)], **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def run(workspace: Path, path: Path, point: str) -> int:
            call = {"workspace": str(workspace), "path": str(path), "point": point}
            stdin.write(json.dumps(call) + "\n")
            stdin.flush()
            return int(json.loads(stdout.readline())["signal"])

        yield run
        stdin.close()


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an undisturbed workspace gives: the digest of each version."""
    folder = tmp_path_factory.mktemp("undisturbed")
    init_workspace(folder / "w")
    settings = load_settings(folder / "w")
    return {
        seed: version(make_task(folder / seed / "bolts", seed), settings).digest
        for seed in ("old", "new")
    }


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with `nuts` and the old `bolts`."""
    folder = tmp_path_factory.mktemp("template")
    init_workspace(folder / "w")
    settings = load_settings(folder / "w")
    version(make_task(folder / "nuts", "x"), settings)
    version(make_task(folder / "bolts", "old"), settings)
    return folder / "w"


@pytest.fixture
def settings(template: Path, tmp_path: Path) -> Settings:
    shutil.copytree(template, tmp_path / "w")
    return load_settings(tmp_path / "w")


def assert_whole(settings: Settings, made: DataVersion) -> None:
    require_pinned(settings)
    assert check_data(settings, made.task, made.digest) == []
    assert not (settings.workspace / "data" / dvc.TEMPORARY).exists()
    assert list((settings.workspace / ".dvc").glob(".config*")) == []


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_replacement_is_finished_by_the_same_call(
    settings: Settings, tmp_path: Path, kill: Kill, digests: dict[str, str], point: str
) -> None:
    nuts = task_digest(settings.workspace, "nuts")
    new = make_task(tmp_path / "new" / "bolts", "new")

    assert kill(settings.workspace, new, point) == 9

    problems = [problem["subject"] for problem in check_data(settings, "nuts", nuts)]
    assert problems == (["data.dvc"] if point == "data.dvc half written" else [])
    made = version(new, settings)
    assert made.digest == digests["new"]
    assert_whole(settings, made)
    assert task_digest(settings.workspace, "nuts") == nuts
    assert check_data(settings, "bolts", digests["old"]) == []  # the old version is not lost


@pytest.mark.parametrize(
    "point", ["old moved out", "new moved in", "data.dvc half written", "pinned"]
)
def test_a_killed_replacement_does_not_stand_in_another_tasks_way(
    settings: Settings, tmp_path: Path, kill: Kill, digests: dict[str, str], point: str
) -> None:
    new = make_task(tmp_path / "new" / "bolts", "new")
    assert kill(settings.workspace, new, point) == 9
    assert_whole(settings, version(make_task(tmp_path / "screws", "x"), settings))
    expected = "new" if point == "pinned" else "old"  # whole, and one of the two
    assert task_digest(settings.workspace, "bolts") == digests[expected]


@pytest.mark.parametrize("point", ["staging", "new moved in", "data.dvc half written"])
def test_a_killed_first_version_leaves_nothing_of_the_task(
    tmp_path: Path, kill: Kill, digests: dict[str, str], point: str
) -> None:
    init_workspace(tmp_path / "w")
    settings = load_settings(tmp_path / "w")
    folder = make_task(tmp_path / "new" / "bolts", "new")
    assert kill(settings.workspace, folder, point) == 9
    require_pinned(settings)
    assert not (settings.workspace / "data" / "bolts").exists()
    assert version(folder, settings).digest == digests["new"]


def test_a_kill_during_the_repair_is_repaired_too(
    settings: Settings, tmp_path: Path, kill: Kill, digests: dict[str, str]
) -> None:
    new = make_task(tmp_path / "new" / "bolts", "new")
    assert kill(settings.workspace, new, "new moved in") == 9
    for call in (1, 2):  # the repair renames twice
        assert kill(settings.workspace, new, f"repair {call}") == 9
    require_pinned(settings)
    assert task_digest(settings.workspace, "bolts") == digests["old"]
    assert version(new, settings).digest == digests["new"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"mount is not allowed here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "room_kb",
    [200, 700, 1000],
    ids=["staging", "adding to the cache", "pushing"],
)
def test_a_full_disk_loses_nothing_and_the_same_call_finishes(
    small_disk: Path, tmp_path: Path, room_kb: int
) -> None:
    init_workspace(small_disk / "w")
    settings = load_settings(small_disk / "w")
    kept = version(make_task(tmp_path / "nuts", "x"), settings)
    folder = make_task(tmp_path / "bolts", "y", images=20, side=60)  # 80 files of 4 KB
    statistics = os.statvfs(small_disk)
    free = statistics.f_bavail * statistics.f_frsize
    filler = small_disk / "filler"
    filler.write_bytes(bytes(free - room_kb * 1024))

    with pytest.raises(ServiceUnavailable, match=r"(?i)full|no space"):
        version(folder, settings)

    assert check_data(settings, "nuts", kept.digest) == []
    filler.unlink()
    require_pinned(settings)
    made = version(folder, settings)
    assert_whole(settings, made)
    assert made.files == 80


def test_a_read_only_workspace_is_named(small_disk: Path, tmp_path: Path) -> None:
    init_workspace(small_disk / "w")
    settings = load_settings(small_disk / "w")
    kept = version(make_task(tmp_path / "nuts", "x"), settings)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ServiceUnavailable, match=r"(?i)read-only"):
        version(make_task(tmp_path / "bolts", "y"), settings)
    assert check_data(settings, "nuts", kept.digest) == []
    assert task_digest(settings.workspace, "nuts") == kept.digest
    with pytest.raises(ServiceUnavailable, match=r"(?i)read-only"):
        init_workspace(small_disk / "another")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert version(tmp_path / "bolts", settings).files == 12


def test_two_processes_version_one_after_the_other(tmp_path: Path) -> None:
    init_workspace(tmp_path / "w")
    code = (
        "import sys; from pathlib import Path; from clr.settings import load_settings;"
        "from clr.data.folder import read_task; from clr.data.manifest import scan;"
        "from clr.data.versioning import version_task; t = read_task(sys.argv[1]);"
        "version_task(t, scan(t, max_pixels=9999), load_settings(Path(sys.argv[2])))"
    )
    workspace = str(tmp_path / "w")
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(make_task(tmp_path / n, n)), workspace])
        for n in ("bolts", "nuts")
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    settings = load_settings(tmp_path / "w")
    require_pinned(settings)
    for name in ("bolts", "nuts"):
        assert check_data(settings, name, task_digest(settings.workspace, name)) == []


def test_recovery_of_a_whole_workspace_does_nothing(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    swap.recover(tmp_path)
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == []
