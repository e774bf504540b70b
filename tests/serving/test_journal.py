"""The journal's writer goes on, whatever becomes of those who wait for it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from clr.serving.journal import Journal, answer, journal_path
from tests.serving.journals import SAMPLE


def test_who_waits_no_longer_costs_neither_his_rows_nor_those_of_others(tmp_path: Path) -> None:
    """A request that is out of time is cancelled, which reaches whatever it waits for."""
    journal = Journal(journal_path(tmp_path), keep_days=36_500, keep_rows=10)

    async def impatient() -> None:
        with closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with suppress(TimeoutError):
                written = journal.write([replace(SAMPLE, request_id="a")])
                await asyncio.wait_for(asyncio.wrap_future(written), 0.1)

    asyncio.run(impatient())
    journal.write([replace(SAMPLE, request_id="b")]).result(timeout=5)
    journal.close()
    assert [answer(tmp_path, one) is not None for one in "ab"] == [True, True]
