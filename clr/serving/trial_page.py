"""A trial as one page for a person: all is on it, nothing is loaded, no scripts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from clr.gate.style import CSS
from clr.markdown import percent
from clr.pages import picture, templates

if TYPE_CHECKING:
    from jinja2 import Environment

_LOOK = {"better": "pass", "harm": "fail", "futile": "inconclusive", "undecided": "inconclusive"}
ADVICE = {
    "better": "Recommended: review the challenger. An approval makes it the champion.",
    "harm": "Recommended: keep the champion, and reject the challenger.",
    "futile": "Recommended: keep the champion; a longer trial would not show a worthwhile gain.",
    "undecided": "No recommendation: the answers with labels so far allow both.",
}
"""What follows from each verdict of clr/gate/sequential.py; the review stays a person's."""


def render(told: Mapping[str, Any], drawn: bytes) -> str:
    """Return the page of a trial, complete in one file.

    Args:
        told: as ``trial.json``: what `flows.trial.about` says, outcome, ended and figures.
        drawn: PNG of the confidence sequence.
    """
    verdict = told["figures"]["gain"]["verdict"]
    return (
        _templates()
        .get_template("trial.html")
        .render(
            **told,
            css=CSS,
            look=_LOOK[verdict],
            advice=ADVICE[verdict],
            picture=picture(drawn),
        )
    )


@cache
def _templates() -> Environment:
    return templates("clr.serving", percent=percent, points=_points, capital=_capital)


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _capital(value: float) -> str:
    return f"{value:,.1f}" if value < 1e6 else f"{value:.1e}"
