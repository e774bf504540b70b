"""A workspace is backed up while it works, destroyed, brought back, and goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clr.serving.journal import Journal, answer, journal_path
from flows.backup import Collection
from tests.serving.journals import answers


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.databases.QUIET_SECONDS", 0.05)


@pytest.fixture
def safe(working: Any, tmp_path: Path) -> Path:
    """A folder with one snapshot of `working`."""
    answer = working.clr("backup", tmp_path / "safe", "--json")
    assert answer.code == 0, answer
    return tmp_path / "safe"


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))  # whoever closes last
    }


def text_of(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        return "\n".join(connection.iterdump())


def bring_back(plant: Any, source: Path, target: Path, **settings: str) -> Any:
    answer = plant.clr("restore", source, "--into", target, "--json", at=source.parent, **settings)
    assert answer.code == 0, answer
    return dataclasses.replace(plant, root=target, settings={**plant.settings, **settings})


def objects(folder: Path) -> list[Path]:
    return [path for path in (folder / "objects").rglob("*") if path.is_file()]


def test_everything_else_is_destroyed(working: Any, new_caps: Any, tmp_path: Path) -> None:
    """The workspace comes back elsewhere, verifies, and goes on where it was."""
    git(working.root, "add", ".")
    git(working.root, "commit", "--quiet", "-m", "all")
    head = git(working.root, "rev-parse", "HEAD")
    (working.root / "clr.env").write_text("CLR_SEED=0\n")
    dropped = tree(new_caps(working.root / "incoming" / "more-caps", 3))
    data, entries = tree(working.root / "data"), working.ledger()
    made = working.clr("backup", tmp_path / "safe", "--json").json
    assert working.ledger() == [*entries, ("backup.made", made["snapshot"])]
    assert not any(path.stat().st_mode & 0o077 for path in objects(tmp_path / "safe"))
    shutil.rmtree(working.root)

    new = bring_back(working, tmp_path / "safe", tmp_path / "new")
    assert tree(new.root / "data") == data
    assert tree(new.root / "incoming" / "more-caps") == dropped
    assert (new.root / "clr.env").read_text() == "CLR_SEED=0\n"
    assert git(new.root, "rev-parse", "HEAD") == head
    assert git(new.root, "status", "--porcelain", "--branch") == "## main\n M clr.env\n"
    for secret in (new.state / "keys", new.state / "keys" / "ledger.key"):
        assert not secret.stat().st_mode & 0o077
    assert new.ledger() == [*entries, ("backup.restored", made["snapshot"])]
    verified = new.clr("verify", "--json")
    assert verified.code == 0, verified
    assert verified.json["checked"]["data sets"] == 3

    onboarded = new.clr("onboard", new.root / "incoming" / "more-caps", "--json")
    assert (onboarded.code, onboarded.json["version"]) == (0, 1), onboarded
    assert new.clr("review", "more-caps", 1, "approve", "--json").code == 0
    assert new.clr("verify", "--json").code == 0
    assert str(working.root) not in text_of(new.state / "mlflow.db")


def test_a_clone_of_a_part_of_the_history_comes_back_as_that(working: Any, tmp_path: Path) -> None:
    git(working.root, "add", ".")
    git(working.root, "commit", "--quiet", "-m", "all")
    git(working.root, "commit", "--quiet", "--allow-empty", "-m", "more")
    safe, whole = tmp_path / "safe", tmp_path / "whole"
    shutil.copytree(working.root / ".git", whole)
    git(tmp_path, "clone", "--quiet", "--bare", "--depth", "1", whole.as_uri(), "part")
    git(tmp_path / "part", "config", "core.bare", "false")
    shutil.rmtree(working.root / ".git")
    (tmp_path / "part").rename(working.root / ".git")
    assert working.clr("backup", safe).code == 0
    part = bring_back(working, safe, tmp_path / "of-a-part")
    git(working.root, "fetch", "--quiet", "--unshallow")
    assert working.clr("backup", safe).code == 0
    new = bring_back(working, safe, tmp_path / "of-the-whole")
    for plant, subjects in ((part, "more\n"), (new, "more\nall\n")):
        assert git(plant.root, "log", "--format=%s").startswith(subjects)
        git(plant.root, "fsck", "--strict")
    assert git(part.root, "log", "--format=%s") == "more\n"


def test_an_anchor_before_the_first_commit_is_in_the_backup(working: Any, tmp_path: Path) -> None:
    assert git(working.root, "rev-list", "--all") == ""
    assert working.clr("anchor", "--git", "--json").code == 0
    answer = working.clr("backup", tmp_path / "safe", "--json")
    assert answer.code == 0, answer
    new = bring_back(working, tmp_path / "safe", tmp_path / "new")
    assert git(new.root, "show-ref") == git(working.root, "show-ref")
    assert new.clr("verify", "--json").json["checked"]["anchors"] == 1


def test_answers_that_are_being_written_are_in_it_whole(
    working: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite moves rows from one file of the journal to the other while both are read."""
    journal = Journal(journal_path(working.state), keep_days=36_500, keep_rows=1000)
    given = answers(200, first=0.0, every=1.0)
    journal.write(given).result()
    real = Collection.file

    def moved(self: Collection, source: Path, path: str) -> Any:
        if path.endswith("-wal"):
            journal._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return real(self, source, path)

    monkeypatch.setattr(Collection, "file", moved)
    assert working.clr("backup", tmp_path / "safe").code == 0
    journal.close()
    new = bring_back(working, tmp_path / "safe", tmp_path / "new")
    assert answer(new.state, given[-1].request_id) == given[-1]


def test_answers_that_are_damaged_are_named_and_the_rest_is_kept(
    working: Any, tmp_path: Path
) -> None:
    journal_path(working.state).parent.mkdir(exist_ok=True)
    journal_path(working.state).write_bytes(b"this is no database" * 1000)
    made = working.clr("backup", tmp_path / "safe", "--json")
    assert made.code == 0, made
    assert ["answers of the prediction server" in one for one in made.json["left_out"]] == [True]
    assert working.clr("backup", tmp_path / "safe", "--verify").code == 0


def test_what_is_there_is_not_stored_again(working: Any, safe: Path) -> None:
    before = {path: path.stat().st_ino for path in objects(safe)}
    image = next(path for path in (working.root / "data").rglob("*.png"))
    same = [path for path in objects(safe) if path.read_bytes() == image.read_bytes()]
    assert len(same) == 1, "an image is in data/, cache and remote"
    (working.root / "mlflow").mkdir()
    (working.root / "mlflow" / "policy.yaml").write_text("schema: clr.policy/1\n")
    again = working.clr("backup", safe, "--json").json
    new = {path.read_bytes() for path in objects(safe) if path not in before}
    assert b"schema: clr.policy/1\n" in new
    assert again["added"] == len(new) <= 3, (
        "besides it the ledger, which has a new entry, and its head"
    )
    assert before.items() <= {path: path.stat().st_ino for path in objects(safe)}.items()
    first, _ = sorted((safe / "snapshots").glob("*.json"), key=lambda path: path.stem)
    first.unlink()
    working.clr("backup", safe)
    assert working.clr("backup", safe, "--verify", at=safe).code == 0
    assert not set(before) <= set(objects(safe)), "what only the removed snapshot named is gone"


DEADLY = """
import os, signal, sys
import flows.store, flows.databases
from flows.cli import main
flows.databases.QUIET_SECONDS = 0.05
calls = 0
def armed(real):
    def deadly(*arguments, **named):
        global calls
        calls += 1
        if calls == {call}:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    return deadly
{owner}.{name} = armed({owner}.{name})
main({arguments})
"""


def killed(plant: Any, owner: str, name: str, call: int, *arguments: object) -> None:
    words = [str(one) for one in arguments]
    code = DEADLY.format(owner=owner, name=name, call=call, arguments=words)
    environment = {**os.environ, **plant.settings, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([sys.executable, "-c", code], cwd=plant.root, env=environment)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [("flows.store.Store", "_place", 1), ("flows.store", "write_atomic", 1)],
    ids=["a new object", "the document"],
)
def test_a_killed_backup_leaves_the_former_one(
    working: Any, safe: Path, owner: str, name: str, call: int
) -> None:
    before = tree(safe / "snapshots")
    (working.root / "incoming" / "more").mkdir()
    (working.root / "incoming" / "more" / "new.png").write_bytes(b"new" * 500_000)
    killed(working, owner, name, call, "backup", safe)
    assert tree(safe / "snapshots") == before
    assert working.clr("backup", safe, "--verify").code == 0
    assert working.clr("backup", safe).code == 0
    assert len(list((safe / "snapshots").iterdir())) == 2
    assert not [path for path in objects(safe) if path.name.endswith(".tmp")]


def test_snapshots_that_are_too_old_go_with_what_they_alone_have(working: Any, safe: Path) -> None:
    (first,) = (safe / "snapshots").iterdir()
    first.rename(first.with_name("20200101T000000Z.json"))
    kept = working.clr("backup", safe, "--json", CLR_KEEP_BACKUPS_DAYS="9999")
    assert kept.json["expired"] == []
    gone = working.clr("backup", safe, "--json", CLR_KEEP_BACKUPS_DAYS="30")
    assert gone.json["expired"] == ["20200101T000000Z"]
    assert working.clr("backup", safe, "--verify").code == 0
    entry = list(working.session().ledger.entries(action="backup.made"))[-1]
    assert entry.payload["expired"] == ["20200101T000000Z"]


def test_a_full_disk_leaves_no_half_snapshot(working: Any, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount file systems here")
    try:
        answer = working.clr("backup", disk / "safe")
        assert answer.code == 7, answer
        assert "space" in answer.err or "full" in answer.err
        assert "Traceback" not in answer.err
        assert not list((disk / "safe" / "snapshots").iterdir())
        checked = working.clr("backup", disk / "safe", "--verify")
        assert checked.code == 6
        assert "holds no snapshot" in checked.err
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert working.clr("backup", disk / "safe").code == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_git_that_refuses_makes_no_backup_without_history(
    working: Any, tmp_path: Path, git_refuses: None
) -> None:
    answer = working.clr("backup", tmp_path / "safe")
    assert answer.code == 7, answer
    assert "dubious ownership" in answer.err
    assert not list((tmp_path / "safe" / "snapshots").iterdir())


def test_a_killed_restore_is_run_again(working: Any, safe: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    killed(working, "flows.store.Store", "put", 200, "restore", safe, "--into", target)
    assert not target.exists()
    new = bring_back(working, safe, target)
    assert [path.name for path in tmp_path.iterdir() if "restoring" in path.name] == []
    assert tree(new.root / "data") == tree(working.root / "data")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_changed_backup_is_told_and_not_restored(
    working: Any, safe: Path, tmp_path: Path
) -> None:
    (document,) = (safe / "snapshots").iterdir()
    files = {one["path"]: one["sha256"][7:] for one in json.loads(document.read_bytes())["files"]}
    digest = files["state/mlflow.db"]
    flip(safe / "objects" / digest[:2] / digest[2:])
    checked = working.clr("backup", safe, "--verify", "--json")
    assert checked.code == 6
    assert "state/mlflow.db" in checked.out
    for target in (tmp_path / "new", tmp_path / "there"):
        answer = working.clr("restore", safe, "--into", target)
        assert answer.code == 6, answer
        assert "state/mlflow.db" in answer.err
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir() if "restoring" in path.name] == []


@pytest.mark.parametrize(
    "path",
    ["workspace/../../evil", "/etc/evil", "workspace/.git/hooks/post-checkout", "evil", "state//x"],
)
def test_a_hostile_snapshot_is_refused(working: Any, safe: Path, tmp_path: Path, path: str) -> None:
    (document,) = (safe / "snapshots").iterdir()
    words = json.loads(document.read_bytes())
    words["files"][0]["path"] = path
    document.write_text(json.dumps(words))
    answer = working.clr("restore", safe, "--into", tmp_path / "new")
    assert answer.code == 6, answer
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "evil").exists()


def test_nothing_is_overwritten(working: Any, safe: Path, tmp_path: Path) -> None:
    before = tree(working.root)
    answer = working.clr("restore", safe, at=tmp_path)
    assert (answer.code, tree(working.root)) == (2, before), answer
    assert "not empty" in answer.err
    answer = working.clr("restore", safe, "--into", tmp_path / "new", CLR_HOME=str(working.state))
    assert (answer.code, tree(working.root)) == (2, before), answer
    assert not (tmp_path / "new").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_bytes(b"one")
    answer = working.clr("backup", tmp_path / "photos")
    assert answer.code == 2, answer
    assert tree(tmp_path / "photos") == {"one.png": b"one"}


def test_state_elsewhere_comes_back_elsewhere(working: Any, safe: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    new = bring_back(working, safe, tmp_path / "empty", CLR_HOME=str(tmp_path / "home"))
    assert not (new.root / ".clr").exists()
    assert new.clr("verify").code == 0


def test_a_workspace_that_was_moved_or_copied_goes_on(working: Any, tmp_path: Path) -> None:
    """Addresses of the registry's files follow, of a copy while the first one is there, too."""
    shutil.copytree(working.root, tmp_path / "copy", symlinks=True)
    before = text_of(working.state / "mlflow.db")
    copy = dataclasses.replace(working, root=tmp_path / "copy")
    assert copy.clr("verify").code == 0
    assert str(working.root) not in text_of(copy.state / "mlflow.db")
    assert text_of(working.state / "mlflow.db") == before
    working.root.rename(tmp_path / "moved")
    assert dataclasses.replace(working, root=tmp_path / "moved").clr("verify").code == 0


def test_without_secrets_a_new_key_is_made(working: Any, tmp_path: Path) -> None:
    from clr.audit.forms.signing import bundle_key

    secret = working.state / "secrets" / "admin.password"
    secret.parent.mkdir(mode=0o700)
    secret.write_text("a-password-of-somebody")
    settings = working.root / "clr.env"
    settings.write_text("CLR_GIT_REMOTE=https://bot:token@store/plant.git\n")
    git(working.root, "remote", "add", "origin", "https://bot:token@store/plant.git")
    key = (working.state / "keys" / "ledger.key").read_bytes()
    signing_key = bundle_key(working.state / "keys").path.read_bytes()
    made = working.clr("backup", tmp_path / "safe", "--without-secrets", "--json")
    assert made.code == 0, made
    told = [one for one in made.json["left_out"] if "may hold secrets" in one]
    assert [one.split(",")[0] for one in told] == ["clr.env", "git's configuration"]
    stored = [path.read_bytes() for path in objects(tmp_path / "safe")]
    assert key not in stored
    assert signing_key not in stored
    assert secret.read_bytes() not in stored
    assert not [one for one in stored if b"bot:token" in one]
    new = bring_back(working, tmp_path / "safe", tmp_path / "new")
    assert (new.state / "keys" / "ledger.key").read_bytes() != key
    assert len(list((new.state / "keys").glob("*.pub"))) == 2
    assert new.clr("verify").code == 0, "entries of the old key stay trusted"


def test_a_damaged_object_is_taken_from_where_it_is_whole(working: Any, tmp_path: Path) -> None:
    stores = [working.root / ".dvc" / "cache", working.state / "remote"]
    images = sorted(
        path
        for path in (stores[0] / "files" / "md5").glob("*/*")
        if not path.name.endswith(".dir") and path.stat().st_size
    )
    remote_has, nobody_has = (path.relative_to(stores[0]) for path in images[:2])
    whole = (stores[0] / remote_has).read_bytes()
    lost = (stores[0] / nobody_has).read_bytes()
    for path in (stores[0] / remote_has, *(store / nobody_has for store in stores)):
        path.chmod(0o644)
        flip(path)
    for path in (working.root / "data").rglob("*.*"):
        if path.is_file() and path.read_bytes() == lost:
            path.unlink()
    answer = working.clr("backup", tmp_path / "safe", "--json")
    (damaged,) = answer.json["damaged"]
    assert (answer.code, damaged) == (6, nobody_has.parent.name + nobody_has.name), answer
    new = bring_back(working, tmp_path / "safe", tmp_path / "new")
    assert (new.root / ".dvc" / "cache" / remote_has).read_bytes() == whole
    assert not (new.root / ".dvc" / "cache" / nobody_has).exists()
    assert new.clr("verify").code == 6


def test_a_copy_has_both_rows_of_an_act_or_none(
    working: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody registers while the databases are copied: the registry's row came first."""
    from flows import databases

    monkeypatch.setattr(databases, "QUIET_SECONDS", 0.3)
    ledger = working.session().ledger
    rows: list[str] = []
    copies: list[tuple[int, int]] = []

    def copy() -> None:
        if len(copies) < 2:
            rows.append("registry first")
        copies.append((len(rows), len(working.ledger())))
        if len(copies) < 2:
            ledger.append("test", "act", actor="t", authentication="t")
        elif len(copies) == 2:
            ledger.append("test", "another", actor="t", authentication="t")

    before = len(working.ledger())
    assert databases.in_a_quiet_moment(ledger, copy)
    assert copies[-1] == (2, before + 2), "the last copy has both rows of both acts"
    assert len(copies) == 3


def test_a_ledger_in_postgresql(
    plant: Any,
    new_database: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dumped with its triggers, brought into an empty database, and its chain goes on."""
    import sqlalchemy as sa

    from clr.audit.ledger import open_ledger
    from tests.postgres import _programs

    first, second = new_database(), new_database()
    here = dataclasses.replace(plant, settings={**plant.settings, "CLR_LEDGER_URL": first})
    old = open_ledger(here.state, first)
    for number in range(3):
        old.append("test", f"act {number}", actor="t", authentication="t")
    monkeypatch.setenv("PATH", "/nowhere")
    without = here.clr("backup", tmp_path / "safe")
    assert (without.code, "pg_dump is not installed" in without.err) == (7, True), without
    monkeypatch.setenv("PATH", f"{_programs()}:/usr/bin:/bin")
    assert here.clr("backup", tmp_path / "safe").code == 0
    command = ("restore", tmp_path / "safe", "--into", tmp_path / "new")
    for url in ("", first):  # another kind of database, and one that is not empty
        refused = here.clr(*command, CLR_LEDGER_URL=url)
        assert refused.code == 2, refused
        assert not (tmp_path / "new").exists()

    new = bring_back(here, tmp_path / "safe", tmp_path / "new", CLR_LEDGER_URL=second)
    ledger = open_ledger(new.state, second)
    assert [one.action for one in ledger.entries()] == ["test"] * 3 + ["backup.restored"]
    assert ledger.verify() == []
    engine = sa.create_engine(second.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as other, pytest.raises(sa.exc.DBAPIError, match="append-only"):
        other.execute(sa.text("DELETE FROM clr_ledger"))
    engine.dispose()
