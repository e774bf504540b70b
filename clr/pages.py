"""How the pages for people are made: every page is one file, complete, and loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def templates(package: str, **filters: Callable[..., Any]) -> Environment:
    """Return what renders the templates of a package, which are in its folder ``templates``.

    What stands between braces is escaped, and a name that the page was not given is an error.

    Args:
        package: by its dotted name.
        filters: of these templates, by the name they have there.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= filters
    return found


def picture(png: bytes) -> str:
    """Return the bytes of a PNG as the address of an image that the page itself holds."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
