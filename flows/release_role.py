"""Sign in as the release service, where this user may read its password."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from clr.settings import Settings

RELEASE_USER = "clr-release"
_NAMES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@contextmanager
def signed_in(settings: Settings) -> Iterator[None]:
    """Let MLflow's client sign in as ``clr-release`` inside the block.

    What the user gave wins. Without it the account is used at this workspace's own server, and
    only by who may read ``<CLR_HOME>/secrets/release.password``.
    """
    from mlflow.utils.credentials import read_mlflow_creds

    from clr.registry.login import forget
    from clr.registry.server.config import is_loopback
    from clr.registry.server.secrets import RELEASE_PASSWORD, find_secret

    forget()  # what this process signed in with for reading
    given, url, password = read_mlflow_creds(), settings.registry, ""
    own = not settings.registry_url or is_loopback(url)
    if url and own and not (given.username or given.password):
        password = find_secret(settings.state, RELEASE_PASSWORD) or ""
    before = {name: os.environ.get(name) for name in _NAMES}
    if password:
        os.environ.update(zip(_NAMES, (RELEASE_USER, password), strict=True))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
