"""Opening a registry: where it is, what its names may be, and what is said when it fails."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from clr.registry import runs, store, versions
from clr.registry.store import experiment_name, model_name, open_registry
from clr.settings import Settings
from flows.supervise import free_port


def settings(state, url=""):
    return Settings(workspace=Path(state), home=Path(state), registry_url=url)


def test_a_task_has_a_model_and_an_experiment_of_its_name():
    assert (model_name("solder-joints"), experiment_name("solder-joints")) == (
        "clr-solder-joints",
        "clr/solder-joints",
    )


@pytest.mark.parametrize("name", ["", "-a", "A", "a b", "a/b", "a" * 64, "é", "release"])
def test_other_names_are_refused(name):
    with pytest.raises(UsageError, match="name"):
        model_name(name)


def test_no_call_about_a_version_asks_for_its_model_as_well(embedded, network, monkeypatch):
    run = runs.find_or_start_run(embedded, "caps", "sha256:1")
    made = versions.register_adapter(
        embedded, run, network.one.path, key="sha256:1", backbone=network.reference,
        data_digest="md5:" + "d" * 32 + ".dir", card="", tags={},
    )  # fmt: skip
    asked: list[str] = []
    monkeypatch.setattr(type(embedded.client), "get_registered_model", lambda _, n: asked.append(n))
    embedded.client.set_model_version_tag("clr-caps", str(made.version), "note", "seen")
    embedded.client.get_model_version_download_uri("clr-caps", str(made.version))
    assert asked == []


@pytest.mark.parametrize("key", ["", "a'b", "a b", "x" * 251])
def test_a_key_that_could_leave_its_quotes_is_refused(key):
    with pytest.raises(UsageError, match="idempotency key"):
        store.checked_key(key)


def test_an_embedded_registry_lies_under_the_state_folder_only(embedded, state):
    assert embedded.embedded
    assert embedded.uri == f"sqlite:///{state}/mlflow.db"
    assert Path(embedded.artifacts.removeprefix("file://")) == state / "artifacts"


def test_an_experiment_is_made_once_and_a_deleted_one_comes_back(registry, task, place):
    made = store.ensure_experiment(registry, f"clr/{task}")
    registry.client.delete_experiment(made)
    again = open_registry(settings(place["state"], place["url"]))
    assert store.ensure_experiment(again, f"clr/{task}") == made
    assert again.client.get_experiment(made).lifecycle_stage == "active"


def test_a_model_is_made_once(registry, task):
    for _ in range(2):
        registry._models.clear()
        store.ensure_model(registry, f"clr-{task}", "About it")
    assert registry.client.get_registered_model(f"clr-{task}").description == "About it"


def test_making_this_registry_the_default_leaves_no_trace(embedded):
    import mlflow

    before = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")
    with store.as_default(embedded):
        assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == embedded.uri
    assert (mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")) == before


def test_two_processes_may_open_a_new_registry_at_once(shop, tmp_path):
    state = tmp_path / "state"
    answers = shop(*[{"do": "look", "args": {"state": str(state)}}] * 2)
    assert [one["code"] for one in answers] == [0, 0], answers
    assert sorted(path.name for path in state.iterdir()) == ["mlflow.db"]


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_an_emptied_database_is_damage_and_no_new_registry(tmp_path, make):
    make(tmp_path / "mlflow.db")
    with pytest.raises(IntegrityBroken, match="not a readable SQLite database") as caught:
        open_registry(settings(tmp_path))
    assert "backup" in caught.value.fix


@pytest.mark.parametrize("url", ["localhost:5000", "ftp://host", "http://", "sqlite:///x.db"])
def test_an_address_that_is_not_a_server_is_refused(tmp_path, url):
    (tmp_path / "registry.json").write_text(json.dumps({"url": url}))
    with pytest.raises(UsageError, match="not the address of a server"):
        open_registry(settings(tmp_path))


def test_a_server_that_is_not_there_is_said_so_at_once_and_without_its_password(tmp_path):
    port = free_port()
    start = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="does not answer") as caught:
        open_registry(settings(tmp_path, f"http://ada:secret@127.0.0.1:{port}"))
    assert time.monotonic() - start < 10
    assert "secret" not in str(caught.value.as_dict())
    assert caught.value.exit_code == 7


def test_once_a_server_was_started_here_its_database_is_not_opened_beside_it(tmp_path):
    url = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "registry.json").write_text(f'{{"url": "{url}"}}')
    with pytest.raises(ServiceUnavailable, match=url) as caught:
        open_registry(settings(tmp_path))
    assert caught.value.fix.startswith("Start it (`clr up registry`);")
    assert not (tmp_path / "mlflow.db").exists()


def test_a_server_that_is_another_one_is_said_so(tmp_path):
    with _plain_web_server() as url, pytest.raises(ServiceUnavailable, match="healthy MLflow"):
        open_registry(settings(tmp_path, url))


@contextmanager
def _plain_web_server():
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_that_is_no_database_is_named_and_kept(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"holiday pictures" * 1000)
    with pytest.raises(IntegrityBroken, match="not a readable SQLite"):
        open_registry(settings(tmp_path))
    assert (tmp_path / "mlflow.db").read_bytes().startswith(b"holiday")


def test_a_state_folder_that_sqlite_would_misread_is_refused(tmp_path):
    with pytest.raises(UsageError, match="CLR_HOME"):
        open_registry(settings(tmp_path / "50%?"))
