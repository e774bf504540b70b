"""The watcher, a real process over a real folder: what it takes, when, and what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from clr.core.files import sha256_file
from clr.data.archive import unpack
from clr.data.content import content_digest
from clr.data.workspace import init_workspace
from clr.settings import Settings
from flows import arrivals, inbox
from flows.packed import Packed
from flows.supervise import free_port
from tests.data.bad_archives import GOOD, tarred, with_name, zipped
from tests.pipeline.watching import NOBODY, ROOT, copied, known, slowly, watcher
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("watch")
SETTLE = 0.6


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Path]]:
    """A workspace with a watcher that no Prefect server answers, and its log."""
    root = tmp_path_factory.mktemp("watched")
    init_workspace(root)
    settings = Settings(workspace=root, settle_seconds=SETTLE, git_poll_seconds=3600)
    with watcher(settings) as log:
        yield settings, log


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of the form of a task, its content this test's own."""
    root = tmp_path / "source"
    for name, data in GOOD.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data + str(tmp_path).encode() * 200)
    return root


def arrived(settings: Settings, task: str, seconds: float = 20.0) -> arrivals.Arrival:
    found = until(lambda: known(settings).get(task), seconds)
    assert found, (settings.workspace / "watch.log").read_text()
    return found


def turned_away(settings: Settings, task: str, seconds: float = 20.0) -> arrivals.Arrival:
    """Wait for the refusal too, which follows what was seen."""

    def refused() -> arrivals.Arrival | None:
        found = known(settings).get(task)
        return found if found and found.state == "refused" else None

    found = until(refused, seconds)
    assert found, (settings.workspace / "watch.log").read_text()
    return found


def test_a_folder_that_rests_arrives_with_the_digest_of_its_content(
    watched: tuple[Settings, Path], source: Path
) -> None:
    settings, _ = watched
    place = copied(source, settings.inbox / "resting")
    found = arrived(settings, "resting")
    assert found.digest == content_digest(place, "resting")
    assert (found.state, found.source, found.path) == ("seen", "folder", "incoming/resting")


def test_a_folder_that_is_copied_slowly_arrives_once_and_whole(
    watched: tuple[Settings, Path], source: Path
) -> None:
    settings, _ = watched
    copying = threading.Thread(target=slowly, args=(source, settings.inbox / "slow", SETTLE / 2))
    copying.start()
    while copying.is_alive():
        assert "slow" not in known(settings)
        time.sleep(0.05)
    found = arrived(settings, "slow")
    assert found.digest == content_digest(source, "slow")
    time.sleep(2 * SETTLE)
    assert [one.task for one in arrivals.read_all(settings)].count("slow") == 1


def test_what_is_not_finished_never_arrives(watched: tuple[Settings, Path], source: Path) -> None:
    settings, log = watched
    hidden = copied(source, settings.inbox / ".hidden")
    for name in ("half.part", "half.tmp"):
        copied(source, settings.inbox / name)
    (settings.inbox / "half.zip.part").write_bytes(zipped(GOOD))
    copied(source, settings.inbox / "inside")
    (settings.inbox / "inside/train/good/3.png.part").write_bytes(b"half")
    (settings.inbox / "empty" / "train").mkdir(parents=True)
    assert until(lambda: "3.png.part is not copied" in log.read_text())
    time.sleep(2 * SETTLE)
    assert not {"hidden", "half", "inside", "empty"} & known(settings).keys()
    (settings.inbox / "inside/train/good/3.png.part").rename(
        settings.inbox / "inside/train/good/3.png"
    )
    arrived(settings, "inside")
    started = time.monotonic()
    hidden.rename(settings.inbox / "renamed")
    arrived(settings, "renamed")
    assert time.monotonic() - started < 20


def test_what_is_ready_does_not_wait(tmp_path: Path, source: Path) -> None:
    """With an hour to settle only ``READY``, a rename or a move can have brought them in."""
    init_workspace(tmp_path / "plant")
    settings = Settings(workspace=tmp_path / "plant", settle_seconds=3600)
    with watcher(settings):
        (settings.inbox / "READY").write_bytes(b"")
        brought = copied(source, settings.inbox / "brought-along")
        (brought / "READY").write_bytes(b"")
        os.utime(brought / "READY")
        time.sleep(0.05)
        (brought / "train/good/late.png").write_bytes(b"written after READY")
        slowly(source, settings.inbox / "waiting", 0)
        hidden = copied(source, settings.inbox / ".upload")
        ready = copied(source, settings.inbox / "ready")
        (ready / "READY").write_bytes(b"")
        found = arrived(settings, "ready")
        assert found.digest == content_digest(source, "ready")
        hidden.rename(settings.inbox / "renamed")
        arrived(settings, "renamed")
        outside = copied(source, tmp_path / "outside")
        outside.rename(settings.inbox / "moved")
        arrived(settings, "moved")
        touched = settings.inbox / "touched"
        slowly(source, touched, 0)
        os.utime(touched, (1, 1))  # as a copying program does at a folder's end, here too early
        (touched / "train/good/late.png").write_bytes(b"and one more")
        time.sleep(2 * inbox.READY_SECONDS)
        assert known(settings).keys() == {"ready", "renamed", "moved"}


def test_the_same_again_is_one_arrival_and_another_content_is_another(
    watched: tuple[Settings, Path], source: Path
) -> None:
    settings, _ = watched
    place = copied(source, settings.inbox / "again")
    first = arrived(settings, "again")
    shutil.rmtree(place)
    (settings.inbox / "again.zip").write_bytes(
        zipped({name: (source / name).read_bytes() for name in GOOD})
    )
    copied(source, place)
    time.sleep(3 * SETTLE)
    (place / "train/good/9.png").write_bytes(b"more")

    def two() -> bool:
        return [one.task for one in arrivals.read_all(settings)].count("again") == 2

    assert until(two, 20)
    assert arrivals.get(settings, first.digest) == first or first.origin == ""
    assert not any(settings.unpacked.glob("*/again"))


def test_what_was_refused_and_is_dropped_again_arrives_again(
    watched: tuple[Settings, Path], source: Path
) -> None:
    settings, _ = watched
    place = copied(source, settings.inbox / "improved")
    first = arrived(settings, "improved")
    arrivals.update(settings, first.digest, state="refused", result={"verdict": "data-refused"})
    shutil.rmtree(place)
    # an event or the next look at everything tells that it is gone
    assert until(lambda: not place.exists())
    time.sleep(SETTLE)
    arrivals.update(settings, first.digest, left=True)
    copied(source, place)
    assert until(lambda: arrivals.get(settings, first.digest).state == "seen", 20)  # type: ignore[union-attr]


def test_archives_are_unpacked_below_home_and_bad_ones_go_into_quarantine(
    watched: tuple[Settings, Path],
) -> None:
    settings, log = watched
    (settings.inbox / "good.tar.gz").write_bytes(tarred(GOOD, kind="gz"))
    (settings.inbox / "bad.zip").write_bytes(with_name("../../escape.png")())
    found = arrived(settings, "good")
    assert found.source == "archive"
    assert arrivals.location(settings, found).parent.parent == settings.unpacked
    refused = turned_away(settings, "bad")
    assert refused.result is not None
    (message,) = (settings.workspace / "quarantine" / "bad").glob("*/message.txt")
    assert "leads out of the folder" in message.read_text()
    assert refused.result["reports"]["message"] == str(message)
    assert not (settings.inbox / "bad.zip").exists()
    assert not list(settings.workspace.parent.rglob("escape.png"))
    assert "leads out of the folder" in log.read_text()


def test_a_name_that_is_none_is_told_once_and_stays(
    watched: tuple[Settings, Path], source: Path
) -> None:
    settings, log = watched
    place = copied(source, settings.inbox / "Batch 7")
    found = turned_away(settings, "incoming/Batch 7")
    assert found.result is not None
    assert "batch-7" in found.result["fix"]
    (place / "train/good/4.png").write_bytes(b"one more")
    (settings.inbox / "linked").symlink_to(source)
    arrived(settings, "incoming/linked")
    time.sleep(2 * SETTLE)
    assert log.read_text().count("'Batch 7' cannot name a task") == 1
    assert place.is_dir()
    place.rename(settings.inbox / "batch-7")
    arrived(settings, "batch-7")


def test_what_cannot_be_taken_now_holds_nobody_up_and_is_taken_later(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_workspace(tmp_path / "plant")
    settings = Settings(workspace=tmp_path / "plant", settle_seconds=0.01)
    monkeypatch.setattr(inbox, "FIRST_PAUSE", 0.02)
    quarantine = settings.workspace / "quarantine"
    quarantine.write_text("a file is in the way")
    (settings.inbox / "a.zip").write_bytes(b"no archive")
    deep = settings.inbox / "a-deep"
    deep.mkdir()
    with chdir(deep):
        for _ in range(1200):  # more than a path may be long
            Path("deep").mkdir()
            os.chdir("deep")
        Path("file").touch()
    copied(source, settings.inbox / "b")
    box = inbox.Inbox(settings)

    def look() -> arrivals.Arrival | None:
        box.look(set())
        return known(settings).get("b")

    assert until(look, 5)
    assert "quarantine" in box.problems["a.zip"]
    assert "a-deep" in box.problems
    subprocess.run(["rm", "-r", deep], check=True)
    assert (settings.inbox / "a.zip").exists()
    quarantine.unlink()
    assert until(lambda: box.look(set()) is None and "a" in known(settings), 5)
    assert box.problems == {}
    assert not (settings.inbox / "a.zip").exists()


def looked(settings: Settings) -> inbox.Inbox:
    """A new watcher's inbox after it has seen all that lies there."""
    box = inbox.Inbox(settings)
    assert until(lambda: box.look(set()) is None, 5)
    return box


def test_one_archive_under_two_names_is_two_tasks_where_its_name_is_the_task_s(
    tmp_path: Path,
) -> None:
    init_workspace(tmp_path / "plant")
    settings = Settings(workspace=tmp_path / "plant", settle_seconds=0.01)
    (settings.inbox / "bottles.zip").write_bytes(zipped(GOOD))
    box = looked(settings)
    (settings.inbox / "glasses.zip").write_bytes(zipped(GOOD))
    assert until(lambda: box.look() is None, 5)
    before = known(settings)
    assert before.keys() == {"bottles", "glasses"}
    for one in before.values():
        assert arrivals.location(settings, one).name == one.task
        arrivals.update(settings, one.digest, state="done", result={"version": 1})
    looked(settings).look()  # which removes what was unpacked
    looked(settings)
    assert known(settings).keys() == before.keys()
    assert list(settings.unpacked.iterdir()) == []


def test_one_archive_under_two_names_is_one_task_where_the_folder_in_it_is_the_task_s(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "clr")
    init_workspace(tmp_path / "plant")
    settings = Settings(workspace=tmp_path / "plant", settle_seconds=0.01)
    data = zipped({f"bottles/{name}": content for name, content in GOOD.items()})
    (settings.inbox / "bottles.zip").write_bytes(data)
    box = looked(settings)
    for name in ("bottles (1).zip", "glasses.zip"):
        (settings.inbox / name).write_bytes(data)
    assert until(lambda: box.look() is None, 5)
    (only,) = arrivals.read_all(settings)
    assert (only.task, only.state) == ("bottles", "seen")
    for name in ("bottles (1).zip", "glasses.zip"):
        assert f"incoming  {name} is known already: bottles, seen" in caplog.messages
    assert [path.parent for path in settings.unpacked.glob("*/*")] == [
        arrivals.location(settings, only).parent
    ]
    caplog.clear()
    looked(settings)
    assert not caplog.messages  # not at every start again


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_is_replaced_while_it_is_unpacked_is_read_anew(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_workspace(tmp_path / "plant")
    settings = Settings(workspace=tmp_path / "plant", settle_seconds=0.01)
    pack = zipped if kind == "zip" else tarred
    dropped, new = settings.inbox / f"caps.{kind}", pack(GOOD)
    dropped.write_bytes(pack({**GOOD, "train/good/1.png": b"old"}))

    def unpacked(archive: Path, home: Path, settings: Settings) -> Path:
        monkeypatch.undo()
        archive.write_bytes(new[:-20] if kind == "zip" else new)  # half of it is there by now
        try:
            return unpack(archive, home, settings)
        finally:
            archive.write_bytes(new)

    monkeypatch.setattr("clr.data.archive.unpack", unpacked)
    looked(settings)
    assert dropped.exists()
    assert not (settings.workspace / "quarantine").exists()
    (only,) = arrivals.read_all(settings)
    place = arrivals.location(settings, only)
    assert (only.state, only.digest) == ("seen", content_digest(place, "caps"))
    assert (place / "train/good/1.png").read_bytes() == GOOD["train/good/1.png"]
    assert only.origin in Packed(dropped.name, sha256_file(dropped)).origins
    assert [path.parent for path in settings.unpacked.glob("*/*")] == [place.parent]


def test_what_was_unpacked_for_a_run_that_ended_goes(tmp_path: Path) -> None:
    init_workspace(tmp_path / "plant")
    settings = Settings(workspace=tmp_path / "plant", settle_seconds=0.01)
    (settings.inbox / "caps.zip").write_bytes(zipped(GOOD))
    box = inbox.Inbox(settings)
    found = until(lambda: box.look(set()) is None and known(settings).get("caps"), 5)
    place = arrivals.location(settings, found)
    for state, stays in (("running", True), ("failed", True), ("done", False)):
        arrivals.update(settings, found.digest, state=state)
        box.look()
        assert place.exists() == stays
    again = inbox.Inbox(settings)
    assert until(lambda: again.look(set()) is None, 5)
    assert (
        list(settings.unpacked.iterdir()) == []
    )  # the archive, still there, is not unpacked again


def test_what_came_while_nobody_watched_is_found_and_a_killed_watcher_takes_nothing_twice(
    tmp_path: Path, source: Path
) -> None:
    init_workspace(tmp_path / "plant")
    settings = Settings(workspace=tmp_path / "plant", settle_seconds=0.3)
    copied(source, settings.inbox / "early")
    (settings.inbox / "packed.zip").write_bytes(zipped(GOOD))
    port = free_port()
    with watcher(settings, port=port):
        arrived(settings, "early")
        arrived(settings, "packed")
        before = arrivals.read_all(settings)
        failing = until(lambda: (now := _health(port)).get("announce") and now, 20)
        assert "Prefect" in failing["announce"]
        assert "incoming" not in failing
    with watcher(settings) as log:
        copied(source, settings.inbox / "later")
        arrived(settings, "later")
        assert [one for one in arrivals.read_all(settings) if one.task != "later"] == before
        assert log.read_text().count("arrived   early") == 1


def _health(port: int) -> dict[str, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        failing: dict[str, str] = json.load(answer)["failing"]
    return failing


BUSY = """
import time
from concurrent.futures import ThreadPoolExecutor
from flows import watch

def look(_):
    print("at work", flush=True)
    ThreadPoolExecutor().submit(time.sleep, 120).result()

watch.Watcher._git = look
watch.main(["--port", "0"])
"""
"""A watcher one part of which waits for something from outside, in a library's pool of threads."""


def test_it_ends_when_told_to_whatever_a_part_is_waiting_for(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    environment = {**os.environ, "CLR_WORKSPACE": str(tmp_path), "PREFECT_API_URL": NOBODY}
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "at work\n"
        process.terminate()
        assert process.wait(30) == 0
