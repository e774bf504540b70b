"""A comparison as one page for a person, ``compare.html``: all is on it, nothing is loaded.

No scripts; names, titles and messages are escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from clr.compare import words
from clr.compare.plots import spent
from clr.gate.checks import percent, signed
from clr.gate.heatmap import accuracy_svg
from clr.gate.style import CSS
from clr.pages import picture, templates

if TYPE_CHECKING:
    from jinja2 import Environment

Document = Mapping[str, Any]
_WORDS = {"pass": ("✓", "Kept"), "fail": ("✕", "Forgotten"), "inconclusive": ("?", "Unproven")}


def render(document: Document, pictures: Mapping[str, bytes]) -> str:
    """Return the page of a comparison, complete in one file.

    Args:
        document: of schema ``clr.compare/1``.
        pictures: PNG by file name, see `clr.compare.plots.pictures`.
    """
    ranked = sorted(
        (one for one in document["methods"] if one["seeds"]),
        key=lambda one: -one["average"]["mean"],
    )
    return (
        _templates()
        .get_template("compare.html")
        .render(
            **document,
            css=CSS,
            badge=_badge,
            headline=words.headline(document),
            few=words.few_images(document),
            allowed=words.budget(document),
            ranked=ranked,
            shared_ones=[one for one in ranked if one["shared"]],
            heat=lambda matrix: Markup(accuracy_svg(matrix)),  # noqa: S704  # it escapes
            pictures={name: picture(data) for name, data in pictures.items()},
        )
    )


def _badge(verdict: str) -> Markup:
    sign, word = _WORDS[verdict]
    return Markup('<span class="badge {}"><i aria-hidden="true">{}</i>{}</span>').format(
        verdict, sign, word
    )


@cache
def _templates() -> Environment:
    return templates(
        "clr.compare",
        percent=percent,
        points=signed,
        interval=words.interval,
        gained=words.gained,
        size=words.size,
        number=words.number,
        seconds=words.seconds,
        retained=words.retained,
        spent=spent,
    )
