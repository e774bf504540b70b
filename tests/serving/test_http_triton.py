"""Clients of Triton and KServe work as they are: the Open Inference Protocol v2."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException


@pytest.fixture
def triton(web):
    client = InferenceServerClient(f"127.0.0.1:{web.port}")
    yield client
    client.close()


@pytest.fixture
def key(web):
    return {"Authorization": f"Bearer {web.key}"}


def files(*images: bytes, binary: bool = True) -> list[InferInput]:
    made = InferInput("image", [len(images)], "BYTES")
    data = images if binary else [base64.b64encode(one).decode() for one in images]
    made.set_data_from_numpy(np.array(data, dtype=object), binary_data=binary)
    return [made]


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def tensor(array: np.ndarray, datatype: str, *, binary: bool = True) -> list[InferInput]:
    made = InferInput("pixels", list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return [made]


def test_the_server_and_its_models_are_described(triton, key):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("red-caps", headers=dict(key))
    assert triton.is_model_ready("red-caps", "1", headers=dict(key))
    assert not triton.is_model_ready("red-caps", "2", headers=dict(key))
    assert not triton.is_model_ready("hats", headers=dict(key))
    assert triton.get_server_metadata(headers=dict(key))["extensions"] == ["binary_tensor_data"]
    described = triton.get_model_metadata("red-caps", headers=dict(key))
    assert (described["name"], described["versions"]) == ("red-caps", ["1"])
    assert described["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    shapes = {one["name"]: one["shape"] for one in described["outputs"]}
    assert (shapes["probabilities"], shapes["labels"]) == ([-1, 2], [2])


def test_image_files_in_binary_tensors(triton, key, web, pictures):
    images = [pictures["red-caps/dark"], pictures["red-caps/light"]]
    found = triton.infer("red-caps", files(*images), request_id="17", headers=dict(key))
    assert found.get_response()["id"] == "17"
    assert found.get_response()["model_version"] == "1"
    assert found.get_response()["parameters"]["release"] == 3
    assert [one.decode() for one in found.as_numpy("label")] == ["dark", "light"]
    assert found.as_numpy("probabilities").shape == (2, 2)
    assert found.as_numpy("probability") == pytest.approx(found.as_numpy("probabilities").max(1))
    assert [one.decode() for one in found.as_numpy("labels")] == ["dark", "light"]
    assert [one.decode() for one in found.as_numpy("arm")] == ["champion"] * 2
    assert found.as_numpy("unknown").dtype == bool
    assert all(one.startswith(b"sha256:") for one in found.as_numpy("adapter"))
    said = {"request_id": found.as_numpy("request_id")[0].decode(), "label": "dark"}
    assert web.call("POST", "/v1/feedback", json=said).status_code == 200


def test_image_files_in_json_and_outputs_that_are_asked_for(triton, key, pictures):
    wanted = [
        InferRequestedOutput("label", binary_data=False),
        InferRequestedOutput("probabilities", binary_data=True),
    ]
    found = triton.infer(
        "green-caps",
        files(pictures["green-caps/light"], binary=False),
        outputs=wanted,
        headers=dict(key),
    )
    assert found.as_numpy("label")[0] in (b"light", "light")
    assert found.as_numpy("probabilities").shape == (1, 2)
    assert found.get_output("request_id") is None


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("first", [True, False], ids=["NCHW", "NHWC"])
def test_decoded_pixels_say_the_same_as_their_file(triton, key, pictures, binary, first):
    data = [pictures["blue-caps/dark"], pictures["blue-caps/light"]]
    expected = triton.infer("blue-caps", files(*data), headers=dict(key)).as_numpy("probabilities")
    images = np.stack([decoded(one) for one in data])
    images = images.transpose(0, 3, 1, 2).copy() if first else images
    for array, datatype in ((images, "UINT8"), (images.astype(np.float32) / 255, "FP32")):
        found = triton.infer("blue-caps", tensor(array, datatype, binary=binary), headers=dict(key))
        assert found.as_numpy("probabilities") == pytest.approx(expected, abs=1e-6)


def test_an_image_that_cannot_be_decoded_is_its_own_error(triton, key, pictures):
    found = triton.infer(
        "red-caps", files(b"no image", pictures["red-caps/dark"]), headers=dict(key)
    )
    assert [one.decode() for one in found.as_numpy("label")] == ["", "dark"]
    error, fine = found.as_numpy("error")
    assert (b"image" in error, fine) == (True, b"")
    assert found.as_numpy("probability")[0] == 0


@pytest.mark.parametrize(
    ("task", "images", "sentence"),
    [("hats", [b"a"], "no task"), ("red-caps", [b"no image"], "not an image")],
)
def test_errors_reach_the_client_as_sentences(triton, key, task, images, sentence):
    with pytest.raises(InferenceServerException, match=sentence):
        triton.infer(task, files(*images), headers=dict(key))


def test_without_a_key_the_client_is_told_so(triton, pictures):
    with pytest.raises(InferenceServerException, match="no API key"):
        triton.infer("red-caps", files(pictures["red-caps/dark"]))


def test_a_compressed_request_is_refused(triton, key, pictures):
    with pytest.raises(InferenceServerException, match="compressed"):
        triton.infer(
            "red-caps",
            files(pictures["red-caps/dark"]),
            headers=dict(key),
            request_compression_algorithm="gzip",
        )
