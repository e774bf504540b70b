"""Images, feedback, tasks, health and metrics over HTTP, at a real server."""

from __future__ import annotations

import base64

import pytest

HOW = "0123456789abcdef"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_images_of_several_tasks_in_one_form(web, pictures):
    names = sorted(pictures)
    answer = web.predict(*(pictures[name] for name in names))
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["release"] == 3
    assert document["release_digest"].startswith("sha256:")
    assert "X-Request-Id" not in answer.headers
    for at, (name, one) in enumerate(zip(names, document["predictions"], strict=True)):
        assert f"{one['task']}/{one['label']}" == name
        assert (one["file"], one["routed"], one["how"]) == (f"{at}.png", True, "routed")
        assert one["probability"] == pytest.approx(max(one["probabilities"].values()))
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert one["adapter"].startswith("sha256:")
        assert (one["arm"], one["version"], one["unknown"]) == ("champion", 1, False)
        assert set(one["request_id"]) <= set(HOW)
    assert len({one["request_id"] for one in document["predictions"]}) == len(names)


def test_one_task_for_all_or_one_for_each(web, pictures):
    red, blue = pictures["red-caps/dark"], pictures["blue-caps/light"]
    told = web.predict(red, red, task="red-caps").json()["predictions"]
    assert [(one["task"], one["how"], one["routed"]) for one in told] == [
        ("red-caps", "named", False)
    ] * 2
    told = web.predict(red, blue, task=["red-caps", "blue-caps"]).json()["predictions"]
    assert [one["task"] for one in told] == ["red-caps", "blue-caps"]


def test_json_says_the_same_as_a_form(web, pictures):
    (formed,) = web.predict(pictures["green-caps/light"], task="green-caps").json()["predictions"]
    instance = {"image": encoded(pictures["green-caps/light"]), "task": "green-caps"}
    answer = web.call(
        "POST",
        "/v1/predict",
        json={"instances": [instance, {**instance, "name": "cam 1.png", "unit": "SN-1"}]},
    )
    first, second = answer.json()["predictions"]
    assert (first["file"], second["file"]) == ("0", "cam 1.png")
    for one in (first, second):
        assert one["label"] == "light"
        assert one["probabilities"] == pytest.approx(formed["probabilities"], abs=1e-5)


def test_what_cannot_be_decoded_is_an_error_beside_the_other_answers(web, pictures):
    good = pictures["red-caps/light"]
    told = web.predict(good, b"no image", good[:60], b"", good).json()["predictions"]
    assert ["error" in one for one in told] == [False, True, True, True, False]
    for one in told[1:4]:
        assert one["code"] == "unreadable"
        assert one["request_id"]
        assert "label" not in one


def test_an_unknown_task_beside_a_known_one_is_an_error_of_its_image(web, pictures):
    red = pictures["red-caps/light"]
    answer = web.predict(red, red, task=["hats", "red-caps"])
    assert answer.status_code == 200
    assert [one.get("code") for one in answer.json()["predictions"]] == ["unknown-task", None]


def test_a_single_image_has_its_request_id_in_a_header_too(web, pictures):
    answer = web.predict(pictures["red-caps/light"])
    assert answer.headers["X-Request-Id"] == answer.json()["predictions"][0]["request_id"]


def test_file_names_come_back_as_they_were_and_are_never_paths(web, pictures):
    for name in ("../../etc/passwd", "ä ö.png", "a;b.png", "%00.png", "C:a.png"):
        answer = web.call(
            "POST", "/v1/predict", files=[("files", (name, pictures["red-caps/dark"]))]
        )
        assert answer.json()["predictions"][0]["file"] == name


def test_feedback_is_written_down_and_may_come_again(web, pictures):
    one = web.predict(pictures["red-caps/dark"]).json()["predictions"][0]
    said = {"request_id": one["request_id"], "label": "light"}
    first = web.call("POST", "/v1/feedback", json=said)
    assert first.status_code == 200, first.text
    assert first.json() == {
        **said, "task": "red-caps", "predicted": "dark", "first": True,
    }  # fmt: skip


def test_the_tasks_are_listed_with_their_classes(web):
    document = web.call("GET", "/v1/tasks").json()
    assert document["release"] == 3
    assert [one["name"] for one in document["tasks"]] == ["blue-caps", "green-caps", "red-caps"]
    for one in document["tasks"]:
        assert one["labels"] == ["dark", "light"]
        assert (one["image_size"], one["version"], one["served"]) == (32, 1, True)
        assert "/" not in one["backbone"], "no path of the server's disk"


def test_health_needs_no_key(web):
    answer = web.call("GET", "/health", key="")
    assert answer.status_code == 200
    document = answer.json()
    assert (document["status"], document["ready"], document["release"]) == ("ok", True, 3)
    assert document["refused"] == {}
    assert web.call("GET", "/v2/health/live", key="").json() == {"live": True}
    assert web.call("GET", "/v2/health/ready", key="").json() == {"ready": True}


def test_metrics_count_requests_images_and_refusals(web, pictures):
    web.predict(pictures["blue-caps/dark"], task="blue-caps")
    web.call("GET", "/no/such/../thing")
    told = web.call("GET", "/metrics")
    assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = dict(line.rsplit(" ", 1) for line in told.text.splitlines() if not line.startswith("#"))
    predicted = 'clr_serve_requests_total{endpoint="/v1/predict",method="POST",status="200"}'
    assert float(lines[predicted]) >= 1
    assert float(lines['clr_serve_images_total{how="named",task="blue-caps"}']) >= 1
    assert float(lines['clr_serve_refused_requests_total{code="not-found"}']) >= 1
    assert float(lines["clr_serve_release"]) == 3
    assert float(lines["clr_serve_tasks"]) == 3
    assert 'clr_serve_request_seconds_bucket{endpoint="/v1/predict",le="+Inf"}' in lines


def test_every_answer_has_the_headers_of_security_and_none_that_names_software(web, pictures):
    answers = [
        web.predict(pictures["red-caps/dark"]),
        web.call("GET", "/health"),
        web.call("GET", "/docs"),
        web.call("GET", "/nothing"),
        web.call("DELETE", "/v1/tasks"),
    ]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert {"server", "x-powered-by", "via"}.isdisjoint(map(str.lower, answer.headers))


def test_the_page_of_the_addresses_loads_nothing_from_elsewhere(web):
    page = web.call("GET", "/docs", key="")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "/v1/predict" in page.text
    assert 'id="unknown-task"' in page.text, "problems lead here"
    assert "<script" not in page.text
    assert "src=" not in page.text
    document = web.call("GET", "/openapi.json", key="").json()
    examples = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert set(examples) == {"multipart/form-data", "application/json"}


def test_the_answers_that_it_shows_are_such_as_are_given(web):
    from clr.serving.api.answers import Labelled, Predictions

    document = web.call("GET", "/openapi.json").json()
    for path, model in (("/v1/predict", Predictions), ("/v1/feedback", Labelled)):
        answer = document["paths"][path]["post"]["responses"]["200"]
        model.model_validate(answer["content"]["application/json"]["example"])
    page = web.call("GET", "/docs").text
    assert f"{web.url}/v1/predict" in page, "an example to copy"
    assert "<code>task</code>" in page


def test_the_examples_of_the_openapi_document_are_understood(web):
    document = web.call("GET", "/openapi.json").json()
    for path in ("/v1/predict", "/v1/feedback", "/v2/models/{task}/infer"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert body["examples"]
        for example in body["examples"].values():
            answer = web.call("POST", path.format(task="red-caps"), json=example["value"])
            # animals is no task here, and nobody answered the example's request
            assert answer.status_code in (200, 404), (path, answer.text)
