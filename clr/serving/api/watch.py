"""``GET /health`` and ``GET /metrics``: for whoever keeps the prediction server running."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from clr.serving.api.answers import KEY, Status, refusals
from clr.serving.errors import Problem
from clr.serving.keys import Key
from clr.serving.observing import MEDIA_TYPE
from clr.serving.service import Served, Service, needs

router = APIRouter(tags=["watch"])


@router.get("/health", summary="See how the server is", response_model=Status)
async def health(request: Request, response: Response, served: Served) -> dict[str, Any]:
    """Say what is served and what is not; needs no key.

    Why a task is not served is told in full to keys with the scope `metrics`, since it may name
    files of the server. The status is 503 while nothing can be answered.
    """
    now = served.engine.health()
    trusted = _may_see(served, request)
    others = {
        "Images without a task cannot be answered": now.routing,
        "The registry cannot be asked": now.registry,
        "Answers cannot be written down": now.journal,
        "The release was loaded from local copies": "" if not now.cached else "see the log",
    }
    told = [f"{what}: {why}" if trusted else f"{what}." for what, why in others.items() if why]
    response.status_code = 200 if now.ready else 503
    degraded = "ok" if now.ready and not (told or now.refused) else "degraded"
    return {
        "status": degraded if now.state == "serving" else now.state,
        "ready": now.ready,
        "release": now.release,
        "release_digest": now.release_digest,
        "tasks": list(now.tasks),
        "refused": {task: why if trusted else _HIDDEN for task, why in now.refused.items()},
        "problems": told,
    }


_HIDDEN = "Its adapter could not be loaded and verified."


def _may_see(served: Service, request: Request) -> bool:
    try:
        return served.known(request).may("metrics")
    except Problem:
        return False


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(*KEY)},
)
async def metrics(key: Annotated[Key, Depends(needs("metrics"))], served: Served) -> Response:
    """Return counters and gauges in Prometheus' text format."""
    return Response(await run_in_threadpool(served.observed.text), media_type=MEDIA_TYPE)
