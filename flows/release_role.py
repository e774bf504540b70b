"""Sign in as the release service, where this user may read its password."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from clr.registry.acts import RELEASE_USER
from clr.settings import Settings


@contextmanager
def signed_in(settings: Settings) -> Iterator[None]:
    """Let MLflow's client sign in as ``clr-release`` inside the block.

    What the user gave wins. Without it the account is used at this workspace's own server, and
    only by who may read ``<CLR_HOME>/secrets/release.password``.
    """
    from mlflow.utils.credentials import read_mlflow_creds

    from clr.registry.login import LOGIN, forget, is_own
    from clr.registry.server.secrets import RELEASE_PASSWORD, find_secret

    forget()  # what this process signed in with for reading
    given, password = read_mlflow_creds(), ""
    if settings.registry and is_own(settings) and not (given.username or given.password):
        password = find_secret(settings.state, RELEASE_PASSWORD) or ""
    before = {name: os.environ.get(name) for name in LOGIN}
    if password:
        os.environ.update(zip(LOGIN, (RELEASE_USER, password), strict=True))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
