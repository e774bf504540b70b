"""The JSON that the prediction server answers with, as OpenAPI describes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, Field

from clr.serving.errors import KINDS, MEDIA_TYPE, sentence
from clr.serving.inputs import JSON
from clr.serving.values import Answer, Arm, Code, Failed, How


class Prediction(BaseModel):
    """What an image was found to be, and by what."""

    file: str = Field(description="As the caller named it.")
    request_id: str = Field(description="Of this image; feedback and audits ask for it.")
    task: str
    routed: bool = Field(description="Whether the task was found rather than named.")
    how: How = Field(description="Who chose the task: the caller, nobody (only one), the router.")
    label: str
    probability: float = Field(ge=0, le=1)
    probabilities: dict[str, float] = Field(description="Of every class.")
    adapter: str = Field(description="Digest of the adapter's file.")
    version: int = Field(description="Of the adapter, in the registry.")
    arm: Arm = Field(description="Which one of an A/B test answered.")
    doubtful: str = Field(description="Why the choice of the task is doubtful; empty: it is not.")
    unknown: bool = Field(description="The image looks like none of the tasks.")


class Failure(BaseModel):
    """Why an image has no answer; the others of the request are answered."""

    file: str
    request_id: str
    error: str
    code: Code


class Predictions(BaseModel):
    """The answer to a request, in the order of its images."""

    release: int
    release_digest: str
    predictions: list[Prediction | Failure]


class Labelled(BaseModel):
    """A label that was written down."""

    request_id: str
    task: str
    predicted: str
    label: str
    first: bool = Field(description="Nobody had said so before.")


class Task(BaseModel):
    """A task of the release in force."""

    name: str
    version: int
    adapter: str
    labels: list[str]
    image_size: int = Field(description="Side in pixels to which images are brought.")
    backbone: str
    served: bool


class Tasks(BaseModel):
    """All tasks that the caller's key is for."""

    release: int
    release_digest: str
    tasks: list[Task]


class Status(BaseModel):
    """What the server can do now."""

    status: Literal["ok", "degraded", "starting", "stopping"]
    ready: bool
    release: int
    release_digest: str
    tasks: list[str]
    refused: dict[str, str] = Field(description="Why each other task is not served.")
    problems: list[str] = Field(description="What else is not as it should be.")


class ProblemDocument(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description="Where this kind of problem is explained.")
    title: str
    status: int
    detail: str
    fix: str = Field(description="What to do about it.")
    code: str
    error: str = Field(description="detail, for clients of the Open Inference Protocol.")
    errors: list[dict[str, str]] | None = Field(None, description="Each field that is wrong.")
    instance: str | None = Field(None, description="Under which the server's log has it.")


def prediction(one: Answer | Failed) -> dict[str, Any]:
    """Return an answer as it is sent."""
    if isinstance(one, Failed):
        return asdict(one) | {"error": sentence(one)}
    told = {name: getattr(one, name) for name in Prediction.model_fields if name != "routed"}
    return told | {"routed": one.how != "named", "probabilities": dict(one.probabilities)}


def release_of(answers: Sequence[Answer | Failed]) -> tuple[int, str] | None:
    """Return number and digest of the release that answered; None: no image has an answer."""
    for one in answers:
        if isinstance(one, Answer):
            return one.release, one.release_digest
    return None


def answered(description: str, example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says about a good answer."""
    return {200: {"description": description, "content": {JSON: {"example": example}}}}


_DIGEST = "sha256:10abda8538417c71e039d0d4c3c2c7a920e54c4c0e07f5222e9c27a1525cbbf0"
_NAMED = {
    "file": "cam1.png",
    "request_id": "0f8fad5bd9cb469fa16570867728950e",
    "task": "animals",
    "routed": False,
    "how": "named",
    "label": "cat",
    "probability": 0.98,
    "probabilities": {"cat": 0.98, "dog": 0.02},
    "adapter": _DIGEST,
    "version": 1,
    "arm": "champion",
    "doubtful": "",
    "unknown": False,
}
_UNREADABLE = {
    "file": "cam2.png",
    "request_id": "7c9e6679742540de944be07fc1f90ae7",
    "error": "The file is not an image of a known format.",
    "code": "unreadable",
}
LABELLED = answered(
    "An answer for each image.",
    {"release": 3, "release_digest": _DIGEST, "predictions": [_NAMED, _UNREADABLE]},
)
TOLD = answered(
    "It is written down.",
    {
        "request_id": _NAMED["request_id"],
        "task": "animals",
        "predicted": "cat",
        "label": "dog",
        "first": True,
    },
)

KEY = (401, 403, 429)
BODY = (400, 408, 413, 415, 422)
"""What calls with a key, and with a body, may be refused with."""


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says about answers with these statuses, and about failures of ours."""
    return {status: _refusal(status) for status in sorted({*statuses, 500})}


def _refusal(status: int) -> dict[str, Any]:
    kinds = [code for code, kind in KINDS.items() if kind.status == status]
    made: dict[str, Any] = {
        "description": "; ".join(f"`{code}`: {KINDS[code].title}" for code in kinds),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
    if status in (429, 503):
        wait = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
        made["headers"] = {"Retry-After": wait}
    return made
