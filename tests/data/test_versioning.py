"""A task below data/, its digest, its copies, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clr.data import dvc, dvc_calls, listing
from clr.data.demo_images import Dice, png
from clr.data.folder import read_task
from clr.data.manifest import scan
from clr.data.versioning import (
    DataVersion,
    check_data,
    git_state,
    require_pinned,
    task_digest,
    version_task,
)
from clr.data.workspace import init_workspace
from clr.errors import DataRefused, IntegrityBroken, ServiceUnavailable, UsageError
from clr.settings import Settings, load_settings


def make_task(folder: Path, seed: str = "", *, test: bool = True, images: int = 5) -> Path:
    for split in ("train", "test") if test else ("train",):
        for label in ("left", "right"):
            for index in range(images):
                path = folder / split / label / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(Dice.named(f"{seed}{folder.name}/{path}").noise(8, 8, 120)))
    return folder


def version(path: Path, settings: Settings) -> DataVersion:
    task = read_task(path)
    return version_task(task, scan(task, max_pixels=10_000), settings)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    init_workspace(tmp_path / "w")
    return load_settings(tmp_path / "w")


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return make_task(tmp_path / "first")


def objects_of(store: Path, folder: Path) -> list[Path]:
    """Where `store` keeps the files below `folder`."""
    return [
        listing.object_path(store, listing.md5_file(path)) for path in sorted(folder.rglob("*.png"))
    ]


def test_a_task_is_copied_pinned_and_pushed(settings: Settings, first: Path) -> None:
    (first / "task.yaml").write_text("title: First\n")
    (first / "notes.txt").write_text("not part of the task")
    made = version(first, settings)
    folder = settings.workspace / "data" / "first"
    assert made.folder == folder
    assert (made.train, made.test, made.files, made.pushed) == (10, 10, 21, True)
    assert sorted(p.name for p in folder.iterdir()) == ["task.yaml", "test", "train"]
    for path in folder.rglob("*.png"):
        assert path.read_bytes() == (first / path.relative_to(folder)).read_bytes()
    assert made.digest == task_digest(settings.workspace, "first")
    assert require_pinned(settings).endswith(".dir")
    for store in (settings.workspace / ".dvc" / "cache", settings.state / "remote"):
        for path in objects_of(store, folder):
            assert path.is_file()
        assert listing.object_path(store, listing.pinned_oid(settings.workspace)).is_file()
        assert listing.object_path(store, made.digest.removeprefix("md5:")).is_file()
    assert check_data(settings, "first", made.digest) == []
    assert not (settings.workspace / "data" / dvc.TEMPORARY).exists()


def test_the_digest_is_what_dvc_gives_for_that_folder_alone(
    settings: Settings, first: Path, tmp_path: Path
) -> None:
    version(make_task(tmp_path / "other"), settings)
    made = version(first, settings)
    alone = tmp_path / "alone"
    init_workspace(alone)
    shutil.rmtree(alone / "data")
    shutil.copytree(first, alone / "data")
    with dvc.open_repo(load_settings(alone)) as repo:
        repo.add(str(alone / "data"))
    assert made.digest == f"md5:{listing.pinned_oid(alone)}"


def test_the_same_call_changes_nothing(settings: Settings, first: Path) -> None:
    made = version(first, settings)
    files = {p: p.stat().st_mtime_ns for p in made.folder.rglob("*.png")}
    assert version(first, settings) == made
    assert {p: p.stat().st_mtime_ns for p in made.folder.rglob("*.png")} == files


def test_it_can_be_used_in_place(settings: Settings) -> None:
    folder = make_task(settings.workspace / "data" / "first")
    inodes = {p: p.stat().st_ino for p in folder.rglob("*.png")}
    made = version(folder, settings)
    assert {p: p.stat().st_ino for p in folder.rglob("*.png")} == inodes
    assert check_data(settings, "first", made.digest) == []


def test_a_split_that_was_made_becomes_folders_and_stays(
    settings: Settings, tmp_path: Path
) -> None:
    outside = make_task(tmp_path / "first", test=False, images=10)
    made = version(outside, settings)
    assert (made.train, made.test) == (16, 4)
    assert len(list((made.folder / "test").rglob("*.png"))) == 4
    assert version(made.folder, settings) == made
    shutil.rmtree(made.folder)
    shutil.copytree(outside, made.folder)  # the same again, dropped into data/ itself
    assert version(made.folder, settings) == made


def test_changed_data_is_a_new_version_and_the_old_one_can_still_be_checked(
    settings: Settings, first: Path
) -> None:
    old = version(first, settings)
    (first / "train" / "left" / "0.png").write_bytes(png(Dice.named("new").noise(8, 8, 9)))
    (first / "train" / "left" / "1.png").unlink()
    new = version(first, settings)
    assert new.digest != old.digest
    assert new.files == old.files - 1
    assert not (new.folder / "train" / "left" / "1.png").exists()
    assert check_data(settings, "first", new.digest) == []
    assert check_data(settings, "first", old.digest) == []


def test_hidden_files_and_links_never_get_in(settings: Settings, first: Path) -> None:
    (first / "train" / "left" / "link.png").symlink_to(first / "train" / "left" / "0.png")
    (first / "train" / "left" / ".DS_Store").write_bytes(b"x")
    made = version(first, settings)
    copied = made.folder / "train" / "left" / "link.png"
    assert copied.is_file()
    assert not copied.is_symlink()
    assert not (made.folder / "train" / "left" / ".DS_Store").exists()
    (made.folder / ".hidden").write_bytes(b"x")
    assert version(first, settings) == made
    assert check_data(settings, "first", made.digest) == []


def test_a_second_task_does_not_hash_the_first_again(
    settings: Settings, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc_data.hashfile import build, hash

    version(first, settings)
    hashed: list[str] = []
    real = build.hash_file

    def counting(path: str, *args: object, **kwargs: object) -> object:
        hashed.append(path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(build, "hash_file", counting)
    monkeypatch.setattr(hash, "hash_file", counting)
    version(make_task(tmp_path / "second"), settings)
    names = [Path(path).relative_to(settings.workspace / "data").parts[0] for path in hashed]
    assert names.count("second") == 20  # each new file once
    assert set(names) == {"second"}


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (
            lambda data: (data / "first/train/left/0.png").write_bytes(b"x"),
            "first/train/left/0.png",
        ),
        (lambda data: (data / "first/test/right/1.png").unlink(), "first/test/right/1.png"),
        (lambda data: (data / "first/train/left/new.png").write_bytes(b"x"), "left/new.png"),
        (lambda data: (data / "first/train/a.png").symlink_to("/etc/passwd"), "first/train/a.png"),
        (lambda data: make_task(data / "third"), r"data/third \(20 files\)"),
        (lambda data: shutil.rmtree(data), r"data/first \(20 files\)"),
    ],
    ids=["changed", "missing", "added", "link", "whole task", "all gone"],
)
def test_data_that_is_not_what_data_dvc_pins_is_refused_by_name(
    settings: Settings, first: Path, tmp_path: Path, spoil, named: str
) -> None:
    version(first, settings)
    pinned = (settings.workspace / "data.dvc").read_bytes()
    spoil(settings.workspace / "data")
    with pytest.raises(IntegrityBroken, match=named):
        version(make_task(tmp_path / "second"), settings)
    with pytest.raises(IntegrityBroken, match=named):
        require_pinned(settings)
    assert (settings.workspace / "data.dvc").read_bytes() == pinned
    assert not (settings.workspace / "data" / "second").exists()


def test_files_of_the_task_itself_that_no_version_has_are_not_overwritten(
    settings: Settings, first: Path
) -> None:
    made = version(first, settings)
    precious = made.folder / "train" / "left" / "precious.png"
    precious.write_bytes(png(Dice.named("precious").noise(8, 8, 50)))
    with pytest.raises(DataRefused, match=r"precious\.png"):
        version(first, settings)
    assert precious.exists()
    assert version(made.folder, settings).files == 21  # as its error says, this pins it
    assert version(first, settings) == made  # and now it can be replaced


def test_pinned_files_that_the_cache_does_not_hold_are_not_overwritten(
    settings: Settings, first: Path, tmp_path: Path
) -> None:
    made = version(first, settings)
    shutil.rmtree(settings.workspace / ".dvc" / "cache")
    with pytest.raises(DataRefused, match="no version keeps"):
        version(make_task(tmp_path / "new" / "first", "new"), settings)
    assert version(made.folder, settings) == made


def test_images_that_changed_since_they_were_validated_are_refused(
    settings: Settings, first: Path
) -> None:
    task = read_task(first)
    manifest = scan(task, max_pixels=10_000)
    (first / "train" / "left" / "0.png").write_bytes(png(Dice.named("late").noise(8, 8, 9)))
    with pytest.raises(DataRefused, match=r"train/left/0\.png"):
        version_task(task, manifest, settings)
    assert not (settings.workspace / "data" / "first").exists()


def test_an_image_that_came_in_place_since_it_was_validated_is_refused(
    settings: Settings, first: Path
) -> None:
    """Training reads the folder: it would learn from what nobody looked at."""
    pinned = version(first, settings).digest
    folder = settings.workspace / "data" / "first"
    task = read_task(folder)
    manifest = scan(task, max_pixels=10_000)
    (folder / "notes").mkdir()
    (folder / "notes" / "plan.txt").write_text("beside the images")
    (folder / "train" / "left" / "late.png").write_bytes(b"no image")
    with pytest.raises(DataRefused, match="1 files changed after they were validated") as caught:
        version_task(task, manifest, settings)
    assert caught.value.data["files"] == ["train/left/late.png"]
    assert task_digest(settings.workspace, "first") == pinned
    (folder / "train" / "left" / "late.png").unlink()
    version_task(task, manifest, settings)


def test_an_unusable_image_is_refused(settings: Settings, first: Path) -> None:
    (first / "train" / "left" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataRefused, match=r"train/left/0\.png"):
        version(first, settings)


def test_a_damaged_data_dvc_is_refused(settings: Settings, first: Path) -> None:
    version(first, settings)
    (settings.workspace / "data.dvc").write_text("outs:\n- md5: ../../etc/passwd.dir\n")
    with pytest.raises(IntegrityBroken, match=r"data\.dvc"):
        version(first, settings)
    with pytest.raises(IntegrityBroken, match=r"data\.dvc"):
        task_digest(settings.workspace, "first")


def test_a_clone_without_data_is_told_to_pull(settings: Settings, first: Path) -> None:
    version(first, settings)
    for folder in ("data", ".dvc/cache", ".clr"):
        shutil.rmtree(settings.workspace / folder)
    with pytest.raises(IntegrityBroken, match="dvc pull"):
        version(first, settings)


def test_an_unknown_task_has_no_digest(settings: Settings) -> None:
    with pytest.raises(UsageError, match="nobody"):
        task_digest(settings.workspace, "nobody")


def flip(path: Path) -> None:
    """Change one bit and leave size and times as they were."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("place", ["data/", "cache", "remote"])
def test_one_flipped_bit_is_found_where_it_is(settings: Settings, first: Path, place: str) -> None:
    made = version(first, settings)
    file = made.folder / "test" / "left" / "3.png"
    stores = {"cache": settings.workspace / ".dvc" / "cache", "remote": settings.state / "remote"}
    where = listing.object_path(stores[place], listing.md5_file(file)) if place in stores else file
    flip(where)
    (problem,) = check_data(settings, "first", made.digest)
    assert problem["subject"] == "data/first/test/left/3.png"
    assert place in problem["message"]


def test_lost_and_added_files_are_found(settings: Settings, first: Path) -> None:
    made = version(first, settings)
    (made.folder / "test" / "left" / "3.png").unlink()
    (made.folder / "extra.png").write_bytes(b"x")
    subjects = [problem["subject"] for problem in check_data(settings, "first", made.digest)]
    assert subjects == ["data/first/test/left/3.png", "data/first/extra.png"]


def test_a_digest_that_nothing_has_is_a_problem(settings: Settings, first: Path) -> None:
    version(first, settings)
    (problem,) = check_data(settings, "first", f"md5:{'0' * 32}.dir")
    assert "not in the cache" in problem["message"]


def test_what_another_machine_made_is_read_in_the_remote_that_both_have(
    settings: Settings, first: Path, tmp_path: Path
) -> None:
    made = version(first, settings)
    remote, other = settings.state / "remote", tmp_path / "other"
    init_workspace(other)
    here = Settings(workspace=other, home=other / ".clr", dvc_remote=str(remote))
    assert check_data(here, "first", made.digest) == []
    flip(objects_of(remote, made.folder)[0])
    (problem,) = check_data(here, "first", made.digest)
    assert "in the remote" in problem["message"]


def test_corrupt_and_lost_copies_are_made_again(settings: Settings, first: Path) -> None:
    made = version(first, settings)
    cache, remote = settings.workspace / ".dvc" / "cache", settings.state / "remote"
    flip(objects_of(cache, made.folder)[0])
    objects_of(remote, made.folder)[1].unlink()  # `dvc push` would not notice
    half = objects_of(remote, made.folder)[2]
    half.chmod(0o644)
    half.write_bytes(b"half")
    assert version(first, settings) == made
    assert check_data(settings, "first", made.digest) == []


def test_dvc_itself_agrees(settings: Settings, first: Path) -> None:
    made = version(first, settings)
    run = [sys.executable, "-m", "dvc"]
    status = subprocess.run(
        [*run, "status", "--json"], cwd=settings.workspace, capture_output=True, text=True
    )
    assert json.loads(status.stdout) == {}
    shutil.rmtree(settings.workspace / "data")
    shutil.rmtree(settings.workspace / ".dvc" / "cache")
    subprocess.run([*run, "pull", "-q"], cwd=settings.workspace, check=True)
    assert version(first, settings) == made


def test_it_waits_for_another_process_that_holds_dvcs_lock(settings: Settings, first: Path) -> None:
    version(first, settings)
    lock = settings.workspace / ".dvc" / "tmp" / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, zc.lockfile; l = zc.lockfile.LockFile(sys.argv[1]);"
         "print(1, flush=True); input()", str(lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "1\n"
    timer = threading.Timer(5, holder.communicate, ["\n"])  # DVC alone gives up after 3 s
    timer.start()
    try:
        assert version(first, settings).pushed
        assert holder.poll() == 0
    finally:
        timer.join()


def test_a_lock_that_stays_taken_is_an_error_in_the_end(
    settings: Settings, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zc.lockfile

    version(first, settings)
    monkeypatch.setattr(dvc_calls, "LOCK_SECONDS", 0.0)
    held = zc.lockfile.LockFile(str(settings.workspace / ".dvc" / "tmp" / "lock"))
    try:
        with pytest.raises(ServiceUnavailable, match="lock"):
            version(first, settings)
    finally:
        held.close()


def test_a_remote_that_cannot_be_reached_is_named_and_the_same_call_goes_on(
    settings: Settings, first: Path
) -> None:
    blocked = settings.workspace / "blocked"
    blocked.write_text("a file, not a folder")
    elsewhere = settings.model_copy(update={"dvc_remote": "blocked"})
    with pytest.raises(ServiceUnavailable, match="remote"):
        version(first, elsewhere)
    blocked.unlink()
    assert version(first, elsewhere).pushed
    assert (blocked / "files" / "md5").is_dir()


def test_what_another_process_writes_into_the_shared_file_moves_no_remote(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure, other = dvc.configure, settings.model_copy(update={"dvc_remote": "s3://other/dvc"})

    def overtaken(own: Settings) -> None:
        configure(own)
        configure(other)

    monkeypatch.setattr(dvc, "configure", overtaken)
    with dvc.open_repo(settings) as repo:
        assert repo.config["remote"][dvc.REMOTE]["url"] == dvc.remote_url(settings)
        assert repo.config["core"]["site_cache_dir"] == str(settings.state / "dvc")


def test_an_s3_remote_is_configured_and_asks_for_its_package(
    settings: Settings, first: Path
) -> None:
    config = settings.workspace / ".dvc" / "config.local"
    config.write_text("['remote \"clr\"']\n    endpointurl = http://127.0.0.1:9\n")
    s3 = settings.model_copy(update={"dvc_remote": "s3://bucket/prefix"})
    dvc.configure(s3)
    assert "url = s3://bucket/prefix" in config.read_text()
    assert "endpointurl = http://127.0.0.1:9" in config.read_text()
    try:
        import dvc_s3  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match="s3"):
            version(first, s3)


def folders(place: str) -> set[Path]:
    return {path for path in Path(place).iterdir() if path.is_dir()}


def test_nothing_is_printed_and_nothing_written_outside(
    settings: Settings, first: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    before = folders("/var/tmp")  # files come and go there: SQLite's, of anybody
    code = (
        "import sys; from pathlib import Path; from clr.settings import load_settings;"
        "from clr.data.folder import read_task; from clr.data.manifest import scan;"
        "from clr.data.versioning import version_task; t = read_task(sys.argv[1]);"
        "version_task(t, scan(t, max_pixels=9999), load_settings(Path(sys.argv[2])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(first), str(settings.workspace)],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "TMPDIR": str(home)},
        capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")
    assert list(home.iterdir()) == []
    assert folders("/var/tmp") == before


def test_nothing_is_shown_on_a_terminal_either(settings: Settings, first: Path) -> None:
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO); from pathlib import Path;"
        "from clr.settings import load_settings; from clr.data.folder import read_task;"
        "from clr.data.manifest import scan; from clr.data.versioning import version_task;"
        "t = read_task(sys.argv[1]); m = scan(t, max_pixels=9999);"
        "version_task(t, m, load_settings(Path(sys.argv[2])))"
    )
    outside, inside = os.openpty()
    command = [sys.executable, "-c", code, str(first), str(settings.workspace)]
    subprocess.run(command, stdout=inside, stderr=inside, stdin=inside, check=True)
    os.close(inside)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while chunk := os.read(outside, 1024):
            shown += chunk
    os.close(outside)
    assert shown.replace(b"\x1b[0m", b"") == b""


def test_the_git_commit_and_whether_the_tree_differs(settings: Settings, first: Path) -> None:
    workspace = settings.workspace
    assert git_state(workspace) == ("", True)  # no commit yet

    def git(*arguments: str) -> str:
        name = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
        done = subprocess.run(
            ["git", *name, *arguments], cwd=workspace, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("add", ".")
    git("commit", "-qm", "empty")
    assert git_state(workspace) == (git("rev-parse", "HEAD"), False)
    made = version(first, settings)
    assert (made.commit, made.dirty) == (git("rev-parse", "HEAD"), True)
    git("commit", "-qam", "first task")
    assert version(first, settings).dirty is False
    assert git_state(Path("/")) == ("", False)


def test_a_workspace_without_git_works(settings: Settings, first: Path) -> None:
    shutil.rmtree(settings.workspace / ".git")
    made = version(first, settings)
    assert (made.commit, made.dirty) == ("", False)
