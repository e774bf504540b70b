"""Limits: too slow, too much, too often; whoever keeps within them is answered all the time."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.serving.test_http_refused import check

HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def narrow(new_web):
    """A server with little patience and room."""
    return new_web(serve_seconds=1.0, serve_body_mb=1, serve_images=2, serve_rate=0.0)


def problem(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)["code"]


def ready(web) -> bool:
    return web.call("GET", "/v2/health/ready").status_code == 200


def is_cut_off(connection: socket.socket, piece: bytes) -> bool:
    """Send a piece now and then, until the server has closed."""
    for _ in range(200):
        try:
            connection.sendall(piece)
        except ConnectionError:
            return True
        time.sleep(0.1)
    return False


def test_a_body_that_does_not_come_is_waited_for_no_longer_than_it_may(narrow):
    for begun in (b"", b'{"instances"'):
        answer = narrow.raw(HEAD + b"Content-Length: 1000\r\n\r\n" + begun)
        assert problem(answer) == (408, "too-slow")
    assert ready(narrow)


def test_a_chunked_body_without_an_end_is_cut_off(narrow):
    answer = narrow.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\naaaaa\r\n")
    assert problem(answer) == (408, "too-slow")


def test_a_byte_now_and_then_does_not_hold_a_connection(narrow):
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=30) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
        answer = b""
        connection.settimeout(0.2)
        while not answer:
            connection.sendall(b" ")
            with suppress(TimeoutError):
                answer = connection.recv(65_536)
        connection.settimeout(30)
        with suppress(ConnectionError):  # closed while bytes of the body were still on their way
            while more := connection.recv(65_536):
                answer += more
    assert problem(answer) == (408, "too-slow")


def test_a_head_that_does_not_end_is_cut_off(narrow, monkeypatch):
    monkeypatch.setattr("clr.serving.listening.HEAD_SECONDS", 1.0)
    assert narrow.raw(b"") == b""
    assert narrow.raw(b"GET /v1/tasks HTTP/1.1\r\nHost: ") == b""
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert is_cut_off(connection, b"X: a\r\n")
    assert ready(narrow)


def test_a_refused_body_that_goes_on_does_not_hold_the_connection(narrow, monkeypatch):
    monkeypatch.setattr("clr.serving.listening.HEAD_SECONDS", 1.0)
    head = HEAD.replace(b"application/json", b"text/plain") + b"Content-Length: 1000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=30) as connection:
        connection.sendall(head)
        assert b" 415 " in connection.recv(65_536)
        assert is_cut_off(connection, b"a")


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(narrow, pictures):
    large = pictures["red-caps/dark"] + b"\0" * 1_100_000
    check(narrow.predict(large), 413, "too-large")
    chunks = (b"a" * 65_536 for _ in range(40))
    answer = narrow.call(
        "POST", "/v1/predict", data=chunks, headers={"Content-Type": "application/json"}
    )
    check(answer, 413, "too-large")
    check(narrow.predict(*[pictures["red-caps/dark"]] * 3), 413, "too-large")
    assert narrow.predict(*[pictures["red-caps/dark"]] * 2).status_code == 200


def test_a_body_that_is_announced_as_too_large_is_not_waited_for(narrow):
    for expect in (b"", b"Expect: 100-continue\r\n"):
        answer = narrow.raw(HEAD + expect + b"Content-Length: 99999999999\r\n\r\n")
        assert problem(answer) == (413, "too-large")
        assert b"100 Continue" not in answer


def test_large_bodies_at_once_have_an_end(new_web):
    web = new_web(serve_body_mb=1, serve_seconds=20.0)
    connections = []
    part = HEAD + b"Content-Length: 999000\r\n\r\n" + b" " * 990_000
    for _ in range(8):
        connections.append(socket.create_connection(("127.0.0.1", web.port), timeout=30))
        connections[-1].sendall(part)
    time.sleep(0.5)
    refused = web.raw(part + b" " * 9_000)
    assert problem(refused) == (429, "overloaded")
    assert b"retry-after: 1" in refused.lower()
    assert ready(web)
    for one in connections:
        one.sendall(b" " * 9_000)
        assert b" 400 " in one.recv(65_536), "it was no JSON"
        one.close()
    answer = web.raw(part + b" " * 9_000 + b"")
    assert b" 400 " in answer[:20]


def test_a_key_may_come_so_often_and_another_one_besides(template, copy_of, tmp_path):
    from tests.web import serving

    plant = copy_of(template.plant, tmp_path / "plant")
    with serving(plant, serve_rate=2.0) as web:
        first, second = web.new_key("first", "predict"), web.new_key("second", "predict")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: web.call("GET", "/v1/tasks", key=first), range(8)))
        refused = [one for one in answers if one.status_code != 200]
        assert 0 < len(refused) < 8
        for one in refused:
            check(one, 429, "rate-limited")
        assert web.call("GET", "/v1/tasks", key=second).status_code == 200
        time.sleep(int(refused[0].headers["Retry-After"]))
        assert web.call("GET", "/v1/tasks", key=first).status_code == 200
        assert web.call("GET", "/health", key="").status_code == 200


def test_without_keys_pages_of_other_sites_are_refused(narrow, pictures):
    files = [("files", ("a.png", pictures["red-caps/dark"]))]
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example.com"},
        {"Host": "127.0.0.1.evil.example.com:80"},
    ):
        check(narrow.call("POST", "/v1/predict", files=files, headers=headers), 403, "foreign-page")
    for headers in (
        {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Host": "localhost:1"},
        {"Host": "localhost"}, {"Host": "[::1]:8080"}, {"Host": "[::1]"},
    ):  # fmt: skip
        answer = narrow.call("POST", "/v1/predict", files=files, headers=headers)
        assert answer.status_code == 200, headers
