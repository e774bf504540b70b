"""API keys: made once, kept as hashes, limited, revoked at once, each act in the ledger."""

from __future__ import annotations

import hashlib
import json
import resource
import threading
from datetime import UTC, datetime, timedelta

import pytest

from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from clr.serving.errors import Problem
from clr.serving.keyring import KeyRing, is_loopback, open_keys
from clr.serving.keys import (
    add_key,
    expiry,
    keys_path,
    make_key,
    read_keys,
    revoke_key,
)
from clr.settings import Settings
from flows.supervise import free_port

NOW = datetime(2027, 1, 1, tzinfo=UTC)


def made(path, name="line", scopes=("predict",), tasks=(), expires="", now=NOW):
    key, written = make_key(name, scopes, tasks, expires, now)
    add_key(path, key, now)
    return key, written


def refusal(ring, written):
    with pytest.raises(Problem) as caught:
        ring.find(written)
    return caught.value.code


def test_the_file_has_a_hash_and_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "serving" / "keys.json"
    key, written = made(path)
    assert written.startswith(f"clr_{key.id}_")
    assert len(written.rpartition("_")[2]) >= 40 or "_" in written[17:]
    text = path.read_text()
    assert written not in text
    assert written[17:] not in text
    assert hashlib.sha256(written.encode()).hexdigest() in text
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_keys(path) == (key,)


def test_a_folder_in_the_place_of_the_file_is_told_with_what_to_do(tmp_path):
    (tmp_path / "keys.json").mkdir()
    with pytest.raises(ServiceUnavailable, match="Is a directory") as caught:
        read_keys(tmp_path / "keys.json")
    assert "restore it from a backup" in caught.value.fix


def test_a_file_that_others_can_read_or_that_is_damaged_is_refused(tmp_path):
    path = tmp_path / "keys.json"
    made(path)
    path.chmod(0o640)
    with pytest.raises(IntegrityBroken, match="0640"):
        read_keys(path)
    path.chmod(0o600)
    good = json.loads(path.read_text())
    for broken in (
        "{}", "[]", "null", '{"schema": "clr.keys/2", "keys": []}', '{"schema": "clr.keys/1"',
        json.dumps({**good, "keys": [{**good["keys"][0], "scopes": ["root"]}]}),
        json.dumps({**good, "keys": [{**good["keys"][0], "id": ""}]}),
        json.dumps({**good, "keys": [{**good["keys"][0], "expires": "soon"}]}),
        json.dumps({**good, "keys": [{**good["keys"][0], "more": 1}]}),
    ):  # fmt: skip
        path.write_text(broken)
        with pytest.raises(IntegrityBroken, match="no file of keys"):
            read_keys(path)


def test_times_that_a_key_may_last():
    assert expiry("", NOW) == ""
    assert expiry("90d", NOW) == "2027-04-01T00:00:00+00:00"
    assert expiry("12h", NOW) == "2027-01-01T12:00:00+00:00"
    assert expiry("2027-12-31", NOW) == "2027-12-31T00:00:00+00:00"
    assert expiry("2027-12-31T06:00:00+09:00", NOW) == "2027-12-30T21:00:00+00:00"
    for wrong in ("0d", "-1d", "1w", "2026-12-31", "soon", "99999999d", "1.5d"):
        with pytest.raises(UsageError):
            expiry(wrong, NOW)


@pytest.mark.parametrize(
    ("name", "scopes", "tasks"),
    [("", ("predict",), ()), ("A", ("predict",), ()), ("a\nb", ("predict",), ()), ("a", (), ()),
     ("a", ("root",), ()), ("a", ("predict",), ("../x",)), ("a" * 64, ("predict",), ())],
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_refused(name, scopes, tasks):
    with pytest.raises(UsageError):
        make_key(name, scopes, tasks, "", NOW)


def test_a_name_has_one_usable_key(tmp_path):
    path = tmp_path / "keys.json"
    made(path, expires="1d")
    with pytest.raises(UsageError, match="already"):
        made(path)
    revoke_key(path, "line", NOW)
    made(path, expires="1d", now=NOW)
    made(path, now=NOW + timedelta(days=1))
    assert [bool(one.revoked) for one in read_keys(path)] == [True, False, False]


def test_many_at_once_lose_no_key(tmp_path):
    path = tmp_path / "keys.json"
    names = [f"line-{number}" for number in range(12)]
    threads = [threading.Thread(target=made, args=(path, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.name for one in read_keys(path)) == sorted(names)


def test_a_ring_follows_its_file(tmp_path):
    path = tmp_path / "keys.json"
    clock = [NOW]
    ring = KeyRing(path, lambda: clock[0])
    assert ring.usable() == 0
    key, written = made(path, expires="1d")
    assert ring.find(written) == key
    for wrong in ("", "x", written[:-1], written + "a", f"clr_{'0' * 12}_{written[17:]}", "ä"):
        assert refusal(ring, wrong) == "key-refused"
    clock[0] += timedelta(days=1)
    assert refusal(ring, written) == "key-expired"
    clock[0] = NOW
    revoke_key(path, key.id, NOW)
    assert refusal(ring, written) == "key-refused"
    assert ring.usable() == 0
    path.unlink()
    assert refusal(ring, written) == "key-refused"


def test_a_broken_file_changes_nothing_for_a_running_server(tmp_path):
    path = tmp_path / "keys.json"
    ring = KeyRing(path)
    key, written = made(path)
    assert ring.find(written) == key
    path.write_text("oops")
    assert ring.find(written) == key
    with pytest.raises(IntegrityBroken):
        KeyRing(path)


def test_a_file_that_could_not_be_read_for_a_moment_is_read_by_the_next_request(tmp_path, caplog):
    path = tmp_path / "keys.json"
    key, written = made(path)
    ring = KeyRing(path)
    revoke_key(path, key.id, NOW)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # no file can be opened
    try:
        found = [ring.find(written) for _ in range(3)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == [key] * 3
    assert len(caplog.records) == 1
    assert refusal(ring, written) == "key-refused"


def test_without_keys_only_this_machine_is_served(tmp_path):
    def opened(host, keys=True):
        return open_keys(Settings(workspace=tmp_path, serve_keys=keys), host)

    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert is_loopback(host)
        assert opened(host, keys=False) is None
        assert opened(host) is not None
    for host in ("0.0.0.0", "::", "10.0.0.1", "serving.example.com", ""):
        assert not is_loopback(host)
        with pytest.raises(UsageError, match="CLR_SERVE_KEYS"):
            opened(host, keys=False)
        with pytest.raises(UsageError, match="no API key"):
            opened(host)
    made(keys_path(Settings(workspace=tmp_path).state))
    assert opened("0.0.0.0") is not None


def test_a_server_for_others_does_not_start_without_a_key_that_works(plant):
    port = ("--port", str(free_port()))
    for address, settings, said in (
        ("0.0.0.0", {}, "clr keys add"),
        ("0.0.0.0", {"CLR_SERVE_KEYS": "false"}, "CLR_SERVE_KEYS"),
    ):
        told = plant.clr("serve", "--host", address, *port, **settings)
        assert told.code == UsageError.exit_code, told
        assert said in told.err


def test_commands_make_list_and_revoke_and_the_ledger_knows(plant):
    added = plant.clr("keys", "add", "line-3", "--scope", "predict", "--task", "caps",
                      "--expires", "90d", "--json").json  # fmt: skip
    assert added["key"].startswith(f"clr_{added['id']}_")
    (listed,) = plant.clr("keys", "list", "--json").json
    assert listed == {name: value for name, value in added.items() if name != "key"}
    assert (listed["state"], listed["tasks"]) == ("usable", ["caps"])
    assert "line-3" in plant.clr("keys", "list").out
    again = plant.clr("keys", "add", "line-3", "--scope", "predict")
    assert (again.code, "already" in again.err) == (UsageError.exit_code, True)
    assert plant.clr("keys", "revoke", "line-3", "--json").json["state"] == "revoked"
    assert plant.clr("keys", "revoke", "line-3", "--json").json["state"] == "revoked"
    assert plant.clr("keys", "revoke", "line-4").code == UsageError.exit_code
    entries = list(plant.session().ledger.entries())
    assert [(one.action, one.subject) for one in entries] == [
        ("key.made", "line-3"), ("key.revoked", "line-3"),
    ]  # fmt: skip
    for one in entries:
        assert one.actor
        assert one.payload["id"] == added["id"]
        assert added["key"][17:] not in json.dumps(one.payload)
    files = [path for path in plant.state.rglob("*") if path.is_file()]
    secret = added["key"][17:].encode()
    assert not [path for path in files if secret in path.read_bytes()]


def test_a_key_is_shown_to_a_person_in_a_line_of_its_own(plant):
    said = plant.clr("keys", "add", "desk", "--scope", "feedback").out.splitlines()
    assert said[0].startswith("clr_")
    assert "not shown again" in said[1]


def test_what_a_key_may_not_do(web, pictures):
    red = pictures["red-caps/dark"]
    predicting = web.new_key("predicts", "predict")
    feeding = web.new_key("feeds", "feedback")
    limited = web.new_key("limited", "predict", "feedback", tasks=["red-caps"])
    everything = web.new_key("everything", "admin")

    def code(answer):
        return answer.status_code, answer.json()["code"]

    assert web.predict(red, key=predicting).status_code == 200
    assert code(web.predict(red, key=feeding)) == (403, "scope-missing")
    said = {"request_id": "0", "label": "dark"}
    assert code(web.call("POST", "/v1/feedback", key=predicting, json=said))[0] == 403
    assert code(web.call("POST", "/v1/feedback", key=feeding, json=said))[0] == 404
    assert code(web.call("GET", "/metrics", key=predicting)) == (403, "scope-missing")
    assert web.predict(red, key=limited, task="red-caps").status_code == 200
    assert code(web.predict(red, key=limited, task="blue-caps")) == (403, "task-not-allowed")
    assert code(web.predict(red, key=limited)) == (403, "task-not-allowed")
    odd = web.call("GET", "/v2/models/a%0Ab%1B%C3%A9/ready", key=limited)
    assert "not for 'a\\nb\\x1b\\xe9'." in odd.json()["detail"]
    listed = web.call("GET", "/v1/tasks", key=limited).json()["tasks"]
    assert [one["name"] for one in listed] == ["red-caps"]
    assert code(web.call("GET", "/v2/models/blue-caps", key=limited)) == (403, "task-not-allowed")
    assert code(web.call("GET", "/v2/models/hats", key=limited)) == (403, "task-not-allowed")
    for path in ("/metrics", "/v1/tasks"):
        assert web.call("GET", path, key=everything).status_code == 200


def test_feedback_stays_within_the_tasks_of_a_key(web, pictures):
    limited = web.new_key("inspects-red", "feedback", tasks=["red-caps"])
    for task, status in (("red-caps", 200), ("blue-caps", 403)):
        one = web.predict(pictures[f"{task}/dark"], task=task).json()["predictions"][0]
        said = {"request_id": one["request_id"], "label": "dark"}
        assert web.call("POST", "/v1/feedback", key=limited, json=said).status_code == status


def test_a_revoked_key_is_refused_by_the_running_server(web, pictures):
    key = web.new_key("short-lived", "predict")
    assert web.predict(pictures["red-caps/dark"], key=key).status_code == 200
    assert web.plant.clr("keys", "revoke", "short-lived").code == 0
    answer = web.predict(pictures["red-caps/dark"], key=key)
    assert (answer.status_code, answer.json()["code"]) == (401, "key-refused")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_browsers_send_a_key_as_a_password_and_for_reading_only(web, pictures):
    basic = {"auth": ("anybody", web.key), "key": ""}
    assert web.call("GET", "/metrics", **basic).status_code == 200
    files = [("files", ("a.png", pictures["red-caps/dark"]))]
    assert web.call("POST", "/v1/predict", files=files, **basic).status_code == 401
    asked = web.call("GET", "/metrics", key="", headers={"Accept": "text/html"})
    assert asked.headers["WWW-Authenticate"].startswith("Basic")
