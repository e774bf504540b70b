"""An erased person in MLflow's own database: our tags are written anew, the rest is named.

Done on the server's machine, past the server, whose policy lets nobody change these tags. What
is written is what the ledger then says, so that `clr verify` finds both equal.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from clr.audit import engines
from clr.audit.personal import mentions
from clr.errors import ServiceUnavailable
from clr.registry.faults import calling
from clr.registry.names import PROMOTION, REASON
from clr.registry.server.config import database_url, users_url

if TYPE_CHECKING:
    from clr.settings import Settings

ERASED_WORDS = "erased words"
_LISTS = ("clr.created_by", "clr.reviewed_by", "clr.approvals", PROMOTION)
_SQLITE = "sqlite:///"

_TAGS = sa.table("model_version_tags", *map(sa.column, ("name", "version", "key", "value")))
_RUNS = sa.table("runs", sa.column("user_id"))
_RUN_TAGS = sa.table("tags", sa.column("key"), sa.column("value"))


def forget(
    settings: Settings,
    name: str,
    placeholder: str,
    words: Mapping[str, Collection[str]],
    kept: Collection[str],
) -> int:
    """Take a person out of the tags that say who registered and reviewed, and out of runs.

    Args:
        settings: of the workspace whose registry it is.
        name: of the person.
        placeholder: what the ledger shows instead.
        words: what the person wrote, by version (``clr-animals/3``).
        kept: versions whose tags stay, since the ledger cannot forget them either.

    Returns:
        how many tags and runs were changed.

    Raises:
        ServiceUnavailable: the database cannot be written.
    """
    changed = 0
    with _writing(settings) as connection:
        if connection is None:
            return 0
        wanted = sa.select(_TAGS).where(_TAGS.c.key.in_([*_LISTS, REASON]))
        for row in connection.execute(wanted).all():
            subject = f"{row.name}/{row.version}"
            value = forgotten(row.key, row.value, name, placeholder, words.get(subject, ()))
            if value != row.value and subject not in kept:
                same = (_TAGS.c.name, _TAGS.c.version, _TAGS.c.key)
                which = sa.tuple_(*same) == (row.name, row.version, row.key)
                connection.execute(_TAGS.update().where(which).values(value=value))
                changed += 1
        for update in (
            _RUNS.update().where(_RUNS.c.user_id == name).values(user_id=placeholder),
            _RUN_TAGS.update()
            .where(_RUN_TAGS.c.key == "mlflow.user", _RUN_TAGS.c.value == name)
            .values(value=placeholder),
        ):
            changed += connection.execute(update).rowcount
    return changed


def forgotten(key: str, value: str, name: str, placeholder: str, words: Collection[str]) -> str:
    """Return what a tag says once a person is erased (pure).

    Args:
        key: of the tag.
        value: of the tag.
        name: of the person.
        placeholder: what the ledger shows instead.
        words: what the person wrote about this version.
    """
    if key == REASON:
        return ERASED_WORDS if value in words or mentions(value, name) else value
    if key == PROMOTION and value.startswith(f"rejected by {name}: "):
        return f"rejected by {placeholder}: {ERASED_WORDS}"
    return re.sub(rf"(?<![\w.@-]){re.escape(name)}(?![\w.@-])", lambda _: placeholder, value)


def still_naming(settings: Settings, name: str) -> dict[str, int]:
    """Return how many rows of the registry's databases have a name as a word, by column.

    Raises:
        ServiceUnavailable: they cannot be read.
    """
    found: dict[str, int] = {}
    for url in _databases(settings):
        engine = sa.create_engine(url)
        try:
            with calling(url, "look for a name"), engine.connect() as connection:
                for column in _texts(engine):
                    like = sa.func.lower(column).contains(name.lower(), autoescape=True)
                    values = connection.execute(sa.select(column).where(like)).scalars()
                    if count := sum(mentions(value, name) for value in values):
                        found[f"{column.table.name}.{column.name}"] = count
        finally:
            engine.dispose()
    return found


def _texts(engine: sa.Engine) -> Iterator[sa.Column[str]]:
    tables = sa.MetaData()
    tables.reflect(engine)
    for table in tables.sorted_tables:
        if not table.name.startswith("clr_"):
            yield from (one for one in table.columns if isinstance(one.type, sa.String))


def scrub(settings: Settings) -> None:
    """Rewrite what may still hold bytes of what was changed or deleted.

    Raises:
        ServiceUnavailable: the server reads or writes all the time, or the disk is full.
    """
    for url in _databases(settings):
        with calling(url, "rewrite its tables"):
            if url.startswith(_SQLITE):
                _scrub_file(Path(url.removeprefix(_SQLITE)))
                continue
            engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                for name in ("model_version_tags", "runs", "tags", "users"):
                    connection.exec_driver_sql(f"VACUUM FULL {name}")
            engine.dispose()


def _scrub_file(file: Path) -> None:
    try:
        engines.scrub(file)
    except sqlite3.Error as error:
        raise ServiceUnavailable(
            f"The database {file} cannot be rewritten: {error}. What was erased from it is no "
            "longer shown, but bytes of it may be left in the file.",
            fix="Run the same again when less is going on, or with the server stopped.",
        ) from error


def _databases(settings: Settings) -> list[str]:
    urls = dict.fromkeys((database_url(settings), users_url(settings)))
    return [
        url
        for url in urls
        if not url.startswith(_SQLITE) or Path(url.removeprefix(_SQLITE)).exists()
    ]


@contextmanager
def _writing(settings: Settings) -> Iterator[sa.Connection | None]:
    url = database_url(settings)
    if url not in _databases(settings):
        yield None
        return
    engine = sa.create_engine(url)
    try:
        with calling(url, "erase a person"), engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()
