"""Settings: one table, the environment over ``clr.env`` over defaults, every error named."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from clr.data.workspace import env_template, init_workspace
from clr.errors import UsageError
from clr.settings import Settings, find_workspace, load_settings
from flows.cli import main


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    init_workspace(tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


def test_the_environment_wins_over_clr_env_over_the_default(workspace, monkeypatch):
    assert load_settings().seed == 0
    (workspace / "clr.env").write_text("CLR_SEED=3\n", encoding="utf-8")
    assert load_settings().seed == 3
    monkeypatch.setenv("CLR_SEED", "7")
    assert load_settings().seed == 7


def test_the_template_names_every_setting_and_sets_none(workspace):
    named = set(re.findall(r"^#(CLR_\w+)=", env_template(), re.M))
    wanted = {f"CLR_{name.upper()}" for name in Settings.model_fields} - {"CLR_WORKSPACE"}
    assert named == wanted
    assert load_settings() == Settings(workspace=workspace)


def test_every_setting_has_a_meaning():
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLR_SEED", "many"),
        ("CLR_SEED", "-1"),
        ("CLR_DEVICE", "abacus"),
        ("CLR_GATE_MARGIN", "2"),
        ("CLR_GATE_ALPHA", "0.6"),
        ("CLR_PREFECT_PORT", "70000"),
        ("CLR_MIN_IMAGES_PER_CLASS", "0"),
        ("CLR_BUSINESS_ERROR_COST", "-5"),
        ("CLR_SEED", "2147483648"),  # no recipe takes it
        ("CLR_SERVE_RATE", "inf"),
        ("CLR_RECONCILE_SECONDS", "nan"),
        ("CLR_GIT_POLL_SECONDS", "1e10"),  # no thread can wait so long
        ("CLR_STEP_MINUTES", "0"),
        ("CLR_HOME", "~nobody-of-that-name/x"),
        ("CLR_REGISTRY_URL", "5"),
        ("CLR_REGISTRY_URL", "localhost:5000"),
        ("CLR_REGISTRY_URL", "sqlite:///x.db"),
        ("CLR_REGISTRY_URL", "http://"),
        ("CLR_REGISTRY_URL", "http://[bad"),
        ("CLR_REGISTRY_URL", "http://exa mple"),
        ("CLR_REGISTRY_URL", "http://127.0.0.1:abc"),
        ("CLR_REGISTRY_URL", f"http://{'x' * 64}.example.org"),
        ("CLR_REGISTRY_URL", "http://example..org"),
        ("CLR_RELEASE_SERVICE", "here"),
    ],
)
def test_a_value_that_cannot_be_is_named(workspace, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name) as caught:
        load_settings()
    assert "clr.env" in caught.value.fix


@pytest.mark.parametrize("name", ["CLR_SEDE", "SEED", "seed"])
def test_a_mistyped_name_in_clr_env_is_an_error(workspace, name):
    (workspace / "clr.env").write_text(f"CLR_THREADS=1\n\n{name}=3\n", encoding="utf-8")
    with pytest.raises(UsageError, match=f"line 3, names {name}, which is no setting") as caught:
        load_settings()
    assert "CLR_SEED" in caught.value.fix


def test_a_name_in_clr_env_that_is_like_no_other_is_to_be_removed(workspace):
    (workspace / "clr.env").write_text("FOO=1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="names FOO, which is no setting") as caught:
        load_settings()
    assert "Remove it" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\nCLR_GATE_MARGIN 0.001\n", "line 2, is not NAME=VALUE"),
        (b"CLR_SEED\n", "line 1, is not NAME=VALUE"),
        (b'CLR_SEED=1\nCLR_GIT_REMOTE="x\nCLR_THREADS=2\n', "line 2, is not NAME=VALUE"),
        (b"CLR_SEED=\xff\n", "is not UTF-8"),
    ],
)
def test_a_damaged_line_of_clr_env_is_an_error_and_no_default(workspace, text, says):
    (workspace / "clr.env").write_bytes(text)
    with pytest.raises(UsageError, match=rf"clr\.env.*{says}"):
        load_settings()


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to("clr.env"),
        lambda path: path.symlink_to("nothing"),
    ],
)
def test_a_clr_env_that_is_no_file_is_an_error_and_no_default(workspace, make):
    (workspace / "clr.env").unlink()
    assert load_settings().seed == 0
    make(workspace / "clr.env")
    with pytest.raises(UsageError, match=r"clr\.env is not a file"):
        load_settings()


def test_what_the_template_sets_to_nothing_is_not_set(workspace):
    lines = re.findall(r"^#(CLR_\w+=)$", env_template(), re.M)
    (workspace / "clr.env").write_text("\n".join(lines), encoding="utf-8")
    assert "CLR_HOME=" in lines
    assert load_settings() == Settings(workspace=workspace)


def test_the_workspace_is_found_from_anywhere_inside(workspace):
    below = workspace / "data" / "some" / "where"
    below.mkdir(parents=True)
    assert find_workspace(below) == workspace


def test_outside_a_workspace_the_way_in_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"no data\.dvc") as caught:
        find_workspace(tmp_path)
    assert "clr init" in caught.value.fix


def test_a_folder_that_was_deleted_is_said(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UsageError, match="is gone"):
        load_settings()


def test_a_workspace_may_be_named(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLR_WORKSPACE", str(workspace))
    assert find_workspace() == workspace
    assert load_settings().workspace == workspace


def test_state_lies_in_the_workspace_or_where_clr_home_says(workspace, tmp_path, monkeypatch):
    assert load_settings().state == workspace / ".clr"
    monkeypatch.setenv("CLR_HOME", str(tmp_path / "elsewhere"))
    assert load_settings().state == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("given", "place"),
    [("", "{0}/.clr"), ("relative", "{0}/relative"), ("~/x", "{1}/x"), ("/a/b", "/a/b")],
)
def test_state_is_the_same_folder_wherever_one_stands(
    workspace, tmp_path, monkeypatch, given, place
):
    monkeypatch.setenv("CLR_HOME", given)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(workspace / "incoming")
    assert load_settings().state == Path(place.format(workspace, tmp_path))


@pytest.mark.parametrize(
    ("given", "place"),
    [("", "{0}/incoming"), ("drop", "{0}/drop"), (".clr/drop", "{0}/.clr/drop"), ("~/x", "{1}/x")],
)
def test_so_is_the_folder_that_is_watched(workspace, tmp_path, monkeypatch, given, place):
    monkeypatch.setenv("CLR_INCOMING", given)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(workspace / "data")
    assert load_settings().inbox == Path(place.format(workspace, tmp_path))


@pytest.mark.parametrize(
    "place", [".", "..", "data", "./data/caps", "drop/../data", ".clr", "state",
              ".git", ".dvc/cache", "mlflow", "quarantine/caps", "link"],
)  # fmt: skip
def test_no_folder_is_watched_whose_content_is_the_workspace_s_own(workspace, monkeypatch, place):
    """What is refused there moves into quarantine: pinned images would be taken away."""
    monkeypatch.setenv("CLR_HOME", "state" if place == "state" else "")
    (workspace / "link").symlink_to("data")
    monkeypatch.setenv("CLR_INCOMING", place)
    with pytest.raises(UsageError, match="CLR_INCOMING is not valid: it holds, or lies in"):
        load_settings()


def test_commands_follow_the_server_that_was_started_here_unless_told_otherwise(
    workspace, monkeypatch
):
    assert load_settings().registry == ""
    load_settings().state.mkdir()
    load_settings().registry_file.write_text('{"url": "http://127.0.0.1:5001"}')
    assert load_settings().registry == "http://127.0.0.1:5001"
    monkeypatch.setenv("CLR_REGISTRY_URL", "https://models.example.com/")
    assert load_settings().registry == "https://models.example.com"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_note_of_the_server_is_an_error_and_no_empty_registry(workspace, text):
    load_settings().state.mkdir()
    load_settings().registry_file.write_text(text)
    with pytest.raises(UsageError, match=r"registry\.json") as caught:
        _ = load_settings().registry
    assert "clr up registry" in caught.value.fix


def test_clr_settings_shows_what_is_in_force(workspace, monkeypatch):
    monkeypatch.setenv("CLR_SEED", "7")
    table = json.loads(CliRunner().invoke(main, ["settings", "--json"]).stdout)
    assert table["CLR_SEED"]["value"] == 7
    assert table["CLR_SEED"]["meaning"]
    assert table.keys() == {f"CLR_{name.upper()}" for name in Settings.model_fields}
    assert "CLR_SEED" in CliRunner().invoke(main, ["settings"]).stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [("HORIZON_YEARS", "1e12"), ("ITEMS_PER_YEAR", "1e308"), ("ITEMS_PER_YEAR", "inf"),
     ("DISCOUNT_RATE", "-0.9")],
)  # fmt: skip
def test_an_assumption_beyond_its_bounds_is_refused(workspace, monkeypatch, name, value):
    monkeypatch.setenv(f"CLR_BUSINESS_{name}", value)
    with pytest.raises(UsageError, match=f"CLR_BUSINESS_{name}"):
        load_settings()


def test_business_assumptions_come_by_their_name_in_task_yaml(workspace, monkeypatch):
    assert load_settings().business() == {}
    monkeypatch.setenv("CLR_BUSINESS_ERROR_COST", "2.5")
    monkeypatch.setenv("CLR_BUSINESS_CURRENCY", "EUR")
    assert load_settings().business() == {"error_cost": 2.5, "currency": "EUR"}
