"""How pages are made: what comes from outside is escaped, and what is missing is an error."""

from __future__ import annotations

import base64

import jinja2
import pytest

from clr.pages import picture, templates


def test_a_page_escapes_and_knows_its_filters() -> None:
    pages = templates("clr.serving", loud=str.upper)
    assert pages.from_string("<b>{{ name|loud }}</b>").render(name="<i>") == "<b>&lt;I&gt;</b>"
    assert "trial.html" in pages.list_templates()


def test_a_name_that_the_page_was_not_given_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="verdict"):
        templates("clr.serving").from_string("{{ verdict }}").render()


def test_a_picture_is_held_by_the_page() -> None:
    kind, data = picture(b"\x89PNG\xff").split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == b"\x89PNG\xff"
