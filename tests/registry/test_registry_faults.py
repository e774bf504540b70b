"""No rights, no space, no server: a sentence, the right exit code, and nothing half done."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from clr.errors import IntegrityBroken, ServiceUnavailable
from clr.registry import faults, versions


@pytest.fixture
def registration(network):
    def act(state, **how):
        arguments = {
            "state": str(state), "task": "animals", "adapter": str(network.one.path),
            "backbone": vars(network.reference),
        }  # fmt: skip
        return {"do": "register", "args": arguments, **how}

    return act


def assert_refused(answer, *words):
    assert answer["code"] == ServiceUnavailable.exit_code, answer
    assert answer["error"]["error"] == "ServiceUnavailable", answer
    assert answer["error"]["fix"]
    for word in words:
        assert word in answer["error"]["message"]


def test_a_read_only_database_is_said_so(shop, registration, open_state, network, tmp_path):
    (open_state / "mlflow.db").chmod(0o444)
    open_state.chmod(0o555)
    (answer,) = shop(registration(open_state, unprivileged=True))
    assert_refused(answer, str(open_state))


def test_who_only_may_read_is_told_before_the_work_begins(open_state, somebody_else):
    from clr.registry.local import probe_write
    from clr.registry.store import open_registry
    from clr.settings import Settings

    registry = open_registry(Settings(workspace=open_state, home=open_state))
    probe_write(registry)
    (open_state / "mlflow.db").chmod(0o444)
    open_state.chmod(0o555)
    with somebody_else(), pytest.raises(ServiceUnavailable, match="cannot be written"):
        probe_write(registry)


def test_a_registry_that_may_be_read_can_be_listed(shop, open_state):
    (open_state / "mlflow.db").chmod(0o444)
    open_state.chmod(0o555)
    (answer,) = shop({"do": "look", "args": {"state": str(open_state)}, "unprivileged": True})
    assert (answer["code"], answer.get("result")) == (0, ""), answer


def test_no_right_to_make_the_state_folder_is_said_so(shop, open_state):
    open_state.chmod(0o555)
    arguments = {"state": str(open_state / "new")}
    (answer,) = shop({"do": "look", "args": arguments, "unprivileged": True})
    assert_refused(answer, "No right to write", str(open_state / "new"))


def test_a_disk_that_fills_up_is_said_so_and_the_same_command_completes(
    shop, registration, state, embedded
):
    (answer,) = shop(registration(state, file_limit=20_000))
    assert_refused(answer, "No space left")
    (done,) = shop(registration(state))
    assert done["code"] == 0, done
    assert [one.version for one in versions.versions(embedded, "animals")] == [1]


@pytest.fixture
def tiny_disk(state):
    """A real file system of 8 KiB for the artifacts; needs the right to mount one."""
    folder = state / "artifacts"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_too_small_for_the_adapter_leaves_no_version(
    shop, registration, state, embedded, tiny_disk
):
    (answer,) = shop(registration(state))
    assert_refused(answer, "No space left", str(tiny_disk))
    assert versions.versions(embedded, "animals") == []
    subprocess.run(["mount", "-o", "remount,size=4m", str(tiny_disk)], check=True)
    (done,) = shop(registration(state))
    assert done["code"] == 0, done
    assert [one.version for one in versions.versions(embedded, "animals")] == [1]


class Answer(Exception):
    """An error as MLflow raises it: a text and a code."""

    def __init__(self, text, code=""):
        super().__init__(text)
        self.error_code = code


SQLITE, SERVER = "sqlite:////state/mlflow.db", "http://ada:secret@host:5000"


@pytest.mark.parametrize(
    ("uri", "error", "kind", "words"),
    [
        (SQLITE, OSError(errno.ENOSPC, "No space", "/state/x"), ServiceUnavailable, "/state/x"),
        (SQLITE, OSError(errno.EROFS, "Read-only", "/state/x"), ServiceUnavailable, "No right"),
        (SQLITE, Answer("database or disk is full"), ServiceUnavailable, "No space left"),
        (SQLITE, Answer("database is locked"), ServiceUnavailable, "locked by another"),
        (SQLITE, Answer("file is not a database"), IntegrityBroken, "not a readable"),
        (SQLITE, Answer("out-of-date database schema"), ServiceUnavailable, "another version"),
        (SERVER, Answer("no", "PERMISSION_DENIED"), faults.RegistryDenied, "did not allow"),
        (SERVER, Answer("boom", "INTERNAL_ERROR"), ServiceUnavailable, "failed while"),
        (SERVER, Answer("Max retries exceeded"), ServiceUnavailable, "does not answer"),
        (SERVER, ConnectionError("refused"), ServiceUnavailable, "does not answer"),
    ],
)
def test_a_failure_is_told_in_words_without_passwords(uri, error, kind, words):
    def act():
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("wrapped") from inner

    with pytest.raises(kind, match=words) as caught, faults.calling(uri, "do it"):
        act()
    assert "secret" not in str(caught.value.as_dict())
    assert "do it" in caught.value.message
    assert caught.value.fix


def test_a_bug_stays_a_bug():
    with pytest.raises(ZeroDivisionError), faults.calling(SQLITE, "do it"):
        1 / 0


def test_a_server_that_stops_answering_is_said_so(tmp_path, monkeypatch):
    """The connection breaks in the middle: after opening, before the next call."""
    from mlflow import MlflowClient

    from clr.registry.store import Registry, ensure_experiment

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    url = "http://127.0.0.1:9"
    registry = Registry(MlflowClient(url, url), url, False, "", tmp_path)
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        ensure_experiment(registry, "clr/x")
