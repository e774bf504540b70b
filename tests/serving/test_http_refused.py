"""Bad requests: each gets its own 4xx and a sentence, none an internal, and the server goes on."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from clr.serving.errors import KINDS
from tests.serving.bad_requests import ALL, INFER, PREDICT, chunk, png

INTERNALS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|/tmp/|/dev/shm/|/root/|/home/|0x[0-9a-f]{6,}|<_io|"
    r"pydantic|starlette|fastapi|uvicorn|torch|PIL\b|sqlite|asyncio|Error\b\(",
    re.IGNORECASE,
)


def check(answer: Any, status: int, code: str) -> None:
    """See that an answer is a problem document with nothing of the inside."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["code"], document["status"]) == (code, status)
    assert document["type"] == f"/docs#{code}"
    assert document["title"] == KINDS[code].title
    for field in ("detail", "fix"):
        assert document[field].endswith((".", ")", "NAME")), document
        assert len(document[field]) < 1000
    assert not INTERNALS.search(answer.text), answer.text
    if status == 405:
        assert answer.headers["Allow"]
    if status in (429, 503):
        assert int(answer.headers["Retry-After"]) >= 1
    if status == 401:
        assert answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("bad", ALL, ids=lambda bad: f"{bad.path.split('/')[-1]}: {bad.name}")
def test_a_bad_request_is_told_what_is_wrong(web, bad):
    key = bad.key
    headers = dict(bad.headers or {})
    if "Authorization" in headers or (key and not key.isascii()):
        headers.setdefault("Authorization", f"Bearer {key}".encode())
        key = ""
    answer = web.call(bad.method, bad.path, key=key, headers=headers, data=bad.data)
    check(answer, bad.status, bad.code)
    assert web.call("GET", "/v2/health/ready", key="").status_code == 200


def test_there_are_at_least_a_hundred_of_them():
    assert len(ALL) >= 100
    assert len({(bad.path, bad.name, str(bad.headers)) for bad in ALL}) == len(ALL)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a picture of 3.6 gigapixels", lambda: png(60_000, 60_000)),
        ("a line of pixels", lambda: png(2_000_000_000, 1)),
        ("a megabyte that unpacks to a gigabyte", lambda: png(17_000, 17_000, b"\0" * 10**8)),
        ("text that unpacks", lambda: b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(
            ">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)) + chunk(b"zTXt", b"a\0\0" + zlib.compress(
                b"\0" * 10**8, 9)) + chunk(b"IEND", b"")),
        ("a zip", lambda: b"PK\x03\x04" + b"\0" * 1000),
        ("a script", lambda: b"#!/bin/sh\nrm -rf /"),
        ("a vector picture", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
        ("PostScript", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        ("an empty file", lambda: b""),
    ],
)  # fmt: skip
def test_a_hostile_image_is_an_error_of_its_own(
    web, pictures, name: str, make: Callable[[], bytes]
):
    answer = web.predict(make(), pictures["red-caps/dark"])
    assert answer.status_code == 200
    bomb, good = answer.json()["predictions"]
    assert (bomb["code"], good["label"]) in (("unreadable", "dark"), ("too-large", "dark"))
    assert not INTERNALS.search(bomb["error"]), bomb


def test_whoever_sends_another_type_is_told_which_ones_there_are(web):
    plain = {"Content-Type": "text/plain"}
    answer = web.call("POST", INFER, headers=plain, data=b"x")
    known = "application/json or application/octet-stream"
    assert answer.json()["detail"] == f"The content type 'text/plain' is not {known}."
    assert answer.headers["Accept"] == "application/json, application/octet-stream"


def test_an_expired_key_is_told_so(web, pictures):
    from datetime import UTC, datetime

    from clr.serving.keys import add_key, keys_path, make_key

    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    key, written = make_key("old", ("predict",), (), "1d", long_ago)
    add_key(keys_path(web.plant.state), key, long_ago)
    check(web.predict(pictures["red-caps/dark"], key=written), 401, "key-expired")


def test_headers_cannot_be_injected(web, pictures):
    answer = web.raw(
        b"GET /v1/tasks%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"\r\nx-evil" not in answer.lower()
    files = [("files", ('a"\r\nX-Evil: 1.png', pictures["red-caps/dark"]))]
    sent = web.call("POST", PREDICT, files=files)
    assert "x-evil" not in {name.lower() for name in sent.headers}


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000,
        b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBad Header\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(web, head):
    answer = web.raw(head)
    assert re.match(rb"HTTP/1.1 (400|501) ", answer), answer[:200]
    assert not INTERNALS.search(answer.decode())


def test_each_kind_of_problem_of_a_caller_is_met_in_these_tests():
    met = {bad.code for bad in ALL} | {"key-expired", "scope-missing", "task-not-allowed"}
    elsewhere = {"foreign-page", "too-slow", "rate-limited", "overloaded"}
    mine = {code for code, kind in KINDS.items() if kind.status < 500}
    assert mine - met == elsewhere
