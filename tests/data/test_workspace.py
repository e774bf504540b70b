"""`clr init`: a folder becomes a workspace, and what is there already stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from clr.data import dvc, listing, workspace
from clr.data.repository import run_git
from clr.data.workspace import env_template, init_workspace
from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from clr.settings import Settings, find_workspace, load_settings
from flows.cli import main


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def git_init(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)


def test_a_new_workspace_has_everything(tmp_path: Path) -> None:
    made = init_workspace(tmp_path / "a" / "plant")
    root = tmp_path / "a" / "plant"
    assert names(root) == [
        ".dvc", ".dvcignore", ".git", ".gitignore", "clr.env", "data", "data.dvc", "incoming",
    ]  # fmt: skip
    assert made[0] == root
    assert made[-1] == root / "data.dvc"
    assert set(made) >= {root / "clr.env", root / "incoming", root / ".git"}
    assert all(path.exists() for path in made)
    assert find_workspace(root / "incoming") == root


def test_further_files_are_written_once(tmp_path: Path) -> None:
    made = init_workspace(tmp_path, {"mlflow/policy.yaml": "users: {}\n"})
    policy = tmp_path / "mlflow" / "policy.yaml"
    assert policy in made
    policy.write_text("users: {alice: [reviewer]}\n")
    assert init_workspace(tmp_path, {"mlflow/policy.yaml": "users: {}\n"}) == []
    assert "alice" in policy.read_text()


def test_git_sees_what_is_to_be_committed_and_nothing_else(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    for ignored in ("data/t/x.png", ".clr/mlflow.db", "incoming/t/x.png", "quarantine/t/r.html"):
        (tmp_path / ignored).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ignored).write_bytes(b"x")
    dvc.configure(load_settings(tmp_path))
    seen = subprocess.run(
        ["git", "status", "--porcelain", "-uall"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert sorted(line[3:] for line in seen.stdout.splitlines()) == [
        ".dvc/.gitignore", ".dvc/config", ".dvcignore", ".gitignore", "clr.env", "data.dvc",
    ]  # fmt: skip


def test_dvc_finds_a_repository_with_an_empty_data_folder(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"HOME": str(tmp_path / ".clr"), "PATH": "/usr/bin:/bin",
             "DVC_SITE_CACHE_DIR": str(tmp_path / ".clr")},
    )  # fmt: skip
    assert json.loads(status.stdout) == {}


def test_dvc_itself_would_pin_the_empty_folder_so(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    kept = listing.object_path(tmp_path / ".dvc" / "cache", listing.EMPTY_DIR)
    ours = (tmp_path / "data.dvc").read_bytes(), kept.read_bytes(), kept.stat().st_mode
    (tmp_path / "data.dvc").unlink()
    kept.unlink()
    with dvc.open_repo(load_settings(tmp_path)) as repo:
        repo.add(str(tmp_path / "data"))
    assert ours == ((tmp_path / "data.dvc").read_bytes(), kept.read_bytes(), kept.stat().st_mode)


def test_a_second_time_makes_nothing(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert init_workspace(tmp_path) == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_what_is_missing_is_added_and_what_was_edited_stays(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    (tmp_path / "clr.env").write_text("CLR_SEED=7\n")
    (tmp_path / "incoming").rmdir()
    assert init_workspace(tmp_path) == [tmp_path / "incoming"]
    assert load_settings(tmp_path).seed == 7


@pytest.mark.parametrize("step", ["_git_init", "env_template", "keep_object"])
def test_an_interrupted_init_is_no_workspace_yet_and_is_finished_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(workspace, step, stop)
        with pytest.raises(KeyboardInterrupt):
            init_workspace(tmp_path / "w")
    with pytest.raises(UsageError, match="clr init"):
        load_settings(find_workspace(tmp_path / "w"))
    init_workspace(tmp_path / "w")
    assert find_workspace(tmp_path / "w") == tmp_path / "w"


def test_an_existing_repository_is_used(tmp_path: Path) -> None:
    git_init(tmp_path)
    (tmp_path / "train.py").write_text("print()")
    (tmp_path / ".gitignore").write_text("*.pyc\n/data")
    made = init_workspace(tmp_path)
    assert tmp_path / ".git" not in made
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines == ["*.pyc", "/data", "/.clr/", "/incoming/", "/quarantine/"]
    assert not (tmp_path / "inner" / ".git").exists()
    init_workspace(tmp_path / "inner")
    assert not (tmp_path / "inner" / ".git").exists()


def test_a_gitignore_of_another_encoding_keeps_its_bytes(tmp_path: Path) -> None:
    git_init(tmp_path)
    (tmp_path / ".gitignore").write_bytes("gemäß\n/data".encode("latin-1"))
    init_workspace(tmp_path)
    lines = (tmp_path / ".gitignore").read_bytes().splitlines()
    assert lines == ["gemäß".encode("latin-1"), b"/data", b"/.clr/", b"/incoming/", b"/quarantine/"]


def test_without_git_the_missing_history_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = CliRunner().invoke(main, ["init", str(tmp_path / "w")])
    assert told.exit_code == 0
    assert "no repository was made" in told.stderr
    with pytest.raises(ServiceUnavailable, match="git is not installed") as caught:
        run_git(tmp_path, "status")
    assert "Install it" in caught.value.fix
    monkeypatch.undo()
    told = CliRunner().invoke(main, ["init", str(tmp_path / "w")])
    assert (told.stderr, (tmp_path / "w/.git").is_dir()) == ("", True)


def test_beside_a_repository_it_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_init(tmp_path / "code")
    monkeypatch.chdir(tmp_path / "code")
    told = CliRunner().invoke(main, ["init", "../plant", "--json"])
    assert (told.exit_code, told.stderr) == (0, "")
    assert json.loads(told.stdout)["workspace"] == str(tmp_path / "plant")
    assert (tmp_path / "plant" / ".git").is_dir()


def test_in_a_repository_it_is_told_whose_the_history_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_init(tmp_path)
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(main, ["init", "plant"])
    assert told.exit_code == 0
    assert f"in the git repository {tmp_path}:" in told.stderr


def test_a_folder_beside_a_workspace_is_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_workspace(tmp_path / "plant")
    monkeypatch.chdir(tmp_path / "plant")
    with pytest.raises(UsageError, match="not inside a workspace"):
        find_workspace(Path("../other"))
    monkeypatch.setenv("CLR_WORKSPACE", "../plant/incoming")
    assert load_settings().workspace == tmp_path / "plant"


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "incoming").write_text("mine")
    with pytest.raises(ServiceUnavailable, match=f"{tmp_path / 'incoming'}: File exists") as caught:
        init_workspace(tmp_path)
    assert caught.value.fix.startswith(f"Move {tmp_path / 'incoming'} away")


@pytest.mark.parametrize("name", ["config", "config.local"])
@pytest.mark.parametrize("content", [b"garbage [", b"\xff"])
def test_a_damaged_configuration_of_dvc_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    init_workspace(tmp_path)
    (tmp_path / ".dvc" / name).write_bytes(content)
    with pytest.raises(IntegrityBroken, match=rf"\.dvc/{name} cannot be read"):
        dvc.configure(load_settings(tmp_path))
    with pytest.raises(IntegrityBroken, match=r"\.dvc/config cannot be read"):
        dvc.cache_folder(tmp_path)


def test_a_dvcignore_of_another_encoding_is_named(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    (tmp_path / ".dvcignore").write_bytes("Prüfling".encode("latin-1"))
    with pytest.raises(IntegrityBroken, match=r"\.dvcignore cannot be read"):
        init_workspace(tmp_path)


def test_an_existing_dvc_repository_keeps_its_configuration(tmp_path: Path) -> None:
    git_init(tmp_path)
    (tmp_path / ".dvc").mkdir()
    config = "[core]\n    remote = ours\n['remote \"ours\"']\n    url = s3://ours\n"
    (tmp_path / ".dvc" / "config").write_text(config)
    (tmp_path / ".dvcignore").write_text("*.tmp")
    init_workspace(tmp_path)
    dvc.configure(load_settings(tmp_path))
    assert (tmp_path / ".dvc" / "config").read_text() == config
    assert (tmp_path / ".dvcignore").read_text().splitlines()[0] == "*.tmp"
    local = (tmp_path / ".dvc" / "config.local").read_text()
    assert "remote = " not in local
    assert 'remote "clr"' in local


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"holiday\.jpg") as caught:
        init_workspace(tmp_path)
    assert "git init" in caught.value.fix
    assert names(tmp_path) == ["holiday.jpg"]


def test_a_data_folder_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    git_init(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("1")
    with pytest.raises(UsageError, match="data"):
        init_workspace(tmp_path)
    assert names(tmp_path) == [".git", "data"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        init_workspace(tmp_path / "w")


def test_the_settings_file_names_every_setting_and_sets_none(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    assert load_settings(tmp_path) == Settings(workspace=tmp_path)
    lines = [line[1:] for line in env_template().splitlines() if line.startswith("#CLR_")]
    assert {line.split("=")[0] for line in lines} == {
        f"CLR_{name.upper()}" for name in Settings.model_fields if name != "workspace"
    }
    # taken in, the defaults are valid; those without a value stay out
    filled = [line for line in lines if not line.endswith("=")]
    (tmp_path / "clr.env").write_text("\n".join(filled))
    assert load_settings(tmp_path) == Settings(workspace=tmp_path)
