"""Settings: one table, the environment over ``clr.env`` over defaults, every error named."""

from __future__ import annotations

import json
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
    ],
)
def test_a_value_that_cannot_be_is_named(workspace, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name) as caught:
        load_settings()
    assert "clr.env" in caught.value.fix


def test_a_mistyped_name_in_clr_env_is_an_error(workspace):
    (workspace / "clr.env").write_text("CLR_SEDE=3\n", encoding="utf-8")
    with pytest.raises(UsageError, match="CLR_SEDE"):
        load_settings()


def test_the_workspace_is_found_from_anywhere_inside(workspace):
    below = workspace / "data" / "some" / "where"
    below.mkdir(parents=True)
    assert find_workspace(below) == workspace


def test_outside_a_workspace_the_way_in_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"no data\.dvc") as caught:
        find_workspace(tmp_path)
    assert "clr init" in caught.value.fix


def test_a_workspace_may_be_named(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLR_WORKSPACE", str(workspace))
    assert find_workspace() == workspace
    assert load_settings().workspace == workspace


def test_state_lies_in_the_workspace_or_where_clr_home_says(workspace, tmp_path, monkeypatch):
    assert load_settings().state == workspace / ".clr"
    monkeypatch.setenv("CLR_HOME", str(tmp_path / "elsewhere"))
    assert load_settings().state == tmp_path / "elsewhere"
    monkeypatch.setenv("CLR_HOME", "relative")
    assert load_settings().state == Path("relative").absolute()


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
