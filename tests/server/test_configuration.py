"""What the registry server is configured from: mlflow/, settings, environment; its databases."""

from __future__ import annotations

import configparser
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from clr.registry.server import config
from clr.registry.server.database import ensure_release_model, prepare_database
from clr.registry.server.subscriptions import (
    EVENTS,
    Subscription,
    load_subscriptions,
    promotions,
    subscribe,
)
from clr.registry.server.templates import TEMPLATES
from clr.registry.server.users import ensure_services, open_logins
from clr.registry.store import create_database, open_registry
from clr.settings import Settings
from flows import factory
from flows.parts import parts

ROOT = Path(__file__).parents[2]
HEAD = "schema: clr.webhooks/1\nwebhooks:\n"
GOOD = "  - {name: chat, url: 'https://chat.example.com/x', events: [model_version.created]"


def settings(folder: Path, **given) -> Settings:
    return Settings(workspace=folder, home=folder / "home", **given)


def test_the_repository_has_what_clr_init_writes():
    assert {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for path in (ROOT / "mlflow").iterdir()
    } == TEMPLATES  # fmt: skip


# --- auth.ini


def test_the_servers_own_auth_ini_adds_where_the_users_are(tmp_path):
    path = config.write_auth(settings(tmp_path))
    read = configparser.ConfigParser()
    read.read(path)
    assert dict(read["mlflow"]) == {
        "default_permission": "MANAGE",
        "auth_cache_ttl_seconds": "300",
        "database_uri": f"sqlite:///{tmp_path}/home/auth.db",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_password_in_the_databases_address_is_read_as_it_was_written(tmp_path):
    url = "postgresql://clr:a%40b%25c@db:5432/clr"
    read = configparser.ConfigParser()
    read.read(config.write_auth(settings(tmp_path, registry_database=url)))
    assert read["mlflow"]["database_uri"] == url


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[mlflow]\nadmin_password = secret-secret-1\n", "admin_password"),
        ("[mlflow]\nadmin_username = root\n", "admin_username"),
        ("[mlflow]\nauthorization_function = my:own\n", "authorization_function"),
        ("default_permission = READ\n", "auth.ini"),
        ("[other]\n", r"\[mlflow\]"),
    ],
)
def test_what_must_not_be_in_it_is_named(tmp_path, text, named):
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "auth.ini").write_text(text)
    with pytest.raises(UsageError, match=named) as caught:
        config.write_auth(settings(tmp_path))
    assert "secret-secret-1" not in str(caught.value.as_dict())


# --- databases and environment


@pytest.mark.parametrize("url", ["mysql://db/x", "sqlite:///x.db", "db:5432", "postgresql"])
def test_another_database_than_postgresql_is_refused(tmp_path, url):
    with pytest.raises(UsageError, match="CLR_REGISTRY_DATABASE"):
        config.database_url(settings(tmp_path, registry_database=url))


def test_a_driver_may_be_named(tmp_path):
    url = "postgresql+psycopg://clr@db/clr"
    assert config.database_url(settings(tmp_path, registry_database=url)) == url


def test_the_processes_get_the_secrets_that_they_need_and_no_others(tmp_path):
    given = {
        "PATH": "/bin",
        "CLR_PASSWORD": "x",
        "MLFLOW_TRACKING_PASSWORD": "x",
        "MLFLOW_REGISTRY_STORE_URI": "x",
        "_MLFLOW_AUTH_ADMIN_BOOTSTRAPPED": "x",
        "CLR_RELEASE_PASSWORD": "x",
        "CLR_WEBHOOK_SECRET": "x",
    }
    server = config.server_environment(settings(tmp_path), given, "flask", "fernet")
    service = config.service_environment(settings(tmp_path), given, "http://u", "pw", "hook")
    assert "x" not in {**server, **service}.values()
    assert server["PATH"] == service["PATH"] == "/bin"
    assert server["MLFLOW_FLASK_SERVER_SECRET_KEY"] == "flask"
    assert service["CLR_WEBHOOK_SECRET"] == "hook"
    assert "flask" not in service.values()
    assert not {"pw", "hook"} & set(server.values())
    assert server["NO_PROXY"].endswith("127.0.0.1,localhost")


def test_a_list_of_the_servers_names_does_not_shut_the_release_service_out(tmp_path):
    import fnmatch

    name = "MLFLOW_SERVER_ALLOWED_HOSTS"
    assert name not in config.server_environment(settings(tmp_path), {}, "f", "k")
    given = {name: "models.example.com"}
    allowed = config.server_environment(settings(tmp_path), given, "f", "k")[name].split(",")
    for host in ("models.example.com", "127.0.0.1:5000", "localhost:5000", "[::1]:5000"):
        assert any(fnmatch.fnmatch(host, one) for one in allowed), host
    assert not any(fnmatch.fnmatch("evil.example.com", one) for one in allowed)


def test_no_database_password_stands_on_a_command_line(tmp_path):
    there = settings(tmp_path, registry_database="postgresql://clr:secret@db/clr")
    assert "secret" not in " ".join(config.server_arguments(there, "127.0.0.1", 5000))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:5000"),
        ("0.0.0.0", "http://127.0.0.1:5000"),
        ("::", "http://[::1]:5000"),
        ("::1", "http://[::1]:5000"),
        ("models.example.com", "http://models.example.com:5000"),
    ],
)
def test_this_machine_reaches_a_server_by_the_address_it_listens_on(host, url):
    assert config.reachable_url(host, 5000) == url


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", "http://127.0.0.1"), ("10.1.2.3", "http://10.1.2.3")]
)
def test_the_watcher_is_asked_where_it_listens(tmp_path, monkeypatch, host, url):
    at = factory.addresses(settings(tmp_path, metrics_host=host, metrics_port=9108), False)
    watcher = parts(at)["watcher"]
    assert (watcher.address, watcher.health) == (f"{url}:9108", f"{url}:9108/health")
    seen = set()
    monkeypatch.setattr(factory, "see_port", lambda host, port, _: seen.add((host, port)))
    factory._see_ports(at)
    assert (host, 9108) in seen


# --- webhooks.yaml


def test_without_a_file_or_with_the_template_nobody_else_is_told(tmp_path):
    assert load_subscriptions(tmp_path / "none.yaml") == ()
    (tmp_path / "w.yaml").write_text(TEMPLATES["mlflow/webhooks.yaml"])
    assert load_subscriptions(tmp_path / "w.yaml") == ()


def test_the_example_in_the_template_is_a_good_one(tmp_path):
    text = TEMPLATES["mlflow/webhooks.yaml"]
    example = text.replace("webhooks: []\n", "webhooks:\n").replace("\n#  ", "\n  ")
    (tmp_path / "w.yaml").write_text(example)
    (one,) = load_subscriptions(tmp_path / "w.yaml", {"CHAT_HOOK_SECRET": "s"})
    assert (one.name, one.secret) == ("chat", "s")
    assert all(event in text for event in EVENTS)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("webhooks: []\n", "schema"),
        ("schema: clr.webhooks/1\nwebhook: []\n", "schema"),
        ("schema: clr.webhooks/1\nwebhooks: {}\nwebhooks: []\n", "line 3"),
        ("schema: clr.webhooks/1\nwebhooks: 7\n", "no list"),
        (f"{HEAD}  - chat\n", "webhook 1: it lacks"),
        (f"{HEAD}{GOOD}, secrets: X}}\n", "secrets"),
        (f"{HEAD}{GOOD}, secret: NOT_SET}}\n", "NOT_SET"),
        (f"{HEAD}{GOOD}}}\n{GOOD}}}\n", "two webhooks chat"),
        (f"{HEAD}{GOOD}}}\n".replace("chat,", "clr-promote,"), "clr-promote"),
        (f"{HEAD}{GOOD}}}\n".replace("https:", "ftp:"), "url"),
        (f"{HEAD}{GOOD}}}\n".replace("//chat", "//[chat"), "url"),
        (f"{HEAD}{GOOD}}}\n".replace("chat.example.com", ""), "url"),
        (f"{HEAD}{GOOD}}}\n".replace("n.created", "n.made"), "events"),
        (f"{HEAD}{GOOD}}}\n".replace("[model_version.created]", "[]"), "events"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path, text, named):
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(UsageError, match=named):
        load_subscriptions(tmp_path / "w.yaml", {})


# --- databases made ready


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A registry without anything in it; making its schema takes seconds."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    create_database(file, "mlflow-artifacts:/")
    return file


def rows(file: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute(query).fetchall()


SUBSCRIBE = """
import sys
from clr.registry.server.subscriptions import Subscription, subscribe
wanted = Subscription(*sys.argv[2:4], ("model_version_tag.set",), "s")
for _ in range(2):
    subscribe(f"sqlite:///{sys.argv[1]}", (wanted,))
"""


def test_the_databases_webhooks_become_those_that_are_wanted_whatever_was_there(empty, tmp_path):
    file = Path(shutil.copy(empty, tmp_path))
    for key, name in (("A" * 43, "old"), ("B" * 43, "clr-promote")):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SUBSCRIBE, str(file), name, f"http://h/{name}"],
            env={
                **os.environ,
                "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": f"{key}=",  # another one than before
                "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
                "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    found = rows(file, "SELECT name, url, status, deleted_timestamp FROM webhooks")
    assert found == [("clr-promote", "http://h/clr-promote", "ACTIVE", None)]
    assert rows(file, "SELECT entity, action FROM webhook_events") == [("model_version_tag", "set")]
    assert rows(file, "SELECT count(*) FROM webhooks WHERE secret LIKE '%s%' AND secret = 's'") == [
        (0,)
    ]


def test_the_release_service_is_told_of_tags():
    told = promotions("http://127.0.0.1:1234", "s")
    assert told == Subscription(
        "clr-promote", "http://127.0.0.1:1234/webhook", ("model_version_tag.set",), "s"
    )


def test_an_embedded_registrys_files_are_served_from_where_they_are(empty, tmp_path):
    there = settings(tmp_path / "a plant")
    there.state.mkdir(parents=True)
    shutil.copy(empty, there.state)
    registry = open_registry(there)
    inside = registry.client.create_experiment("mine", f"{registry.artifacts}/mine")
    outside = registry.client.create_experiment("other", "s3://elsewhere/artifacts")
    neighbour = registry.client.create_experiment("near", f"{registry.artifacts}-of-old/near")
    run = registry.client.create_run(inside).info.run_id
    assert prepare_database(there) == 2
    assert prepare_database(there) == 0
    file = there.state / "mlflow.db"
    assert dict(rows(file, "SELECT experiment_id, artifact_location FROM experiments")) == {
        0: "mlflow-artifacts:/0",
        int(inside): "mlflow-artifacts:/mine",
        int(outside): "s3://elsewhere/artifacts",
        int(neighbour): f"{registry.artifacts}-of-old/near",
    }
    assert rows(file, "SELECT artifact_uri FROM runs") == [
        (f"mlflow-artifacts:/mine/{run}/artifacts",)
    ]


def test_a_file_that_is_no_database_is_named(tmp_path):
    there = settings(tmp_path)
    there.state.mkdir()
    (there.state / "mlflow.db").write_bytes(b"holiday pictures" * 1000)
    with pytest.raises(IntegrityBroken, match="not a readable SQLite"):
        prepare_database(there)


def test_a_postgresql_that_is_not_there_is_named_without_its_password(tmp_path):
    there = settings(tmp_path, registry_database="postgresql://clr:secret@127.0.0.1:9/clr")
    with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:9/clr") as caught:
        prepare_database(there)
    assert "secret" not in str(caught.value.as_dict())


def test_one_postgresql_database_holds_registry_users_and_ledger(tmp_path, postgres):
    from clr.audit.ledger import open_ledger

    there = settings(tmp_path, registry_database=postgres)
    open_ledger(there.state, postgres).append("a", "b", actor="c", authentication="d")
    for _ in range(2):  # the second time all is there
        assert prepare_database(there) == 0
        ensure_release_model(postgres)
        with open_logins(there) as logins:
            ensure_services(there, logins)
            assert logins.names() == ("admin", "clr-release", "clr-server", "clr-trainer")
        subscribe(postgres, ())
    assert open_ledger(there.state, postgres).verify() == []
    assert not (there.state / "mlflow.db").exists()
    assert not (there.state / "auth.db").exists()
