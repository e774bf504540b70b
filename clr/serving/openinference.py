"""Open Inference Protocol v2: what comes in, tensors in JSON or binary (pure).

Source: https://github.com/kserve/open-inference-protocol, and for binary tensors Triton's
"Binary Tensor Data Extension", which its clients use by default.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, Field

from clr.serving.errors import Problem
from clr.serving.inputs import TEXT, Strict, Unit, decode_base64, invalid, parse, read_json
from clr.serving.multipart import too_many
from clr.serving.values import Item

HEADER = "Inference-Header-Content-Length"
IMAGE = "image"
"""Name of the input in a model's metadata; requests may use any."""

OUTPUTS: Mapping[str, tuple[str, list[int]]] = {
    "label": ("BYTES", [-1]),
    "probability": ("FP32", [-1]),
    "probabilities": ("FP32", [-1, -1]),
    "labels": ("BYTES", [-1]),
    "unknown": ("BOOL", [-1]),
    "arm": ("BYTES", [-1]),
    "adapter": ("BYTES", [-1]),
    "request_id": ("BYTES", [-1]),
    "error": ("BYTES", [-1]),
}
"""{name: (datatype, shape)}; -1 is the number of images, or of labels."""

_SIZES = {"UINT8": 1, "FP32": 4}
Parameters = Annotated[
    dict[str, bool | int | float | str], BeforeValidator(lambda told: {} if told is None else told)
]
"""Clients that write all fields of their own classes send null for none."""

Name = Annotated[str, Field(pattern=TEXT, min_length=1, max_length=256)]


class InferInput(Strict):
    """One tensor."""

    name: Name
    shape: Annotated[list[Annotated[int, Field(ge=1, le=2**31)]], Field(min_length=1, max_length=4)]
    datatype: Literal["BYTES", "UINT8", "FP32"]
    parameters: Parameters = Field({})
    data: list[Any] | None = None


class InferOutput(Strict):
    """A tensor that is asked for."""

    name: Name
    parameters: Parameters = Field({})


class InferRequest(Strict):
    """The JSON of a request."""

    id: Annotated[str, Field(pattern=TEXT, max_length=256)] | None = None
    model_name: Name | None = Field(None, description="As KServe's client says it once more.")
    parameters: Parameters = Field({})
    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[InferOutput] | None, Field(max_length=len(OUTPUTS))] = None


class _Unit(BaseModel):
    unit: Unit | None = None


@dataclass(frozen=True)
class Limits:
    """What one request may hold.

    Attributes:
        images: number of images.
        pixels: of one image.
    """

    images: int
    pixels: int


def read_request(
    body: bytes, header: str | None, task: str, limits: Limits, version: int | None = None
) -> tuple[InferRequest, list[Item]]:
    """Return a request, without its data, and its images.

    Args:
        body: JSON, then perhaps binary data.
        header: of `HEADER`: length of the JSON; None: all of it is JSON.
        task: that the address names.
        limits: of one request.
        version: that the address names, too.

    Raises:
        Problem: it cannot be read, or says something impossible.
    """
    text, binary = _split(body, header)
    request = parse(InferRequest, read_json(text))
    if request.model_name not in (None, task):
        raise invalid("model_name", f"The address names {task}.")
    _check_outputs(request)
    unit = parse(_Unit, {"unit": request.parameters.get("unit")}).unit
    tensor = request.inputs[0]
    if tensor.shape[0] > limits.images:
        raise too_many(limits.images)
    raw = _binary(tensor, binary)
    images = _encoded(tensor, raw) if tensor.datatype == "BYTES" else _pixels(tensor, raw, limits)
    tensor.data = None  # it takes many times the room of the images
    return request, [Item(str(at), data, task, unit, version) for at, data in enumerate(images)]


def _split(body: bytes, header: str | None) -> tuple[bytes, bytes]:
    if header is None:
        return body, b""
    length = int(header) if header.isascii() and header.isdigit() and len(header) < 12 else -1
    if not 0 <= length <= len(body):
        raise Problem("malformed", f"The header {HEADER} is no length within the body.")
    return body[:length], body[length:]


def _check_outputs(request: InferRequest) -> None:
    for at, one in enumerate(request.outputs or ()):
        if one.name not in OUTPUTS:
            raise invalid(f"outputs.{at}.name", f"There is none such; see {', '.join(OUTPUTS)}.")
        if "classification" in one.parameters:
            raise invalid(f"outputs.{at}", "Classification is not offered; see probabilities.")


def _binary(tensor: InferInput, binary: bytes) -> bytes | None:
    """Return the binary data of the one tensor; None where its data is in the JSON."""
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        if binary:
            raise invalid("inputs.0", "Binary data follows, but it has no binary_data_size.")
        if tensor.data is None:
            raise invalid("inputs.0", "It has neither data nor binary_data_size.")
        return None
    if tensor.data is not None:
        raise invalid("inputs.0", "It has both data and binary_data_size.")
    if isinstance(size, bool) or size != len(binary):
        raise invalid("inputs.0", f"{len(binary)} bytes of binary data follow, not {size}.")
    return binary


def _encoded(tensor: InferInput, raw: bytes | None) -> list[bytes]:
    """Return image files: binary each after its length, in JSON as base64."""
    count = math.prod(tensor.shape)
    if count != tensor.shape[0]:
        raise invalid("inputs.0.shape", "BYTES have the shape [N] or [N, 1]: one image file each.")
    if raw is not None:
        found = _with_lengths(raw)
    else:
        texts = [
            one[0] if isinstance(one, list) and len(one) == 1 else one for one in _data(tensor)
        ]
        if not all(isinstance(one, str) for one in texts):
            raise invalid("inputs.0.data", "BYTES are texts of base64.")
        found = [decode_base64(one, f"inputs.0.data.{at}") for at, one in enumerate(texts)]
    if len(found) != count:
        raise invalid("inputs.0", f"There are {len(found)} images, not {count} as its shape says.")
    return found


def _data(tensor: InferInput) -> list[Any]:
    assert tensor.data is not None
    return tensor.data


def _with_lengths(raw: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise invalid("inputs.0", "Its binary data ends within a length.")
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if length == 0 or at + length > len(raw):
            raise invalid("inputs.0", f"A length of its binary data is wrong: {length}.")
        found.append(raw[at : at + length])
        at += length
    return found


def _pixels(tensor: InferInput, raw: bytes | None, limits: Limits) -> list[bytes]:
    """Return decoded images as files again (PPM, 8 bits), so that all go the same way."""
    height, width, first = _layout(tensor.shape)
    if height * width > limits.pixels:
        raise Problem("too-large", f"An image may have {limits.pixels:,} pixels.")
    array = _bytes_of(_array(tensor, raw), tensor.datatype)
    if first:
        array = array.transpose(0, 2, 3, 1)
    head = f"P6 {width} {height} 255\n".encode()
    return [head + one.tobytes() for one in array]


def _layout(shape: Sequence[int]) -> tuple[int, int, bool]:
    """Return height, width, and whether the channels come before them."""
    if len(shape) == 4 and (shape[1] == 3) != (shape[3] == 3):
        first = shape[1] == 3
        return (shape[2], shape[3], True) if first else (shape[1], shape[2], False)
    raise invalid(
        "inputs.0.shape", "Pixels have the shape [N, 3, height, width] or [N, height, width, 3]."
    )


def _array(tensor: InferInput, raw: bytes | None) -> NDArray[Any]:
    count = math.prod(tensor.shape)
    if raw is not None:
        if len(raw) != count * _SIZES[tensor.datatype]:
            raise invalid("inputs.0", f"{len(raw)} bytes are not what its shape and type need.")
        dtype = "<f4" if tensor.datatype == "FP32" else "u1"
        return np.frombuffer(raw, dtype).reshape(tensor.shape)
    try:
        array = np.asarray(_data(tensor))
    except (ValueError, OverflowError) as error:
        raise invalid("inputs.0.data", "It is no regular tensor of numbers.") from error
    if array.dtype.kind not in "iuf" or array.size != count:
        raise invalid("inputs.0.data", f"It is not {count} numbers, as its shape says.")
    if array.ndim not in (1, len(tensor.shape)):
        raise invalid("inputs.0.data", "It is neither flat nor nested as its shape.")
    return array.reshape(tensor.shape)


def _bytes_of(array: NDArray[Any], datatype: str) -> NDArray[np.uint8]:
    most = 255 if datatype == "UINT8" else 1
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= most):
        raise invalid("inputs.0.data", f"{datatype} pixels are numbers from 0 to {most}.")
    if datatype == "FP32":
        return np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    if array.dtype.kind == "f" and (array != np.rint(array)).any():
        raise invalid("inputs.0.data", "UINT8 pixels are whole numbers.")
    return array.astype(np.uint8)
