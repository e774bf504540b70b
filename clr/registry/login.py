"""As whom commands speak to the registry server: the user's own login, or ``clr-trainer``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clr.registry.acts import TRAINER_USER
from clr.registry.server.config import is_loopback
from clr.registry.server.secrets import TRAINER_PASSWORD, find_secret

if TYPE_CHECKING:
    from clr.settings import Settings

LOGIN = _USER, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
"""Where MLflow's client looks for a user's name and password."""

_lent: set[str] = set()
"""Trainers' passwords that this process put into its environment, whoever put them back there."""


def sign_in(settings: Settings) -> None:
    """Let MLflow's client in this process sign in at ``settings.registry``.

    What the user gave wins: environment, ``~/.mlflow/credentials``, a token, or a name in the
    address. Else it is ``clr-trainer``, whose password this user may read where he runs the
    workspace's flows. It goes to the workspace's own server and to no other, unless
    ``CLR_TRAINER_PASSWORD`` says so.

    Raises:
        UsageError: the password's file is damaged.
    """
    from mlflow.utils.credentials import read_mlflow_creds

    forget()
    given = read_mlflow_creds()
    if given.username or given.password or os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return
    url = settings.registry
    meant = is_own(settings) or TRAINER_PASSWORD.variable in os.environ
    if not meant or urlsplit(url).username:
        return
    password = find_secret(settings.state, TRAINER_PASSWORD)
    if password:
        os.environ.update({_USER: TRAINER_USER, _PASSWORD: password})
        _lent.add(password)


def is_own(settings: Settings) -> bool:
    """Say whether the server is on this machine, so that its secrets may be used with it."""
    return not settings.registry_url or is_loopback(settings.registry)


def forget() -> None:
    """Take back what an earlier call of this process lent for another workspace."""
    if os.environ.get(_USER) == TRAINER_USER and os.environ.get(_PASSWORD) in _lent:
        del os.environ[_USER], os.environ[_PASSWORD]
