"""``POST /v1/predict``, ``POST /v1/feedback``, ``GET /v1/tasks``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from clr.serving.api import bodies
from clr.serving.api.answers import (
    BODY,
    KEY,
    LABELLED,
    TOLD,
    Labelled,
    Predictions,
    Tasks,
    prediction,
    refusals,
    release_of,
)
from clr.serving.errors import none_served
from clr.serving.inputs import FORM, JSON, FeedbackRequest, parse, read_items, read_json
from clr.serving.keys import Key
from clr.serving.service import Predicting, Served, Service, needs
from clr.serving.values import Failed

router = APIRouter(prefix="/v1")


@router.post(
    "/predict",
    tags=["predict"],
    summary="Label images",
    response_model=Predictions,
    responses=LABELLED | refusals(*KEY, *BODY, 404, 503),
    openapi_extra=bodies.PREDICT,
)
async def predict(request: Request, key: Predicting, served: Served) -> JSONResponse:
    """Label one or many images, of one or many tasks, in their order.

    Without `task` the router finds each image's task, and the answer says so. An image that
    cannot be decoded is an error beside the other answers. Where not one image has an answer
    because no such task is served, the request is refused.
    """
    async with served.body(request, FORM, JSON) as body:
        kind = request.headers["content-type"]
        items = await served.read(read_items, body, kind, served.settings.serve_images)
        answers = await served.predict(items, key)
    failed = [one for one in answers if isinstance(one, Failed)]
    problem = none_served(failed) if len(failed) == len(answers) else None
    if problem is not None:
        raise problem
    release, digest = release_of(answers) or _in_force(served)
    headers = {"X-Request-Id": answers[0].request_id} if len(answers) == 1 else None
    told = [prediction(one) for one in answers]
    return JSONResponse(
        {"release": release, "release_digest": digest, "predictions": told}, headers=headers
    )


def _in_force(served: Service) -> tuple[int, str]:
    now = served.engine.health()
    return now.release, now.release_digest


@router.post(
    "/feedback",
    tags=["feedback"],
    summary="Say what an image really was",
    response_model=Labelled,
    responses=TOLD | refusals(*KEY, *BODY, 404, 503),
    openapi_extra=bodies.FEEDBACK,
)
async def feedback(
    request: Request, key: Annotated[Key, Depends(needs("feedback"))], served: Served
) -> dict[str, Any]:
    """Write down the true class of an image that was answered before; it may come late."""
    async with served.body(request, JSON) as body:
        said = parse(FeedbackRequest, read_json(body))
    kept = await served.feedback(said.request_id, said.label, key)
    return {name: getattr(kept, name) for name in Labelled.model_fields}


@router.get(
    "/tasks",
    tags=["predict"],
    summary="List the tasks",
    response_model=Tasks,
    responses=refusals(*KEY, 503),
)
async def tasks(key: Predicting, served: Served) -> dict[str, Any]:
    """List the tasks of the release in force: version, adapter, classes."""
    now = served.engine.health()
    found = [
        {
            "name": one.name,
            "version": one.version,
            "adapter": one.adapter,
            "labels": list(one.labels),
            "image_size": one.image_size,
            "backbone": one.backbone.rpartition("/")[2],  # of a file its name alone
            "served": not one.refused,
        }
        for one in served.engine.tasks()
        if key.covers(one.name)
    ]
    return {"release": now.release, "release_digest": now.release_digest, "tasks": found}
