"""The prediction server's app: the engine behind HTTP (docs/serving.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request

from clr.serving import errors
from clr.serving.api import bodies, pages, predict, v2, watch
from clr.serving.api.answers import ProblemDocument
from clr.serving.dashboard import routes as dashboard
from clr.serving.dashboard.facts import Reader
from clr.serving.outside import Outside
from clr.serving.service import Service

if TYPE_CHECKING:
    from clr.serving.engine import Engine
    from clr.settings import Settings

OPEN = frozenset({"/health", "/v2/health/live", "/v2/health/ready"})
"""What needs no key."""

_ABOUT = (
    "Labels images with the release in force: every task at once, each answer with the adapter "
    "that gave it. Send `Authorization: Bearer KEY`; `clr keys add NAME` makes a key."
)


def create_app(engine: Engine, settings: Settings) -> FastAPI:
    """Return the app.

    Args:
        engine: started by whoever runs the app, and closed by them.
        settings: limits, where the keys are, and whether there are any.

    Raises:
        ClrError: others than this machine could call it without a key, or the file of keys
            cannot be used.
    """
    served = Service(engine, settings)
    app = FastAPI(
        title="clr prediction server",
        version="1",
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(_mark)],
    )
    app.state.service, app.state.dashboard = served, Reader(settings)
    for module in (predict, v2, watch, pages, dashboard):
        app.include_router(module.router)
    errors.install(app)
    app.add_middleware(Outside, observed=served.observed)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


async def _mark(request: Request) -> None:  # async: else FastAPI asks a thread for it
    """Note the address as it is written in the code, for the metrics."""
    request.state.endpoint = request.scope["route"].path


def _described(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, made once."""
    if app.openapi_schema is None:
        from fastapi.openapi.utils import get_openapi

        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemas = made["components"]["schemas"]
        schemas |= bodies.components()
        schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
        made["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "An API key."}
        }
        for path, operations in made["paths"].items():
            for one in operations.values():
                one["security"] = [] if path in OPEN else [{"key": []}]
                one["responses"].pop("422" if "requestBody" not in one else "", None)
        app.openapi_schema = made
    return app.openapi_schema
