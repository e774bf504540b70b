"""Bad requests, and what each has to get."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from clr.serving.errors import KINDS

FORM = {"Content-Type": "multipart/form-data; boundary=B"}
AS_JSON = {"Content-Type": "application/json"}
AS_BYTES = {"Content-Type": "application/octet-stream"}
PREDICT, FEEDBACK = "/v1/predict", "/v1/feedback"
INFER = "/v2/models/red-caps/infer"


@dataclass(frozen=True)
class Bad:
    """A request and what it has to get."""

    name: str
    status: int
    code: str
    path: str = PREDICT
    method: str = "POST"
    headers: Any = None
    data: Any = None
    key: str | None = None


def part(data: bytes, name: str = "files", filename: str | None = "a.png") -> bytes:
    file = b"" if filename is None else f'; filename="{filename}"'.encode()
    head = f'Content-Disposition: form-data; name="{name}"'.encode() + file
    return b"--B\r\n" + head + b"\r\n\r\n" + data + b"\r\n"


END = b"--B--\r\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def form(name: str, status: int, code: str, body: bytes, **more: Any) -> Bad:
    return Bad(name, status, code, headers=FORM, data=body, **more)


def said(name: str, status: int, code: str, value: Any, path: str = PREDICT) -> Bad:
    data = value if isinstance(value, (bytes, str)) else json.dumps(value)
    return Bad(name, status, code, path=path, headers=AS_JSON, data=data)


def instances(**fields: Any) -> dict[str, Any]:
    return {"instances": [{"image": base64.b64encode(png(1, 1)).decode(), **fields}]}


def tensor(**fields: Any) -> dict[str, Any]:
    return {
        "inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["AAAA"], **fields}]
    }


def binary(name: str, head: Any, tail: bytes, length: object = None, code: str = "invalid") -> Bad:
    text = json.dumps(head).encode()
    headers = {
        **AS_BYTES,
        "Inference-Header-Content-Length": str(len(text) if length is None else length),
    }
    status = KINDS[code].status
    return Bad(name, status, code, path=INFER, headers=headers, data=text + tail)


def sized(size: object, **fields: Any) -> dict[str, Any]:
    made = tensor(parameters={"binary_data_size": size}, **fields)
    del made["inputs"][0]["data"]
    return made


def pixels(shape: list[int], data: Any, datatype: str = "UINT8") -> dict[str, Any]:
    return tensor(shape=shape, datatype=datatype, data=data)


FORMS = (
    form("no boundary in the body", 400, "malformed", b"hello"),
    form("an empty form", 400, "malformed", b""),
    form("only the last boundary", 422, "invalid", END),
    form("cut off within a file", 400, "malformed", part(png(1, 1))[:-20]),
    form("cut off between two files", 400, "malformed", part(b"a") + part(b"b")),
    form("another boundary", 400, "malformed", part(b"a").replace(b"--B", b"--C") + END),
    form("a part without a name", 400, "malformed",
         b"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END),
    form("a part without headers", 400, "malformed", b"--B\r\n\r\nx\r\n" + END),
    form("a header without an end", 400, "malformed",
         b"--B\r\nContent-Disposition: " + b"a" * 5000),
    form("many headers in a part", 400, "malformed",
         b"--B\r\n" + b"X-A: b\r\n" * 100 + b"\r\nx\r\n" + END),
    form("a part that says twice what it is", 400, "malformed",
         b'--B\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n'
         b'Content-Disposition: form-data; name="task"\r\n\r\nx\r\n' + END),
    form("a file name that is not UTF-8", 400, "malformed",
         part(b"x").replace(b"a.png", b"\xff\xfe") + END),
    form("a file name with control characters", 422, "invalid",
         part(b"x", filename="a\x1b[2Jb") + END),
    form("a file name that is endless", 422, "invalid", part(b"x", filename="a" * 1000) + END),
    form("no file", 422, "invalid", part(b"red-caps", "task", None) + END),
    form("a field that is not there", 422, "invalid", part(b"x") + part(b"x", "image") + END),
    form("files that are no files", 422, "invalid", part(b"x", "files", None) + END),
    form("a task that is a file", 422, "invalid", part(b"x") + part(b"red-caps", "task") + END),
    form("a task that is a path", 422, "invalid",
         part(b"x") + part(b"../../etc/passwd", "task", None) + END),
    form("a task that is not UTF-8", 400, "malformed",
         part(b"x") + part(b"\xff\xff", "task", None) + END),
    form("two tasks for one file", 422, "invalid",
         part(b"x") + part(b"red-caps", "task", None) * 2 + END),
    form("a field of a megabyte", 413, "too-large",
         part(b"x") + part(b"a" * 1_000_000, "task", None) + END),
    form("a unit that would forge a line of the log", 422, "invalid",
         part(b"x") + part(b"SN\r\nERROR all is lost", "unit", None) + END),
    form("an unknown task", 404, "unknown-task",
         part(png(1, 1)) + part(b"hats", "task", None) + END),
    form("too many files", 413, "too-large", part(b"x") * 65 + END),
    form("thousands of fields", 413, "too-large",
         part(b"x") + part(b"red-caps", "task", None) * 3000 + END),
    Bad("no boundary in the header", 400, "malformed", data=part(b"x") + END,
        headers={"Content-Type": "multipart/form-data"}),
    Bad("a boundary that is too long", 400, "malformed", data=part(b"x") + END,
        headers={"Content-Type": "multipart/form-data; boundary=" + "B" * 1000}),
)  # fmt: skip

TEXTS = (
    said("no JSON", 400, "malformed", "{"),
    said("nothing", 400, "malformed", ""),
    said("JSON that is not UTF-8", 400, "malformed", b'{"instances": "\xff"}'),
    said("JSON in UTF-16", 400, "malformed", json.dumps(instances()).encode("utf-16")),
    said("deep JSON", 400, "malformed", "[" * 100_000 + "]" * 100_000),
    said("deep JSON in a field", 422, "invalid", {"instances": json.loads("[" * 90 + "]" * 90)}),
    said("NaN", 400, "malformed", '{"instances": NaN}'),
    said("Infinity", 400, "malformed", '{"instances": [{"image": -Infinity}]}'),
    said("a number of thousands of digits", 400, "malformed",
         '{"instances": ' + "9" * 10_000 + "}"),
    said("a name twice", 400, "malformed", '{"instances": [], "instances": []}'),
    said("not an object", 422, "invalid", [1]),
    said("null", 422, "invalid", "null"),
    said("no instances", 422, "invalid", {}),
    said("empty instances", 422, "invalid", {"instances": []}),
    said("instances that are a text", 422, "invalid", {"instances": "aaaa"}),
    said("a field that is not there", 422, "invalid", instances(label="x")),
    said("base64 that is not", 422, "invalid", instances(image="%%%%")),
    said("base64 of a web page", 422, "invalid", instances(image="data:image/png;base64,AAAA")),
    said("base64 cut off", 422, "invalid", instances(image="AAAAA")),
    said("an empty image", 422, "invalid", instances(image="")),
    said("an image that is a number", 422, "invalid", instances(image=1)),
    said("a task that is a list", 422, "invalid", instances(task=["red-caps"])),
    said("a name with a lone surrogate", 422, "invalid",
         '{"instances": [{"image": "AAAA", "name": "\\ud800"}]}'),
    said("a unit with a null byte", 422, "invalid", instances(unit="a\x00b")),
    said("too many instances", 413, "too-large", {"instances": instances()["instances"] * 65}),
    said("an unknown task", 404, "unknown-task", instances(task="hats")),
    said("feedback without a label", 422, "invalid", {"request_id": "a"}, FEEDBACK),
    said("feedback to nothing", 404, "unknown-request",
         {"request_id": "0" * 32, "label": "dark"}, FEEDBACK),
    said("feedback to a path", 422, "invalid",
         {"request_id": "../../journal.db", "label": "dark"}, FEEDBACK),
    said("feedback of SQL", 422, "invalid",
         {"request_id": "' OR 1=1 --", "label": "dark"}, FEEDBACK),
)  # fmt: skip

TENSORS = (
    said("no inputs", 422, "invalid", {"inputs": []}, INFER),
    said("two inputs", 422, "invalid", {"inputs": tensor()["inputs"] * 2}, INFER),
    said("a type that is not there", 422, "invalid", tensor(datatype="FP64"), INFER),
    said("a shape of nothing", 422, "invalid", tensor(shape=[0]), INFER),
    said("a negative shape", 422, "invalid", tensor(shape=[-1]), INFER),
    said("a shape that is no number", 422, "invalid", tensor(shape=["1"]), INFER),
    said("a shape that overflows", 413, "too-large", pixels([1, 2**31, 2**31, 3], [0]), INFER),
    said("a shape beyond 64 bits", 422, "invalid", tensor(shape=[2**70]), INFER),
    said("more images than it may have", 413, "too-large", tensor(shape=[65]), INFER),
    said("fewer images than it says", 422, "invalid", tensor(shape=[2]), INFER),
    said("neither layout of pixels", 422, "invalid", pixels([1, 4, 2, 2], [0] * 16), INFER),
    said("both layouts of pixels", 422, "invalid", pixels([1, 3, 1, 3], [0] * 9), INFER),
    said("pixels that are ragged", 422, "invalid", pixels([1, 1, 2, 3], [[1], [2, 3]]), INFER),
    said("pixels that are texts", 422, "invalid", pixels([1, 1, 1, 3], ["a"] * 3), INFER),
    said("pixels out of range", 422, "invalid", pixels([1, 1, 1, 3], [0, 0, 256]), INFER),
    said("pixels that are not whole", 422, "invalid", pixels([1, 1, 1, 3], [0, 0, 0.5]), INFER),
    said("pixels that are infinite", 422, "invalid",
         json.dumps(pixels([1, 1, 1, 3], [0, 0, 1], "FP32")).replace("1]}]", "1e999]}]"), INFER),
    said("floats above one", 422, "invalid", pixels([1, 1, 1, 3], [0, 0, 1.5], "FP32"), INFER),
    said("an output that is not there", 422, "invalid",
         {**tensor(), "outputs": [{"name": "logits"}]}, INFER),
    said("an output as a classification", 422, "invalid",
         {**tensor(), "outputs": [{"name": "label", "parameters": {"classification": 3}}]}, INFER),
    said("a single image that is none", 422, "unreadable", tensor(), INFER),
    said("an image bomb", 422, "unreadable",
         tensor(data=[base64.b64encode(png(60_000, 60_000)).decode()]), INFER),
    binary("a length beyond the body", tensor(), b"", 10**6, "malformed"),
    binary("a length that is negative", tensor(), b"", -1, "malformed"),
    binary("a length that is no number", tensor(), b"", "ten", "malformed"),
    binary("a length that cuts the JSON", tensor(), b"", 5, "malformed"),
    binary("binary data that nothing asked for", tensor(), b"abcd"),
    binary("data and binary data", tensor(parameters={"binary_data_size": 4}), b"abcd"),
    binary("less binary data than said", sized(100), b"abcd"),
    binary("a size that is a text", sized("4"), b"abcd"),
    binary("a length within that is too long", sized(8), struct.pack("<I", 2**32 - 1) + b"abcd"),
    binary("a length within that is cut off", sized(2), b"ab"),
    binary("an empty image within", sized(4), struct.pack("<I", 0)),
    binary("floats of a wrong number of bytes",
           sized(5, shape=[1, 1, 1, 3], datatype="FP32"), b"abcde"),
    binary("floats that are not numbers",
           sized(12, shape=[1, 1, 1, 3], datatype="FP32"), struct.pack("<3f", 0, 1, float("nan"))),
)  # fmt: skip

OTHERS = (
    Bad("no content type", 415, "unsupported-media-type", data=b"x"),
    Bad("another content type", 415, "unsupported-media-type", data=b"x",
        headers={"Content-Type": "text/plain"}),
    Bad("another content type of tensors", 415, "unsupported-media-type", path=INFER, data=b"x",
        headers={"Content-Type": "text/plain"}),
    Bad("an image as the body", 415, "unsupported-media-type", data=png(1, 1),
        headers={"Content-Type": "image/png"}),
    Bad("a form for feedback", 415, "unsupported-media-type", path=FEEDBACK, headers=FORM,
        data=part(b"x") + END),
    Bad("a compressed body", 415, "unsupported-media-type", data=zlib.compress(b"0" * 10**7),
        headers={**AS_JSON, "Content-Encoding": "deflate"}),
    Bad("no key", 401, "key-missing", key=""),
    Bad("a wrong key", 401, "key-refused", key="clr_000000000000_" + "A" * 43),
    Bad("a key that is not ASCII", 401, "key-refused", key="schlüssel"),
    Bad("a key of another scheme", 401, "key-missing", key="",
        headers={"Authorization": "Digest x"}),
    Bad("an address that is not there", 404, "not-found", path="/v1/predictions"),
    Bad("a path that climbs", 404, "not-found", path="/v1/%2e%2e/%2e%2e/etc/passwd", method="GET"),
    Bad("an address with a slash behind", 404, "not-found", path="/v1/tasks/", method="GET"),
    Bad("an unknown model", 404, "unknown-task", path="/v2/models/hats", method="GET"),
    Bad("an unknown version", 404, "unknown-task", path="/v2/models/red-caps/versions/9",
        method="GET"),
    Bad("a model that is a path", 404, "not-found", path="/v2/models/..%2f..%2fetc", method="GET"),
    Bad("a wrong method", 405, "method-not-allowed", method="GET"),
    Bad("a method of somebody else", 405, "method-not-allowed", path="/v1/tasks", method="DELETE"),
    Bad("a method that nobody knows", 405, "method-not-allowed", path="/health", method="BREW"),
)  # fmt: skip

ALL = (*FORMS, *TEXTS, *TENSORS, *OTHERS)
