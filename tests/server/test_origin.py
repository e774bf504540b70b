"""Whose web page asks: the registry's own, another one, or no page at all."""

from __future__ import annotations

import pytest

from clr.registry.server.origin import foreign_page

HOST = {"Host": "127.0.0.1:5000"}


@pytest.mark.parametrize(
    "headers",
    [
        {},  # a program
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:5000"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://registry.example"},  # behind a proxy
        {"Sec-Fetch-Site": "none"},  # typed by the person
        {"Origin": "http://127.0.0.1:5000"},
    ],
)
def test_programs_and_the_registrys_own_page_are_heard(headers):
    assert foreign_page({**HOST, **headers}.items()) == ""


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:8888"},  # another port
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:5000"},
        {"Origin": "http://127.0.0.1:8888"},
        {"Origin": "http://localhost:5000"},
        {"Origin": "null"},  # a page in a sandbox, as MLflow shows an artifact
        {"Origin": "https://evil.example"},
    ],
)
def test_other_pages_are_told_that_they_cannot_act_for_their_reader(headers):
    assert "do it on the registry's own page" in foreign_page({**HOST, **headers}.items())
