"""Secrets by file: ``NAME_FILE`` becomes ``NAME``, or is refused by name."""

from __future__ import annotations

import pytest

from clr.data.workspace import init_workspace
from clr.errors import UsageError
from clr.registry.server.secrets import WEBHOOK_SECRET, find_secret
from clr.secret_files import adopt
from clr.settings import load_settings


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("  a secret of some length\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "name", ["CLR_LEDGER_URL", "CLR_WEBHOOK_SECRET", "AWS_SECRET_ACCESS_KEY",
             "PREFECT_API_AUTH_STRING", "MLFLOW_AUTH_ADMIN_PASSWORD"],
)  # fmt: skip
def test_a_file_becomes_the_variable(secret, name):
    environment = {f"{name}_FILE": secret, "HOME": "/"}
    adopt(environment)
    assert environment == {name: "a secret of some length", "HOME": "/"}
    adopt(environment)  # a child process inherits the result
    assert environment[name] == "a secret of some length"


def test_files_of_others_are_left_alone(secret):
    environment = {
        "AWS_SHARED_CREDENTIALS_FILE": secret, "POSTGRES_PASSWORD_FILE": secret,
        "MLFLOW_TRACKING_URI_FILE": secret,
    }  # fmt: skip
    before = dict(environment)
    adopt(environment)
    assert environment == before


def test_an_empty_name_names_no_file():
    environment = {"CLR_LEDGER_URL_FILE": "", "CLR_LEDGER_URL": "kept"}
    adopt(environment)
    assert environment == {"CLR_LEDGER_URL": "kept"}


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "holds no value"), (b"  \n", "holds no value"), (b"x" * 70_000, "holds no value"),
     (b"a\0b", "holds no value"), (b"\xff\xfe", "cannot be read"), (None, "cannot be read")],
)  # fmt: skip
def test_what_is_no_secret_is_refused(tmp_path, content, words):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        adopt({"CLR_WEBHOOK_SECRET_FILE": str(path)})
    assert "CLR_WEBHOOK_SECRET_FILE" in str(caught.value)


def test_two_answers_are_refused(secret):
    with pytest.raises(UsageError, match="Both CLR_LEDGER_URL and CLR_LEDGER_URL_FILE"):
        adopt({"CLR_LEDGER_URL_FILE": secret, "CLR_LEDGER_URL": "postgresql://"})


def test_settings_and_secrets_come_from_files(tmp_path, secret, monkeypatch):
    init_workspace(tmp_path / "w")
    database = tmp_path / "url"
    database.write_text("postgresql://clr:word@db/clr\n")
    for name in ("CLR_REGISTRY_DATABASE", "CLR_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLR_REGISTRY_DATABASE_FILE", str(database))
    monkeypatch.setenv("CLR_WEBHOOK_SECRET_FILE", secret)
    settings = load_settings(tmp_path / "w")
    assert settings.registry_database == "postgresql://clr:word@db/clr"
    assert find_secret(settings.state, WEBHOOK_SECRET) == "a secret of some length"
    for name in ("CLR_REGISTRY_DATABASE", "CLR_WEBHOOK_SECRET"):
        monkeypatch.delenv(name)  # what the environment was given is taken back
