"""Old files that nothing names go; whatever a version, the ledger or a commit names stays."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clr.core.files import sha256_file
from clr.data import listing
from clr.data.repository import run_git
from clr.settings import Settings
from flows import locks
from flows.prune import _local

LATER, MUCH_LATER = 185.0, 3654.0
"""Days: one more than the policy keeps logs, and the files of deleted runs."""


def prune(plant: Any, *, days: float = LATER, dry_run: bool = False) -> dict[str, Any]:
    from flows.prune import run_prune

    return run_prune(plant.session(), dry_run=dry_run, now=time.time() + days * 86_400)


def files(plant: Any) -> set[str]:
    """All files but SQLite's own beside a database, which are there while somebody has it open."""
    found = (str(path) for path in plant.root.rglob("*") if path.is_file())
    return {one for one in found if not one.endswith((".db-wal", ".db-shm"))}


def write(path: Path, text: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def arrive(plant: Any, name: str, state: str) -> Path:
    """An archive of this name that was unpacked and is now in this state."""
    from flows import arrivals

    settings = plant.session().settings
    digest = f"sha256:{name.encode().hex():0<64}"
    folder = settings.unpacked / digest[7:] / name
    write(folder / "train" / "one.png", name)
    assert arrivals.claim(settings, name, folder, digest, "archive")
    arrivals.update(settings, digest, state=state)
    return folder


def test_what_is_young_stays(working: Any) -> None:
    write(working.state / "crashes" / "a.txt")
    before, entries = files(working), working.ledger()
    answer = working.clr("prune", "--json")
    assert (answer.code, answer.json["files"]) == (0, 0), answer
    assert files(working) - before <= {str(working.state / "locks" / "upkeep.lock")} | {
        str(path) for path in (working.root / ".dvc" / "tmp").rglob("*")
    }
    assert (before <= files(working), working.ledger()) == (True, entries)


def test_what_is_old_goes_and_nothing_breaks(
    working: Any, template: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.databases.QUIET_SECONDS", 0.05)
    old = [
        write(working.state / "crashes" / "20260101T000000000000Z.txt"),
        write(working.state / "logs" / "registry.log.1"),
        write(working.root / "quarantine" / "bad" / "20260101T000000Z" / "message.txt"),
        write(working.state / "trainings" / "red-caps" / "0" / "checkpoint.safetensors"),
        write(working.state / "pilots" / "leaks" / "data-0123" / "train" / "wet" / "one.png"),
        arrive(working, "done", "done") / "train" / "one.png",
        arrive(working, "refused", "refused") / "train" / "one.png",
    ]
    kept = [
        write(working.state / "logs" / "registry.log"),
        write(working.state / "cache" / "gates" / "0.json"),
        write(working.state / "pilots" / "leaks" / "pilot.json"),
        write(working.root / "incoming" / "more" / "train" / "one.png"),
        arrive(working, "running", "running") / "train" / "one.png",
        arrive(working, "failed", "seen") / "train" / "one.png",
    ]
    before, photograph = files(working), working.photograph()
    would = prune(working, dry_run=True)
    assert files(working) - {str(working.state / "locks" / "upkeep.lock")} <= before
    done = prune(working)
    assert {**would, "dry_run": False, "list": done["list"]} == done
    assert [path for path in old if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    assert len(before - files(working)) == done["files"] > len(old)

    entry = list(working.session().ledger.entries(action="files.pruned"))[-1]
    assert entry.payload["list"] == sha256_file(Path(done["list"]))
    listed = json.loads(Path(done["list"]).read_bytes())["removed"]
    assert sum(one["bytes"] for one in listed) == done["bytes"] == entry.payload["bytes"]
    assert entry.payload["kinds"] == done["kinds"]
    after = working.photograph()
    assert after.pop("ledger")[:-1] == photograph.pop("ledger")
    assert after == photograph

    again = working.clr("onboard", template.tasks / "red-caps", "--json")
    assert (again.code, again.json.get("already"), again.json["version"]) == (0, True, 1), again
    image = next((template.tasks / "red-caps" / "test" / "light").iterdir())
    assert working.clr("predict", image, "--task", "red-caps").code == 0
    assert working.clr("backup", tmp_path / "safe").code == 0
    assert working.clr("restore", tmp_path / "safe", "--into", tmp_path / "new").code == 0
    for plant in (working, dataclasses.replace(working, root=tmp_path / "new")):
        assert plant.clr("verify").code == 0


def test_data_stays_as_long_as_anybody_names_it(working: Any) -> None:
    """Four versions of the data: named by an old commit, the ledger, the registry, nobody."""
    cache, remote = working.root / ".dvc" / "cache", working.state / "remote"
    made: dict[str, list[Path]] = {}
    oids: dict[str, str] = {}
    for name in ("git", "ledger", "registry", "nobody"):
        content = f"image of {name}".encode()
        image = _md5(content)
        oids[name], text = listing.dir_object({"train/a/0.png": image})
        made[name] = []
        for store in (cache, remote):
            for oid, data in ((image, content), (oids[name], text)):
                listing.keep_object(listing.object_path(store, oid), data)
                made[name].append(listing.object_path(store, oid))
    pinned = (working.root / "data.dvc").read_text()
    who = ("-c", "user.name=t", "-c", "user.email=t@t")
    for text in (pinned.replace(listing.pinned_oid(working.root), oids["git"]), pinned):
        (working.root / "data.dvc").write_text(text)
        assert run_git(working.root, "add", "data.dvc").returncode == 0
        assert run_git(working.root, *who, "commit", "-m", "data").returncode == 0
    session = working.session()
    payload = {"data": f"md5:{oids['ledger']}"}
    session.ledger.append("test", "t", payload, actor="t", authentication="t")
    session.registry.client.set_model_version_tag(
        "clr-red-caps", "1", "clr.test", f"md5:{oids['registry']}"
    )
    prune(working)
    left = {name: [path.exists() for path in paths] for name, paths in made.items()}
    assert left == {
        "git": [True] * 4,
        "ledger": [True] * 4,
        "registry": [True] * 4,
        "nobody": [False] * 4,
    }


@pytest.fixture
def committed(tmp_path: Path) -> tuple[Path, set[str]]:
    """A workspace in a folder of a repository, and all that its commits have pinned.

    One is on a branch whose merge kept the other side, and one is known to the reflog alone.
    """
    root, workspace = tmp_path / "repository", tmp_path / "repository" / "plant"
    workspace.mkdir(parents=True)
    found = set()

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main")
        done = run_git(root, *who, *arguments)
        assert done.returncode == 0, done.stderr

    def pin(content: str) -> None:
        oid, _ = listing.dir_object({"train/a/0.png": _md5(content.encode())})
        found.add(oid)
        text = listing.EMPTY_DATA_DVC.replace(listing.EMPTY_DIR, oid)
        write(workspace / "data.dvc", text)
        git("add", ".")
        git("commit", "-m", content)

    git("init")
    pin("first")
    git("checkout", "-b", "side")
    pin("on a branch")
    git("checkout", "main")
    pin("second")
    git("merge", "-s", "ours", "-m", "merged", "side")
    git("branch", "-D", "side")
    pin("taken back")
    git("reset", "--hard", "HEAD~1")
    git("rm", "-q", "plant/data.dvc")
    git("commit", "-m", "gone for a while")
    pin("now")
    return workspace, found


@pytest.mark.parametrize("attributes", ["", "*.dvc -diff\n", "*.dvc binary\n"])
@pytest.mark.parametrize("colour", ["auto", "always"])
def test_all_that_commits_pin_is_known_whatever_git_shows_of_a_change(
    committed: tuple[Path, set[str]], attributes: str, colour: str
) -> None:
    from flows.named import by_git

    workspace, pinned = committed
    write(workspace / ".gitattributes", attributes)
    assert run_git(workspace, "config", "color.ui", colour).returncode == 0
    assert by_git(workspace) == pinned


def test_what_a_git_that_refuses_does_not_tell_stays(working: Any, git_refuses: None) -> None:
    unnamed = listing.object_path(working.root / ".dvc" / "cache", _md5(b"x"))
    listing.keep_object(unnamed, b"x")
    done = prune(working)
    assert unnamed.exists()
    assert "objects" not in done["kinds"]
    assert "dubious ownership" in done["kept"][0]


def test_data_of_a_version_that_cannot_be_read_stays(working: Any) -> None:
    """What the lost list of a named version named is not known: so every object stays."""
    unnamed = listing.object_path(working.root / ".dvc" / "cache", _md5(b"x"))
    listing.keep_object(unnamed, b"x")
    payload = {"data": f"md5:{'0' * 32}.dir"}
    working.session().ledger.append("test", "t", payload, actor="t", authentication="t")
    done = prune(working)
    assert unnamed.exists()
    assert "objects" not in done["kinds"]
    assert "1 versions of the data" in done["kept"][0]


def _md5(content: bytes) -> str:
    import hashlib

    return hashlib.md5(content).hexdigest()


def test_logs_are_kept_longer_than_what_is_made_again(working: Any) -> None:
    log = write(working.state / "logs" / "registry.log.1")
    report = write(working.state / "crashes" / "20260101T000000000000Z.txt")
    made_again = write(working.state / "trainings" / "red-caps" / "0" / "checkpoint.safetensors")
    prune(working, days=91)
    assert (log.exists(), report.exists(), made_again.exists()) == (True, True, False)


def test_no_setting_undercuts_the_policy(working: Any) -> None:
    log = write(working.state / "logs" / "registry.log.1")
    answer = working.clr("prune", CLR_KEEP_LOGS_DAYS="30")
    assert answer.code == 2
    assert "CLR_KEEP_LOGS_DAYS is 30, but the policy keeps them for at least 184" in answer.err
    assert log.exists()


def test_files_of_deleted_runs_go_unless_a_version_names_the_run(working: Any) -> None:
    client = working.session().registry.client
    experiment = client.get_experiment_by_name("clr/red-caps").experiment_id
    named = client.get_model_version("clr-red-caps", "1").run_id
    deleted, alive = (client.create_run(experiment).info.run_id for _ in range(2))
    for run in (deleted, alive):
        client.log_text(run, "text", "note.txt")
    client.delete_run(deleted)
    client.delete_run(named)
    artifacts = working.state / "artifacts" / "clr-red-caps"
    before = {path for path in (artifacts / named).rglob("*") if path.is_file()}
    assert prune(working, days=0)["kinds"] == {}
    assert "deleted" not in prune(working)["kinds"]
    assert prune(working, days=MUCH_LATER)["kinds"]["deleted"]["files"] == 1
    assert not (artifacts / deleted / "artifacts").exists()
    assert (artifacts / alive / "artifacts" / "note.txt").exists()
    assert {path for path in (artifacts / named).rglob("*") if path.is_file()} == before


def test_a_task_that_is_being_onboarded_is_left_alone(working: Any) -> None:
    with working.session().lock("task-red-caps"):
        done = prune(working)
    assert list((working.state / "tasks" / "red-caps").iterdir())
    assert not (working.state / "tasks" / "blue-caps").exists()
    assert any("red-caps" in one for one in done["kept"])


def test_images_that_a_pilot_trains_on_are_left_alone(tmp_path: Path) -> None:
    settings, later = Settings(workspace=tmp_path), time.time() + 60
    image = write(settings.state / "pilots" / "red-caps" / "data-0123" / "train" / "1.png")
    with locks.hold(settings, "task-red-caps"):
        kept: list[str] = []
        assert list(_local(settings, later, kept)) == []
    assert kept == ["pilots/red-caps: it is at work"]
    assert [one.path for one in _local(settings, later, [])] == [str(image.parents[1])]


def test_what_vanishes_while_it_is_looked_at_is_no_error(tmp_path: Path) -> None:
    """As scratch folders and files on their way do where a plant is at work."""
    settings, stop = Settings(workspace=tmp_path), threading.Event()
    place = settings.state / "cache" / "evidence"
    kept = write(place / "kept")

    def work() -> None:
        while not stop.is_set():
            write(place / "scratch" / "deep" / "file")
            shutil.rmtree(place / "scratch")

    with ThreadPoolExecutor(1) as other:
        working = other.submit(work)
        try:
            found = [list(_local(settings, time.time() + 60, [])) for _ in range(300)]
        finally:
            stop.set()
        working.result()
    assert all(str(kept) in {old.path for old in one} for one in found)


@pytest.mark.parametrize("count", [0, 3])
def test_a_kill_in_the_middle_is_harmless(
    working: Any, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    from flows import prune as module

    real, calls = module._remove, iter(range(1000))

    def deadly(path: Path) -> None:
        if next(calls) == count:
            raise KeyboardInterrupt
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_remove", deadly)
        with pytest.raises(KeyboardInterrupt):
            prune(working)
    entry = list(working.session().ledger.entries(action="files.pruned"))[-1]
    written = working.state / "pruned" / f"{entry.subject}.json"
    assert entry.payload["list"] == sha256_file(written), "told before anything was removed"
    listed = [one["path"] for one in json.loads(written.read_bytes())["removed"]]
    assert [path for path in listed if Path(path).exists()] == listed[count:]
    assert working.clr("verify").code == 0
    prune(working)
    assert [path for path in listed if Path(path).exists()] == []
    assert prune(working)["files"] == 0
    assert working.clr("verify").code == 0


def test_a_registry_elsewhere_names_what_is_not_known_here(working: Any) -> None:
    plant = dataclasses.replace(
        working, settings={**working.settings, "CLR_REGISTRY_URL": "http://127.0.0.1:9"}
    )
    done = prune(plant)
    assert {"objects", "deleted"}.isdisjoint(done["kinds"])
    assert "elsewhere" in done["kept"][0]


def test_a_registry_without_tables_names_nothing(plant: Any) -> None:
    plant.state.mkdir(parents=True, exist_ok=True)
    (plant.state / "mlflow.db").touch()
    assert prune(plant, dry_run=True)["files"] == 0
