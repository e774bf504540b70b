"""What goes wrong inside: who asks is told what he needs to know, and not a word more."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from anyio.to_thread import current_default_thread_limiter
from httpx import ASGITransport, AsyncClient

from clr.serving.app import create_app
from clr.serving.dashboard.facts import Facts
from clr.serving.engine import Engine
from clr.serving.errors import none_read, none_served
from clr.serving.values import Failed
from clr.settings import Settings
from tests.serving.load import Picture, Server
from tests.serving.test_http_refused import INTERNALS, check
from tests.waiting import until
from tests.web import serving


def damage(plant, digest: str) -> None:
    """Flip a bit in every copy of the file with a digest."""
    found = 0
    for path in plant.state.rglob("*.safetensors"):
        data = bytearray(path.read_bytes())
        if "sha256:" + hashlib.sha256(data).hexdigest() == digest:
            data[-1] ^= 1
            path.chmod(0o600)
            path.write_bytes(data)
            found += 1
    assert found


@pytest.fixture(scope="module")
def damaged(template, copy_of, tmp_path_factory):
    """A server with keys whose task blue-caps has a damaged adapter."""
    plant = copy_of(template.plant, tmp_path_factory.mktemp("damaged") / "plant")
    release = plant.session()
    from clr.registry.releases import current_release

    damage(plant, current_release(release.registry).tasks["blue-caps"].adapter_digest)
    with serving(plant) as found:
        yield found, found.new_key("tests", "predict", "metrics")


def test_a_damaged_adapter_takes_its_own_task_away_and_no_other(damaged, pictures):
    web, key = damaged
    blue, red = pictures["blue-caps/dark"], pictures["red-caps/dark"]
    check(web.predict(blue, key=key, task="blue-caps"), 503, "unavailable-task")
    told = web.predict(blue, red, key=key, task=["blue-caps", "red-caps"])
    assert told.status_code == 200
    first, second = told.json()["predictions"]
    assert (first["code"], second["label"]) == ("unavailable-task", "dark")
    assert not INTERNALS.search(told.text)
    check(web.call("GET", "/v2/models/blue-caps/ready", key=key), 503, "unavailable-task")
    assert web.call("GET", "/v2/models/red-caps/ready", key=key).json()["ready"]
    listed = web.call("GET", "/v1/tasks", key=key).json()["tasks"]
    assert [one["served"] for one in listed] == [False, True, True]


def test_the_health_page_says_so_and_why_to_those_who_may_know(damaged):
    web, key = damaged
    stranger, known = (web.call("GET", "/health", key=one).json() for one in ("", key))
    for document in (stranger, known):
        assert (document["status"], document["ready"]) == ("degraded", True)
        assert list(document["refused"]) == ["blue-caps"]
        assert document["tasks"] == ["green-caps", "red-caps"]
    assert not INTERNALS.search(json.dumps(stranger))
    assert "sha256:" in known["refused"]["blue-caps"]
    metrics = web.call("GET", "/metrics", key=key).text
    assert 'clr_serve_task_refused{task="blue-caps"} 1.0' in metrics


def test_more_than_can_wait_is_sent_away_and_the_rest_is_answered(new_web, pictures):
    web = new_web(serve_queue_items=4, serve_wait_ms=200.0)
    image = pictures["red-caps/dark"]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: web.predict(image, image), range(32)))
    refused = [one for one in answers if one.status_code != 200]
    assert 0 < len(refused) < len(answers)
    for one in refused:
        check(one, 429, "overloaded")
    assert web.predict(image).status_code == 200
    check(web.predict(*[image] * 5), 413, "too-large")


def test_an_error_of_ours_is_told_by_its_id_alone(new_web, pictures, caplog):
    web = new_web()
    one = web.predict(pictures["red-caps/dark"]).json()["predictions"][0]
    said = {"request_id": one["request_id"], "label": "dark"}
    for name in ("journal.db", "journal.db-wal"):  # a -shm cut short ends any process at work on it
        (web.plant.state / "serving" / name).write_bytes(b"this is no database" * 1000)
    answer = web.call("POST", "/v1/feedback", json=said)
    check(answer, 500, "internal")
    instance = answer.json()["instance"]
    assert instance.startswith("urn:uuid:")
    assert any(instance in record.getMessage() and record.exc_info for record in caplog.records)
    assert web.call("GET", "/v2/health/live").status_code == 200


def failed(code):
    return Failed("a.png", f"id-of-{code}", "/srv/adapter.safetensors is gone (OSError).", code)


def test_images_that_failed_inside_are_found_in_the_log(caplog):
    problem = none_served([failed("internal"), failed("internal")])
    (record,) = caplog.records
    assert problem.document()["instance"] in record.getMessage()
    assert "id-of-internal" in record.getMessage()


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        (("internal", "unreadable"), "internal"),
        (("unreadable", "unavailable-task"), "unavailable-task"),
        (("unreadable", "time-out", "internal"), "out-of-time"),
        (("unreadable", "too-large"), "unreadable"),
        (("too-large", "too-large"), "too-large"),
    ],
)
def test_what_failed_because_of_us_is_never_told_as_a_bad_image(codes, told):
    problem = none_read([failed(code) for code in codes])
    assert problem.code == told
    assert ("/srv" in json.dumps(problem.document())) == (told in ("unreadable", "too-large"))


def test_that_the_server_lives_is_said_while_every_thread_is_busy(tmp_path):
    settings = Settings(workspace=tmp_path, serve_keys=False)

    async def ask():
        threads = current_default_thread_limiter()
        threads.total_tokens = 1
        await threads.acquire()
        app = ASGITransport(create_app(Engine(settings), settings))
        async with AsyncClient(transport=app, base_url="http://localhost") as client:
            asking = asyncio.gather(
                *(client.get(f"/{one}") for one in ("v2/health/live", "health"))
            )
            return await asyncio.wait_for(asking, 20)

    live, health = asyncio.run(ask())
    assert (live.json(), health.json()["status"]) == ({"live": True}, "starting")


def test_pages_that_wait_for_the_registry_hold_up_no_image(tmp_path):
    settings = Settings(workspace=tmp_path, serve_keys=False)
    answers = threading.Event()

    async def ask():
        app = create_app(Engine(settings), settings)
        app.state.dashboard._read = lambda: answers.wait(20) and Facts(at="")
        current_default_thread_limiter().total_tokens = 2
        async with AsyncClient(transport=ASGITransport(app), base_url="http://localhost") as client:
            pages = [asyncio.create_task(client.get("/dashboard")) for _ in range(4)]
            await asyncio.sleep(0.1)
            image = asyncio.create_task(client.post("/v1/predict", files={"files": b"image"}))
            done, _ = await asyncio.wait([image], timeout=5)
            answers.set()
            return bool(done), await image, await asyncio.gather(*pages)

    in_time, image, pages = asyncio.run(ask())
    assert in_time
    check(image, 503, "not-ready")
    assert {page.status_code for page in pages} == {200}


def test_a_caller_who_hangs_up_leaves_nothing_behind(new_web):
    web = new_web(serve_seconds=20.0)
    connection = http.client.HTTPConnection("127.0.0.1", web.port)
    connection.putrequest("POST", "/v1/predict")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders(b" " * 1000)
    time.sleep(0.3)
    connection.close()
    gone = 'clr_serve_requests_total{endpoint="/v1/predict",method="POST",status="499"} 1.0'
    assert until(lambda: gone in web.call("GET", "/metrics").text)


def test_a_request_in_work_is_answered_when_the_server_is_told_to_stop(own, tmp_path):
    settings = {**own.environment, "CLR_SERVE_DRAIN_SECONDS": "3"}
    server = Server(own.root, settings, tmp_path / "log")
    try:
        assert server.start()["release"] == own.second.version
        picture = Picture("red", own.images("red")[0].read_bytes())
        body = json.dumps({"instances": [picture.instance(named=True)]}).encode()
        begun, slow, idle = (
            http.client.HTTPConnection("127.0.0.1", server.port, timeout=30) for _ in range(3)
        )
        idle.connect()
        for connection in (begun, slow):
            connection.putrequest("POST", "/v1/predict")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:100])
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        assert idle.sock.recv(1) == b"", "a connection without a request is closed"
        with pytest.raises(ConnectionRefusedError):
            server.ask("GET", "/v2/health/live")
        begun.send(body[100:])
        answer, late = begun.getresponse(), slow.getresponse()
        assert (answer.status, late.status) == (200, 503)
        assert [one.headers["Connection"] for one in (answer, late)] == ["close"] * 2
        assert "label" in json.loads(answer.read())["predictions"][0]
        assert json.loads(late.read())["code"] == "not-ready"
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.log.read_text()
    finally:
        server.stop()


def test_every_line_of_the_log_is_json_whatever_callers_send(own, tmp_path):
    server = Server(own.root, {**own.environment, "CLR_LOG_FORMAT": "json"}, tmp_path / "log")
    try:
        server.start()
        upgrade = b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
        for sent in (b"nonsense\r\n\r\n", upgrade):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
                connection.sendall(sent)
                assert connection.recv(1000).startswith(b"HTTP/1.1 ")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        form = {"Content-Type": "multipart/form-data; boundary=B"}
        connection.request("POST", "/v1/predict", b"no form", form)
        assert connection.getresponse().status == 400
    finally:
        server.stop()
    lines = [json.loads(line)["message"] for line in server.log.read_text().splitlines()]
    assert "Invalid HTTP request received." in lines
    assert "stopped" in lines
