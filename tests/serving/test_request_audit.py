"""`clr audit --request ID`: from an answer to the adapter that gave it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner

from clr.serving.engine import Engine
from clr.serving.values import Item
from tests import synthetic
from tests.benchmarks.growth import _record_release
from tests.serving.plants import Served


@pytest.fixture
def request_id(own: Served) -> str:
    """Of an answer in a workspace whose ledger tells of its release."""
    from flows.session import Session

    session, champions = Session(own.settings()), list(own.second.tasks.values())
    synthetic.record(session, champions)
    _record_release(session, own.second, champions)

    async def ask() -> Any:
        engine = Engine(own.settings())
        await engine.start()
        try:
            item = Item("a", own.images("green")[0].read_bytes())
            return (await engine.predict([item], client="line 3"))[0]
        finally:
            await engine.close()

    return str(asyncio.run(ask()).request_id)


def clr(served: Served, *arguments: str) -> Any:
    from flows import session
    from flows.cli import main

    session._session.cache_clear()
    environment = {**served.environment, "CLR_WORKSPACE": str(served.root)}
    return CliRunner().invoke(main, list(arguments), env=environment)


def test_a_request_leads_to_its_adapter(own: Served, request_id: str) -> None:
    done = clr(own, "audit", "--request", request_id, "--json")
    document = json.loads(done.stdout)
    (row,) = document["rows"]
    assert (row["task"], row["how"], row["arm"], row["client"]) == (
        "green", "routed", "champion", "line 3",
    )  # fmt: skip
    assert (row["release"], row["adapter"]) == (
        own.second.version,
        own.second.tasks["green"].adapter_digest,
    )
    assert row["serves"]
    assert document["notes"] == []
    assert document["adapter"]["subject"] == "clr-green/1"
    text = clr(own, "audit", "--request", request_id).stdout
    assert "found by the router" in text
    assert "clr-green/1" in text


def test_an_answer_that_the_ledger_contradicts_is_told(own: Served, request_id: str) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(own.state / "serving" / "journal.db")) as database, database:
        database.execute("UPDATE answers SET adapter = 'sha256:forged', release_digest = 'x'")
    document = json.loads(clr(own, "audit", "--request", request_id, "--json").stdout)
    assert any("with the adapter" in one for one in document["notes"])
    assert any("was in force then" in one for one in document["notes"])


def test_an_unknown_request_is_a_slip(own: Served) -> None:
    done = clr(own, "audit", "--request", "nobody")
    assert done.exit_code == 2
    assert "no answer with the request id" in done.stderr
