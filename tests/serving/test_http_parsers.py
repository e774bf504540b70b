"""Whatever bytes come: a request is read as it was meant, or refused as a problem."""

from __future__ import annotations

import base64
import json
import string
import struct
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.core.images import open_image
from clr.serving.errors import Problem
from clr.serving.inputs import PredictRequest, parse, read_items, read_json
from clr.serving.limits import Bucket, Held
from clr.serving.multipart import MAX_FIELDS, read_form
from clr.serving.openinference import Limits, read_request
from clr.serving.openinference_answers import write_response
from clr.serving.values import Answer, Failed


def status(read: Callable[..., object], *arguments: object) -> int:
    """200, or that of the problem which `read` raises."""
    try:
        read(*arguments)
    except Problem as problem:
        json.dumps(problem.document(), allow_nan=False)
        return problem.status
    return 200


LIMITS = Limits(images=8, pixels=10_000)
FORM = "multipart/form-data; boundary=XyZ"
NAMES = st.text(string.ascii_letters + string.digits + "-_. äあ", min_size=1, max_size=20)


def written(parts: list[tuple[str, str | None, bytes]]) -> bytes:
    made = b""
    for name, filename, data in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        head = f'--XyZ\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        made += head.encode() + data + b"\r\n"
    return made + b"--XyZ--\r\n"


PARTS = st.lists(
    st.tuples(
        NAMES, st.none() | NAMES, st.binary(max_size=300).filter(lambda b: b"--XyZ" not in b)
    ),
    min_size=1,
    max_size=6,
)


@given(PARTS)
def test_a_form_is_read_as_it_was_written(parts):
    found = read_form(written(parts), FORM, max_files=6)
    assert [(one.name, one.filename, one.data) for one in found] == parts


@given(PARTS, st.data())
def test_a_form_that_was_cut_off_is_never_taken_for_a_shorter_one(parts, data):
    whole = written(parts)
    cut = data.draw(st.integers(0, len(whole) - len(b"--\r\n") - 1))
    with pytest.raises(Problem) as caught:
        read_form(whole[:cut], FORM, max_files=6)
    assert caught.value.status == 400


@pytest.mark.parametrize("first", [True, False])
def test_a_form_may_have_so_many_fields_and_not_one_more(first):
    file, fields = [("files", "a.png", b"a")], [("task", None, b"a")] * MAX_FIELDS
    whole = file + fields if first else fields + file
    assert len(read_form(written(whole), FORM, max_files=1)) == MAX_FIELDS + 1
    assert status(read_form, written([*whole, fields[0]]), FORM, 1) == 413


@given(st.binary(max_size=400), st.sampled_from([FORM, "multipart/form-data", "application/json"]))
def test_any_bytes_are_images_or_a_problem(body, kind):
    assert status(read_items, body, kind, 4) in (200, 400, 413, 422)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["instances", "image", "task", "inputs", "x"]), inner)
    ),
    max_leaves=8,
)


@given(JSONS)
def test_any_json_is_a_request_or_a_problem(value):
    body = json.dumps(value).encode()
    assert status(lambda: parse(PredictRequest, read_json(body))) in (200, 400, 422)


@given(JSONS, st.binary(max_size=50), st.none() | st.integers(-5, 300))
def test_any_inference_request_is_images_or_a_problem(value, tail, length):
    body = json.dumps(value).encode() + tail
    header = None if length is None else str(length)
    assert status(read_request, body, header, "task", LIMITS) in (200, 400, 413, 422)


COUNT = 40_000
IMAGE = b'{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}'


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"instances": [%s]}' % b",".join([b"{}"] * COUNT), "v1"),
        (b'{"instances": [%s]}' % b",".join([b"0"] * COUNT), "v1"),
        (b'{"instances": [{%s}]}' % b",".join(b'"%x": 0' % at for at in range(COUNT)), "v1"),
        (b'{"inputs": [%s]}' % b",".join([b"{}"] * COUNT), "v2"),
        (b'{"inputs": [%s], "outputs": [%s]}' % (IMAGE, b",".join([b"{}"] * COUNT)), "v2"),
        (b'{"inputs": [%s], "outputs": [%s]}' % (
            IMAGE, b",".join([b'{"name": "label"}'] * COUNT)), "v2"),
        (b'{"inputs": [%s], "parameters": {%s}}' % (
            IMAGE, b",".join(b'"%x": []' % at for at in range(COUNT))), "v2"),
    ],
)  # fmt: skip
def test_what_is_wrong_a_thousand_times_takes_no_thousandfold_room(body, where):
    tracemalloc.start()
    try:
        if where == "v1":
            assert status(read_items, body, "application/json", 64) in (413, 422)
        else:
            assert status(read_request, body, None, "caps", LIMITS) in (413, 422)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(body)


def test_tensors_are_not_kept_beside_their_images():
    values = ",".join(["1"] * 30_000)
    tensor = b'{"name": "x", "shape": [1, 100, 100, 3], "datatype": "UINT8", "data": [%s]}'
    body = b'{"inputs": [%s]}' % (tensor % values.encode())
    request, (item,) = read_request(body, None, "caps", LIMITS)
    assert len(item.data) > 30_000
    assert request.inputs[0].data is None


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8), st.booleans())
def test_image_files_arrive_whole_in_json_and_in_binary(images, binary):
    tensor = {"name": "image", "shape": [len(images)], "datatype": "BYTES"}
    raw = b"".join(struct.pack("<I", len(one)) + one for one in images)
    if binary:
        tensor["parameters"] = {"binary_data_size": len(raw)}
    else:
        tensor["data"] = [base64.b64encode(one).decode() for one in images]
    head = json.dumps({"inputs": [tensor]}).encode()
    body, length = (head + raw, str(len(head))) if binary else (head, None)
    _, items = read_request(body, length, "caps", LIMITS)
    assert [one.data for one in items] == images
    assert {one.task for one in items} == {"caps"}


@given(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.booleans(),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_pixels_become_the_same_picture_however_they_come(
    count, height, width, first, floats, seed
):
    if 3 in (height, width):
        return  # which axis has the channels cannot be told, and is refused
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
    array = images.transpose(0, 3, 1, 2) if first else images
    array = array.astype(np.float32) / 255 if floats else array
    raw = np.ascontiguousarray(array).tobytes()
    tensor = {
        "name": "pixels",
        "shape": list(array.shape),
        "datatype": "FP32" if floats else "UINT8",
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    _, items = read_request(head + raw, str(len(head)), "caps", LIMITS)
    for item, image in zip(items, images, strict=True):
        assert np.array_equal(np.asarray(open_image(item.data)), image)


def test_an_answer_in_binary_says_what_the_json_says():
    answers = [
        Answer("0", "a1", 3, "sha256:1", "caps", "named", "é", 0.75, {"é": 0.75, "x": 0.25},
               "sha256:2", 4),
        Failed("1", "a2", "The file is not an image.", "unreadable"),
    ]  # fmt: skip
    image = {"name": "i", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}
    body = json.dumps({"id": "7", "inputs": [image]}).encode()
    request, _ = read_request(body, None, "caps", LIMITS)
    plain, length = write_response(request, "caps", answers)
    assert length is None
    outputs = {one["name"]: one for one in json.loads(plain)["outputs"]}
    assert outputs["label"]["data"] == ["é", ""]
    assert outputs["probabilities"]["shape"] == [2, 2]
    assert outputs["probabilities"]["data"] == [0.75, 0.25, 0.0, 0.0]
    request.parameters["binary_data_output"] = True
    data, length = write_response(request, "caps", answers)
    head = json.loads(data[:length])
    assert (head["id"], head["model_version"]) == ("7", "4")
    at = length
    for one in head["outputs"]:
        part = data[at : at + one["parameters"]["binary_data_size"]]
        at += len(part)
        if one["name"] == "label":
            assert part == struct.pack("<I", 2) + "é".encode() + struct.pack("<I", 0)
        if one["name"] == "probabilities":
            assert np.frombuffer(part, "<f4").tolist() == [0.75, 0.25, 0, 0]
        if one["name"] == "unknown":
            assert part == b"\0\0"
    assert at == len(data)


@given(
    st.floats(0.1, 50),
    st.lists(st.floats(0, 2, allow_nan=False), min_size=1, max_size=200),
)
def test_a_bucket_lets_no_more_through_than_its_rate_and_one_burst(rate, gaps):
    bucket, now, passed = Bucket(rate), 100.0, []
    for gap in gaps:
        now += gap
        wait = bucket.take(now)
        if wait == 0:
            passed.append(now)
        else:
            assert 0 < wait <= 1 / rate + 1e-9
    for start in passed:
        within = [at for at in passed if start <= at < start + 10]
        assert len(within) <= max(1, rate) + 10 * rate + 1e-6


def test_who_waits_as_long_as_he_is_told_is_let_through():
    bucket = Bucket(0.5)
    assert bucket.take(0.0) == 0
    wait = bucket.take(0.0)
    assert bucket.take(wait + 1e-9) == 0


def test_room_is_given_back_whatever_happens():
    held = Held(100)
    with held.room() as take:
        take(60)
        with held.room() as other:
            other(30)
            with pytest.raises(Problem) as caught:
                other(30)
        assert caught.value.headers["Retry-After"] == "1"
        assert held.now == 60
    assert held.now == 0


def test_what_kserves_client_writes_is_read():
    """`kserve.InferRequest.to_rest` names the model again; others write null for what is unset."""
    image = {"name": "i", "shape": [1], "datatype": "BYTES", "data": ["AAAA"], "parameters": None}
    said = {"id": "7", "model_name": "caps", "inputs": [image], "outputs": None, "parameters": None}
    request, (item,) = read_request(json.dumps(said).encode(), None, "caps", LIMITS)
    assert (request.id, item.task) == ("7", "caps")
    with pytest.raises(Problem, match="model_name: The address names caps"):
        read_request(json.dumps(said | {"model_name": "hats"}).encode(), None, "caps", LIMITS)


def test_classes_that_one_arm_alone_knows_have_their_probabilities_too():
    answers = [
        Answer("0", "a1", 3, "sha256:1", "caps", "named", "dark", 0.75,
               {"dark": 0.75, "light": 0.25}, "sha256:2", 4),
        Answer("1", "a2", 3, "sha256:1", "caps", "named", "red", 0.5,
               {"dark": 0.25, "light": 0.25, "red": 0.5}, "sha256:3", 5, "challenger"),
    ]  # fmt: skip
    image = {"name": "i", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}
    request, _ = read_request(json.dumps({"inputs": [image]}).encode(), None, "caps", LIMITS)
    outputs = {
        one["name"]: one["data"]
        for one in json.loads(write_response(request, "caps", answers)[0])["outputs"]
    }
    assert outputs["labels"] == ["dark", "light", "red"]
    assert outputs["probabilities"] == [0.75, 0.25, 0.0, 0.25, 0.25, 0.5]
