"""What OpenAPI says about the bodies of requests, with examples: they are read by our own code."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from clr.core.depth import FORMATS
from clr.serving.inputs import (
    BASE64,
    FORM,
    JSON,
    FeedbackRequest,
    Instance,
    PredictRequest,
)
from clr.serving.openinference import InferRequest

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
)
"""The smallest PNG: one white pixel."""

MODELS: tuple[type[BaseModel], ...] = (PredictRequest, FeedbackRequest, InferRequest)

_TASK = Instance.model_json_schema()["properties"]["task"]["anyOf"][0]
_UNIT = Instance.model_json_schema()["properties"]["unit"]["anyOf"][0]
_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["files"],
    "additionalProperties": False,
    "properties": {
        "files": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "format": "binary"},
            "description": f"Image files: {', '.join(FORMATS)}.",
        },
        "task": {
            "type": "array",
            "items": _TASK,
            "description": "One for all files, or one for each in their order. Absent: the "
            "router finds the task of each.",
        },
        "unit": {
            "type": "array",
            "items": _UNIT,
            "description": "What an A/B test keeps in one arm: a serial number, say. As task.",
        },
    },
}


def components() -> dict[str, Any]:
    """Return the schemas of all bodies, by name."""
    made: dict[str, Any] = {}
    for model in MODELS:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        made |= schema.pop("$defs", {})
        made[model.__name__] = schema
    made["Instance"]["properties"]["image"] |= {"pattern": BASE64, "contentEncoding": "base64"}
    return made


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


def _json(model: type[BaseModel], **examples: Any) -> dict[str, Any]:
    named = {name.replace("_", " "): {"value": value} for name, value in examples.items()}
    return {
        "schema": {"$ref": f"#/components/schemas/{model.__name__}"},
        "examples": named,
    }


PREDICT = _body(
    {
        FORM: {"schema": _FORM},
        JSON: _json(
            PredictRequest,
            the_router_finds_the_task={"instances": [{"image": PIXEL}]},
            a_task_is_named={
                "instances": [
                    {"image": PIXEL, "task": "animals", "unit": "SN-0017", "name": "cam1.png"}
                ]
            },
        ),
    }
)

FEEDBACK = _body(
    {
        JSON: _json(
            FeedbackRequest,
            an_inspector_saw_it={
                "request_id": "0f8fad5bd9cb469fa16570867728950e",
                "label": "dog",
            },
        )
    }
)

_PIXELS = {"name": "pixels", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [0] * 12}
INFER = _body(
    {
        JSON: _json(
            InferRequest,
            an_image_file={
                "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [PIXEL]}]
            },
            decoded_pixels={"inputs": [_PIXELS], "outputs": [{"name": "label"}]},
        )
    }
)
