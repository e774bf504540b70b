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
