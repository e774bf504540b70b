"""``GET /dashboard``: pages for people, behind a key with the scope ``metrics``.

A browser asks for a password, which is the key (clr/serving/errors.py); on this machine without
keys it asks for none.
"""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from clr.serving.dashboard.facts import Facts, Reader
from clr.serving.dashboard.page import overview, policy, task_page
from clr.serving.errors import Problem, shown
from clr.serving.keys import Key
from clr.serving.service import Served, needs, refuse_task

router = APIRouter(include_in_schema=False)
Reading = Annotated[Key, Depends(needs("metrics"))]


@router.get("/dashboard")
async def dashboard(request: Request, key: Reading, served: Served) -> HTMLResponse:
    """Show every task that the key is for."""
    facts = await _facts(request)
    return _answer(overview(facts, served.engine.health(), key.tasks))


@router.get("/dashboard/{task}")
async def one_task(request: Request, task: str, key: Reading, served: Served) -> HTMLResponse:
    """Show one task."""
    refuse_task(key, task)
    facts = await _facts(request)
    if task not in facts.tasks:
        raise Problem("unknown-task", f"There is no task {shown(task)}.")
    return _answer(task_page(facts, served.engine.health(), facts.tasks[task], key.tasks))


async def _facts(request: Request) -> Facts:
    reader: Reader = request.app.state.dashboard
    return await to_thread.run_sync(reader.facts, limiter=reader.alone)


def _answer(page: str) -> HTMLResponse:
    return HTMLResponse(page, headers={"Content-Security-Policy": policy()})
