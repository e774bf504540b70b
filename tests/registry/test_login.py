"""As whom commands speak to the registry server."""

from __future__ import annotations

import os

import pytest

from clr.registry.login import sign_in
from clr.registry.server.secrets import TRAINER_PASSWORD, ensure_secret
from clr.settings import Settings

USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"


@pytest.fixture(autouse=True)
def stranger(monkeypatch, tmp_path):
    """Nobody is signed in before, and whatever a test lends is taken back."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in (USER, PASSWORD, "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield
    for name in (USER, PASSWORD):
        os.environ.pop(name, None)


def workspace(state, url="", served=True):
    password = ensure_secret(state, TRAINER_PASSWORD)
    if served:
        (state / "registry.json").write_text('{"url":"http://127.0.0.1:5000"}')
    return Settings(workspace=state, home=state, registry_url=url), password


def login():
    return os.environ.get(USER), os.environ.get(PASSWORD)


def test_without_a_login_of_ones_own_it_is_the_trainer(tmp_path):
    settings, password = workspace(tmp_path)
    sign_in(settings)
    assert login() == ("clr-trainer", password)


def test_the_users_own_login_wins(tmp_path, monkeypatch):
    settings, _ = workspace(tmp_path)
    monkeypatch.setenv(USER, "alice")
    monkeypatch.setenv(PASSWORD, "hers")
    sign_in(settings)
    assert login() == ("alice", "hers")


def test_so_does_the_file_that_mlflow_knows(tmp_path):
    settings, _ = workspace(tmp_path)
    (tmp_path / "home" / ".mlflow").mkdir(parents=True)
    (tmp_path / "home" / ".mlflow" / "credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = alice\nmlflow_tracking_password = hers\n"
    )
    sign_in(settings)
    assert login() == (None, None)


def test_each_workspace_has_its_own_trainer(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("a", "b", "a"):
        settings, password = workspace(tmp_path / name)
        sign_in(settings)
        assert login() == ("clr-trainer", password)


def test_where_the_secret_is_not_to_be_read_nothing_is_lent(tmp_path):
    settings, _ = workspace(tmp_path)
    (tmp_path / "secrets" / "trainer.password").unlink()
    sign_in(settings)
    assert login() == (None, None)


@pytest.mark.parametrize(
    ("url", "lent"),
    [
        ("http://127.0.0.1:5001", True),
        ("http://localhost:5001/", True),
        ("https://models.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://ada:secret@127.0.0.1:5001", False),
    ],
)
def test_the_trainers_password_goes_to_this_machine_only(tmp_path, url, lent):
    settings, password = workspace(tmp_path, url)
    sign_in(settings)
    assert login() == (("clr-trainer", password) if lent else (None, None))


def test_unless_it_is_given_by_name(tmp_path, monkeypatch):
    settings, _ = workspace(tmp_path, "https://models.example.com")
    monkeypatch.setenv("CLR_TRAINER_PASSWORD", "given by somebody")
    sign_in(settings)
    assert login() == ("clr-trainer", "given by somebody")


def test_what_was_lent_stays_known_after_somebody_else_signed_in_between(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    sign_in(workspace(tmp_path / "a")[0])
    with monkeypatch.context() as alice:  # puts the lent login back when it ends
        alice.setenv(USER, "alice")
        alice.setenv(PASSWORD, "hers")
        sign_in(workspace(tmp_path / "a")[0])
    settings, password = workspace(tmp_path / "b")
    sign_in(settings)
    assert login() == ("clr-trainer", password)
