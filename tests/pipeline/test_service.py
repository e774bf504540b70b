"""The release service's own parts: what waits for it, and who is let in."""

from __future__ import annotations

import json
import threading
import time

import pytest
from starlette.testclient import TestClient

from clr.registry.webhook import (
    DELIVERY_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Hint,
    sign,
)
from flows.service import Inbox, create_app

SECRET = "known to two"


def send(client, number, *, version="3", key="review", secret=SECRET):
    data = {"name": "clr-animals", "version": version, "key": key, "value": "approved"}
    event = {"entity": "model_version_tag", "action": "set", "data": data}
    body, stamp = json.dumps(event).encode(), str(int(time.time()))
    headers = {
        DELIVERY_HEADER: number,
        TIMESTAMP_HEADER: stamp,
        SIGNATURE_HEADER: sign(secret, number, stamp, body),
    }
    return client.post("/webhook", content=body, headers=headers)


@pytest.fixture
def inbox():
    return Inbox()


@pytest.fixture
def client(inbox):
    return TestClient(create_app(inbox, SECRET))


def test_a_review_is_queued_once_however_often_it_is_told(client, inbox):
    for number in ("1", "2"):
        answer = send(client, number)
        assert (answer.status_code, answer.json()) == (202, {"queued": True})
    assert client.get("/health").json()["waiting"] == 1
    assert inbox.take(0) == Hint("animals", 3)
    assert inbox.take(0) is None


def test_other_events_are_heard_and_not_queued(client, inbox):
    answer = send(client, "1", key="review.reason")
    assert (answer.status_code, answer.json()) == (202, {"queued": False})
    assert len(inbox) == 0


def test_a_forged_one_says_nothing_about_ids_and_leaves_them_free(client, inbox):
    assert send(client, "1", secret="guessed").status_code == 401
    assert send(client, "1").status_code == 202
    assert send(client, "1").status_code == 409
    assert len(inbox) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/webhook", 405), ("POST", "/health", 405), ("GET", "/", 404), ("GET", "/docs", 404)],
)
def test_nothing_else_is_there(client, method, path, status):
    assert client.request(method, path).status_code == status


def test_a_body_without_end_is_cut_off(client):
    def endless():
        while True:
            yield b" " * 10_000

    parts = (part for _, part in zip(range(20), endless(), strict=False))
    assert client.post("/webhook", content=parts).status_code == 413


def test_the_earliest_comes_first_and_waiting_ends_with_the_service(inbox):
    for version in (2, 1, 2):
        inbox.put(Hint("animals", version))
    assert [inbox.take(0), inbox.take(0)] == [Hint("animals", 2), Hint("animals", 1)]
    threading.Timer(0.1, inbox.close).start()
    started = time.monotonic()
    assert inbox.take(60) is None
    assert time.monotonic() - started < 30


def ask(client, number, body, *, secret=SECRET, sent=None):
    data, stamp = json.dumps(body).encode(), str(int(time.time()))
    headers = {
        DELIVERY_HEADER: number,
        TIMESTAMP_HEADER: stamp,
        SIGNATURE_HEADER: sign(secret, number, stamp, data),
    }
    return client.post("/look", content=sent or data, headers=headers)


def test_who_shares_the_secret_may_ask_for_a_look_at_one_version_or_at_all(client, inbox):
    assert ask(client, "1", {"task": "animals", "version": 3}).status_code == 202
    assert ask(client, "2", {}).status_code == 202
    assert client.get("/health").json()["waiting"] == 2
    assert inbox.take(0) == Hint("animals", 3)
    assert (
        client.get("/health").json() | {"waiting": 1, "busy": True} == client.get("/health").json()
    )
    started = time.monotonic()
    assert inbox.take(60) is None, "a look at everything"
    assert time.monotonic() - started < 30
    inbox.take(0)


@pytest.mark.parametrize(
    "body",
    [
        [], 3, None, {"task": "animals"}, {"task": "animals", "version": "3"},
        {"task": "animals", "version": True}, {"task": "release", "version": 1},
        {"task": "../x", "version": 1}, {"task": "animals", "version": 0},
        {"task": "animals", "version": 1, "approve": True},
    ],
)  # fmt: skip
def test_a_look_names_a_version_and_nothing_else(client, inbox, body):
    assert ask(client, "1", body).status_code == 400
    assert len(inbox) == 0


def test_a_look_is_signed_and_told_once(client, inbox):
    body = {"task": "animals", "version": 3}
    assert ask(client, "1", body, secret="guessed").status_code == 401
    assert ask(client, "1", body, sent=b'{"task": "animals", "version": 4}').status_code == 401
    assert ask(client, "1", body).status_code == 202
    assert ask(client, "1", body).status_code == 409
    assert send(client, "1").status_code == 409, "nor as a delivery of the webhook"
    assert len(inbox) == 1


def test_a_delivery_of_the_webhook_is_no_look_and_a_look_no_delivery(client, inbox):
    body = {"entity": "model_version_tag", "action": "set", "data": {"key": "review"}}
    assert ask(client, "1", body).status_code == 400
    stamp, data = str(int(time.time())), b'{"task": "animals", "version": 3}'
    headers = {
        DELIVERY_HEADER: "2",
        TIMESTAMP_HEADER: stamp,
        SIGNATURE_HEADER: sign(SECRET, "2", stamp, data),
    }
    assert client.post("/webhook", content=data, headers=headers).status_code == 400
    assert len(inbox) == 0
