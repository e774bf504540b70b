"""A ledger of one workspace, and ways to hurt it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from clr.audit.ledger import Ledger, open_ledger

NOBODY = 65534


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def ledger(state: Path) -> Ledger:
    return open_ledger(state)


@pytest.fixture
def database(state: Path) -> Path:
    return state / "ledger" / "ledger.db"


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    """Six entries about two subjects."""
    for number in range(1, 7):
        ledger.append(
            "review.approved" if number % 2 else "gate.passed",
            f"clr-animals/{(number + 1) // 2}",
            {"number": number},
            actor="ada",
            authentication="local-os-user",
            key=f"key-{number}",
        )
    return ledger


@pytest.fixture
def tamper(database: Path) -> Callable[[str], None]:
    """Run SQL on the table with its triggers switched off, then put them back."""

    def run(statements: str) -> None:
        with closing(sqlite3.connect(database)) as connection:
            triggers = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall()
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            connection.executescript(statements)
            for _, sql in triggers:
                connection.execute(sql)
            connection.commit()

    return run


@pytest.fixture
def open_state() -> Iterator[Path]:
    """A state folder that other users can reach, unlike ``tmp_path``."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder / "state"
    shutil.rmtree(folder)


@pytest.fixture
def somebody_else() -> Callable[[], AbstractContextManager[None]]:
    """Act without the rights of root, whom file modes do not bind."""

    @contextmanager
    def acting() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return acting
