"""The Open Inference Protocol v2, so that clients of KServe and Triton work as they are."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath

from clr.serving.api import bodies
from clr.serving.api.answers import BODY, KEY, refusals
from clr.serving.api.tensors import Inferred, Live, Model, ModelReady, Ready, Server
from clr.serving.errors import Problem, later, none_read, shown
from clr.serving.inputs import BINARY, JSON
from clr.serving.keys import Key
from clr.serving.openinference import HEADER, IMAGE, OUTPUTS, Limits, read_request
from clr.serving.openinference_answers import write_response
from clr.serving.service import Predicting, Served, Service, refuse_task
from clr.serving.values import Failed, ServedTask

EXTENSIONS = ["binary_tensor_data"]
VERSION = "/versions/{version}"
_VERSION = re.compile(r"[1-9][0-9]{0,8}")

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
TaskPath = Annotated[str, InPath(description="Name of a task.")]


@router.get("/health/live", summary="Is the process alive?", response_model=Live)
async def live() -> dict[str, bool]:
    """Answer; needs no key."""
    return {"live": True}


@router.get(
    "/health/ready",
    summary="Can it answer predictions?",
    response_model=Ready,
    responses={503: {"model": Ready}},
)
async def ready(served: Served, response: Response) -> dict[str, bool]:
    """Answer with status 503 while nothing is loaded and while the server stops; needs no key."""
    now = served.engine.health().ready
    response.status_code = 200 if now else 503
    return {"ready": now}


@router.get("", summary="About the server", response_model=Server, responses=refusals(*KEY))
async def about(key: Predicting) -> dict[str, Any]:
    """Name the protocol's version; that of the software is nobody's business."""
    return {"name": "clr", "version": "2", "extensions": EXTENSIONS}


@router.get(f"/models/{{task}}{VERSION}", include_in_schema=False, response_model=Model)
@router.get(
    "/models/{task}",
    summary="About a task",
    response_model=Model,
    responses=refusals(*KEY, 404, 503),
)
async def model(task: TaskPath, request: Request, key: Predicting, served: Served) -> Any:
    """Name the tensors that go in and come out."""
    one = await _served(served, key, task, request)
    sizes = {"probabilities": [-1, len(one.labels)], "labels": [len(one.labels)]}
    return {
        "name": one.name,
        "versions": [str(one.version)],
        "platform": "clr",
        # one, as a request has; a client that reads this would send all that stand here
        "inputs": [{"name": IMAGE, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": sizes.get(name, shape)}
            for name, (datatype, shape) in OUTPUTS.items()
        ],
    }


@router.get(f"/models/{{task}}{VERSION}/ready", include_in_schema=False, response_model=ModelReady)
@router.get(
    "/models/{task}/ready",
    summary="Is a task served?",
    response_model=ModelReady,
    responses=refusals(*KEY, 404, 503),
)
async def model_ready(task: TaskPath, request: Request, key: Predicting, served: Served) -> Any:
    """Answer with status 503 where the task is in the release but cannot be served."""
    return {"name": (await _served(served, key, task, request)).name, "ready": True}


@router.post(f"/models/{{task}}{VERSION}/infer", include_in_schema=False)
@router.post(
    "/models/{task}/infer",
    summary="Label images with one task",
    response_model=Inferred,
    responses=refusals(*KEY, *BODY, 404, 503),
    openapi_extra=bodies.INFER,
)
async def infer(task: TaskPath, request: Request, key: Predicting, served: Served) -> Response:
    """Label a tensor of images: files (BYTES), or decoded pixels (UINT8 0 … 255, FP32 0 … 1, RGB).

    Pixels are taken as an 8-bit picture and scaled as files are. An image that cannot be decoded
    has an `error` and an empty `label`; where none can, the request is refused. Binary tensors
    follow the JSON, whose length is then in the header `Inference-Header-Content-Length`.
    """
    refuse_task(key, task)
    version = _version(request)
    settings = served.settings
    limits = Limits(settings.serve_images, settings.max_image_pixels)
    header = request.headers.get(HEADER)
    async with served.body(request, JSON, BINARY, "") as body:
        asked, items = await served.read(read_request, body, header, task, limits, version)
        answers = await served.predict(items, key)
    failed = [answer for answer in answers if isinstance(answer, Failed)]
    if len(failed) == len(answers):
        raise none_read(failed)
    text, length = write_response(asked, task, answers)
    headers = {"X-Request-Id": answers[0].request_id} if len(answers) == 1 else {}
    if length is None:
        return Response(text, headers=headers, media_type=JSON)
    return Response(text, headers={**headers, HEADER: str(length)}, media_type=BINARY)


async def _served(served: Service, key: Key, task: str, request: Request) -> ServedTask:
    refuse_task(key, task)
    version, found = _version(request), await served.engine.task(task)
    if found is None:
        raise Problem("unknown-task", f"There is no task {shown(task)}.")
    if version not in (None, found.version):
        raise Problem(
            "unknown-task",
            f"Version {version} of {task} is not served; version {found.version} is.",
        )
    if found.refused:
        raise later("unavailable-task", f"The task {task} is not served now.", 30)
    return found


def _version(request: Request) -> int | None:
    """Return the version in an address; None: it names none."""
    written: str | None = request.path_params.get("version")
    if written is None:
        return None
    if not _VERSION.fullmatch(written):
        raise Problem("unknown-task", f"{shown(written)} is no version of a task.")
    return int(written)
