"""Sign in as one of the services, where this user may read its password."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clr.registry.acts import RELEASE_USER
from clr.settings import Settings

if TYPE_CHECKING:
    from clr.registry.server.secrets import Secret


@contextmanager
def signed_in(settings: Settings) -> Iterator[None]:
    """Let MLflow's client sign in as ``clr-release`` inside the block, see `signed_in_as`."""
    from clr.registry.server.secrets import RELEASE_PASSWORD

    with signed_in_as(settings, RELEASE_USER, RELEASE_PASSWORD):
        yield


@contextmanager
def signed_in_as(settings: Settings, user: str, secret: Secret) -> Iterator[None]:
    """Let MLflow's client sign in as a service inside the block.

    What the user gave wins. Without it the account is used at this workspace's own server, or
    where the environment names its password, and only by who may read that.

    Args:
        settings: of the workspace.
        user: of the service.
        secret: its password.
    """
    from mlflow.utils.credentials import read_mlflow_creds

    from clr.registry.login import LOGIN, forget, is_own
    from clr.registry.server.secrets import find_secret

    forget()  # what this process signed in with for reading
    given, password = read_mlflow_creds(), ""
    meant = is_own(settings) or secret.variable in os.environ
    if settings.registry and meant and not (given.username or given.password):
        password = find_secret(settings.state, secret) or ""
    before = {name: os.environ.get(name) for name in LOGIN}
    if password:
        os.environ.update(zip(LOGIN, (user, password), strict=True))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
