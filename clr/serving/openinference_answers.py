"""Open Inference Protocol v2: what goes out, tensors in JSON or binary (pure)."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from clr.serving.errors import sentence
from clr.serving.openinference import OUTPUTS, InferOutput, InferRequest
from clr.serving.values import Answer, Failed


def write_response(
    request: InferRequest, task: str, answers: Sequence[Answer | Failed]
) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON if binary data follows.

    Args:
        request: says which tensors are wanted, and how.
        task: that answered.
        answers: in the order of the images, at least one of them no `Failed`.
    """
    values = _values(answers)
    anyhow = request.parameters.get("binary_data_output") is True
    wanted = request.outputs or [InferOutput(name=name) for name in OUTPUTS]
    outputs, parts = [], []
    for one in wanted:
        datatype, value = OUTPUTS[one.name][0], values[one.name]
        made: dict[str, Any] = {"name": one.name, "datatype": datatype, "shape": _shape(value)}
        if one.parameters.get("binary_data", anyhow) is True:
            parts.append(_binary_of(value, datatype))
            made["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            made["data"] = _flat(value)
        outputs.append(made)
    first = next(one for one in answers if isinstance(one, Answer))
    document = {
        "model_name": task,
        "model_version": str(first.version),
        **({"id": request.id} if request.id is not None else {}),
        "parameters": {
            "release": first.release,
            "release_digest": first.release_digest,
            "how": first.how,
        },
        "outputs": outputs,
    }
    text = json.dumps(document, allow_nan=False).encode()
    return text + b"".join(parts), len(text) if parts else None


def _values(answers: Sequence[Answer | Failed]) -> dict[str, list[Any]]:
    given = [one.probabilities for one in answers if isinstance(one, Answer)]
    labels = list(dict.fromkeys(label for one in given for label in one))  # a trial's arms differ
    rows = [_row(one, labels) for one in answers]
    return {**{name: [row[name] for row in rows] for name in rows[0]}, "labels": labels}


def _row(one: Answer | Failed, labels: Sequence[str]) -> dict[str, Any]:
    if isinstance(one, Failed):
        nothing = {"label": "", "probability": 0.0, "probabilities": [0.0] * len(labels)}
        nothing |= {"unknown": False, "arm": "", "adapter": ""}
        return {**nothing, "request_id": one.request_id, "error": sentence(one)}
    return {
        "label": one.label,
        "probability": one.probability,
        "probabilities": [one.probabilities.get(label, 0.0) for label in labels],
        "unknown": one.unknown,
        "arm": one.arm,
        "adapter": one.adapter,
        "request_id": one.request_id,
        "error": "",
    }


def _shape(value: list[Any]) -> list[int]:
    return [len(value), *([len(value[0])] if isinstance(value[0], list) else [])]


def _flat(value: list[Any]) -> list[Any]:
    return [x for row in value for x in row] if isinstance(value[0], list) else value


def _binary_of(value: list[Any], datatype: str) -> bytes:
    if datatype == "BYTES":
        texts = [one.encode() for one in value]
        return b"".join(struct.pack("<I", len(one)) + one for one in texts)
    return np.asarray(value, "<f4" if datatype == "FP32" else "?").tobytes()
