"""What is the same in every test, and costs much, is made once in a process.

Great Expectations makes a new Jinja environment for every page of every report, and each
compiles what it uses; that is a third of what a validation costs. MLflow walks through sixty
migrations for every new database. Matplotlib draws the same figures of the same small tasks,
and the latency of half a million weights, which nothing here depends on, is measured for long.
And nothing is waited for that no test is about: a disk that loses its power, the thread that
beats while a flow runs.
"""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2


class Memory(jinja2.BytecodeCache):
    """Compiled templates, by name and source."""

    def __init__(self) -> None:
        self.compiled: dict[str, bytes] = {}

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        """Fill in what was compiled from this very source."""
        if bucket.key in self.compiled:
            bucket.bytecode_from_string(self.compiled[bucket.key])

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        """Keep it."""
        self.compiled[bucket.key] = bucket.bytecode_to_string()


def compile_once() -> None:
    """Let all later environments share their compiled templates."""
    memory, born = Memory(), jinja2.Environment.__init__

    @wraps(born)
    def sharing(self: jinja2.Environment, *arguments: Any, **named: Any) -> None:
        born(self, *arguments, **named)
        self.bytecode_cache = self.bytecode_cache or memory

    jinja2.Environment.__init__ = sharing  # type: ignore[method-assign]


def migrate_once() -> None:
    """Let every later empty SQLite database of MLflow be a copy of the first one's schema."""
    from mlflow.store.db import utils

    migrated, schema = utils._initialize_tables, b""

    @wraps(migrated)
    def copying(engine: Any) -> None:
        nonlocal schema
        file = engine.url.database if engine.dialect.name == "sqlite" else None
        if not file or not utils._is_empty_database(engine):
            migrated(engine)
            return
        with closing(sqlite3.connect(file)) as database:
            if not schema:
                migrated(engine)
                schema = database.serialize()
                return
            with closing(sqlite3.connect(":memory:")) as first:
                first.deserialize(schema)
                first.backup(database)

    utils._initialize_tables = copying


def draw_once() -> None:
    """Let a figure of a run be the one that was drawn from the same numbers before.

    It holds for who imports the figures from now on, inside a function: the tests of the figures
    themselves (tests/registry/test_plots.py) have the real ones.
    """
    import clr.registry
    from clr.registry import plots

    drawn: dict[bytes, bytes] = {}

    def remembering(draw: Callable[..., bytes]) -> Callable[..., bytes]:
        @wraps(draw)
        def get(*arguments: Any, **named: Any) -> bytes:
            key = pickle.dumps((draw.__name__, arguments, named))
            if key not in drawn:
                drawn[key] = draw(*arguments, **named)
            return drawn[key]

        return get

    figures = (plots.accuracy_matrix, plots.confusion, plots.learning_curves, plots.payback)
    known = SimpleNamespace(**{draw.__name__: remembering(draw) for draw in figures})
    clr.registry.plots = known  # type: ignore[assignment]


def measure_briefly() -> None:
    """Let latencies be of one round, not the median of seven."""
    from clr.core import latency

    latency.ROUNDS = 1


def one_authority(folder: str) -> str:
    """Write a file with one of the certificate authorities, and return its path.

    Clients of plain HTTP, too, read all hundred and fifty, each time one is made.
    """
    import certifi

    end = "-----END CERTIFICATE-----\n"
    path = Path(folder, "authority.pem")
    path.write_text(certifi.contents().partition(end)[0] + end, encoding="utf-8")
    return str(path)


@cache
def sync_never() -> None:
    """Let SQLite databases that SQLAlchemy opens from now on not wait for the disk.

    A process that is killed loses nothing by it: only a machine that loses its power would.
    """
    from sqlalchemy import Engine, event

    @event.listens_for(Engine, "connect")
    def hurry(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")


def beat_never() -> None:
    """Let flow runs of this process send no heartbeats.

    Nobody here listens to them, and every run would end by waiting for what is left of a second
    that their thread sleeps.
    """
    from prefect.flow_engine import BaseFlowRunEngine

    BaseFlowRunEngine.heartbeat_seconds = None  # type: ignore[assignment]
