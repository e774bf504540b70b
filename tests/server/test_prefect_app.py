"""Prefect's server says how soon to ask again."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from flows.prefect_app import RetrySoon


@pytest.mark.parametrize(("status", "told"), [(503, "0.2"), (200, None), (500, None)])
def test_who_met_a_busy_database_asks_again_soon(status: int, told: str | None) -> None:
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("", status))])
    with TestClient(RetrySoon(app)) as client:
        assert client.get("/").headers.get("retry-after") == told


def test_prefects_client_takes_a_fraction_of_a_second() -> None:
    from prefect.client.base import _parse_retry_after

    assert _parse_retry_after("0.2") == 0.2
