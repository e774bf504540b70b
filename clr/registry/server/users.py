"""Who can sign in to the registry server: the logins in MLflow's own database of users.

They are written directly, whether the server runs or not. What somebody may do is
another matter: that is his roles in ``mlflow/policy.yaml`` (clr/registry/roles.py), and
without a role it is nothing.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.errors import UsageError
from clr.registry.acts import RELEASE_USER, SERVER_USER, TRAINER_USER
from clr.registry.faults import calling
from clr.registry.roles import SERVICES
from clr.registry.server.config import users_url
from clr.registry.server.secrets import (
    ADMIN_PASSWORD,
    RELEASE_PASSWORD,
    SERVER_PASSWORD,
    TRAINER_PASSWORD,
    ensure_secret,
    password_problem,
)
from clr.registry.server.stamp import users_changed

if TYPE_CHECKING:
    from clr.settings import Settings

ADMIN = "admin"
SERVICE_PASSWORDS = {
    ADMIN: ADMIN_PASSWORD,
    RELEASE_USER: RELEASE_PASSWORD,
    TRAINER_USER: TRAINER_PASSWORD,
    SERVER_USER: SERVER_PASSWORD,
}


class Logins:
    """The database of users; make one with `open_logins`.

    A running server forgets within a second what it remembers of whoever is written here.

    Attributes:
        url: of the database, for SQLAlchemy.
    """

    def __init__(self, store: Any, url: str, state: Path) -> None:
        """Use MLflow's `store` of the installation whose ``CLR_HOME`` is `state`."""
        self._store = store
        self._state = state
        self.url = url

    def names(self) -> tuple[str, ...]:
        """Return everybody who can sign in, sorted."""
        with calling(self.url, "list the users"):
            return tuple(sorted(one.username for one in self._store.list_users()))

    def has(self, name: str) -> bool:
        """Say whether `name` can sign in."""
        with calling(self.url, f"look up the user {name}"):
            return bool(self._store.has_user(name))

    def put(self, name: str, password: str, *, admin: bool = False) -> None:
        """Let `name` sign in with `password`, from now on or anew.

        Args:
            name: of the user.
            password: in clear; only its salted hash is stored.
            admin: MLflow's own flag, which only the user ``admin`` has.

        Raises:
            UsageError: not a possible password.
        """
        checked_password(password)
        with calling(self.url, f"write the user {name}"):
            if self._store.has_user(name):
                self._store.update_user(name, password=password, is_admin=admin)
            else:
                self._store.create_user(name, password, is_admin=admin)
        users_changed(self._state)

    def is_right(self, name: str, password: str) -> bool:
        """Say whether `name` can sign in with `password`."""
        with calling(self.url, f"look up the user {name}"):
            return bool(self._store.authenticate_user(name, password))

    def remove(self, name: str) -> None:
        """Let `name` sign in no more; nothing happens where he could not."""
        with calling(self.url, f"remove the user {name}"):
            if self._store.has_user(name):
                self._store.delete_user(name)
        users_changed(self._state)

    def close(self) -> None:
        """Give the connections back."""
        self._store.engine.dispose()


@contextmanager
def open_logins(settings: Settings) -> Iterator[Logins]:
    """Open the database of users, creating it on first use.

    Importing MLflow's part for this takes seconds.

    Raises:
        UsageError: see clr/registry/server/config.py.
        ServiceUnavailable: unreachable, not writable, no space.
        IntegrityBroken: the file is no database.
    """
    url = users_url(settings)
    with calling(url, "open the database of users"):
        if url.startswith("sqlite:"):
            _private_file(Path(url.removeprefix("sqlite:///")))
        store = _import_store()()
        store.init_db(url)
    logins = Logins(store, url, settings.state)
    try:
        yield logins
    finally:
        logins.close()


def _import_store() -> Callable[[], Any]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from clr.registry.store import quiet

    quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what MLflow itself imports
        from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    quiet()  # importing MLflow sets its loggers up anew
    return SqlAlchemyStore


def _private_file(file: Path) -> None:
    """Make `file` before SQLite does, so that nobody else can read the hashes in it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))


def checked_password(password: str) -> str:
    """Return `password` if it can be one.

    Raises:
        UsageError: too short or too long, or not printable ASCII.
    """
    problem = password_problem(password)
    if problem:
        raise UsageError(
            f"This password cannot be used: {problem}.",
            fix="Take at least 12 printable ASCII characters, e.g. four words.",
        )
    return password


def ensure_services(settings: Settings, logins: Logins) -> tuple[str, ...]:
    """Give the server's own users the passwords that environment or secret files hold.

    Returns:
        the users whose login was made or changed.

    Raises:
        UsageError: a secret is not a possible password.
        ServiceUnavailable: a secret or the database cannot be written.
    """
    changed = []
    for name in SERVICES:
        password = ensure_secret(settings.state, SERVICE_PASSWORDS[name])
        if not logins.is_right(name, password):
            logins.put(name, password, admin=name == ADMIN)
            changed.append(name)
    return tuple(changed)
