"""``GET /docs``: the OpenAPI document as a page that loads nothing from elsewhere."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup, escape

from clr.gate.style import CSS
from clr.serving.errors import KINDS

if TYPE_CHECKING:
    from jinja2 import Template

router = APIRouter(include_in_schema=False)
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Show every address with examples, and every problem."""
    page = _page(request.app.openapi(), str(request.base_url).rstrip("/"))
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})


def _page(document: dict[str, Any], url: str) -> str:
    calls = [
        {"path": path, "method": method.upper(), **one}
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    ]
    return _template().render(document=document, calls=calls, kinds=KINDS, css=CSS, url=url)


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("clr.serving"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2)
    environment.filters["code"] = _code
    return environment.get_template("docs.html")


def _code(text: str) -> Markup:
    """Return text with what stands between backticks set as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts)
    )
