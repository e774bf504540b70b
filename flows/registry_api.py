"""The registry at a glance without MLflow's client, whose import takes seconds."""

from __future__ import annotations

import os
from typing import Any

from clr.errors import ServiceUnavailable
from clr.registry.acts import TRAINER_USER
from clr.registry.faults import redact
from clr.registry.login import is_own
from clr.registry.server.secrets import TRAINER_PASSWORD, find_secret
from clr.settings import Settings

SECONDS = 5.0
_PAGE = 1000


def models(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return each registered model of ours: {aliases, tags, created} of its last version.

    Signed in as the flows are. `created` is in seconds since 1970, 0 without a version.

    Raises:
        ServiceUnavailable: the server cannot be reached, or does not let us in.
    """
    import httpx

    meant = is_own(settings) or TRAINER_PASSWORD.variable in os.environ
    password = find_secret(settings.state, TRAINER_PASSWORD) if meant else ""
    auth = httpx.BasicAuth(TRAINER_USER, password) if password else None
    url = f"{settings.registry}/api/2.0/mlflow/registered-models/search"
    found: dict[str, dict[str, Any]] = {}
    token: str | None = None
    try:
        with httpx.Client(auth=auth, timeout=SECONDS, trust_env=False) as client:
            while token is None or token:
                query = {"filter": "name LIKE 'clr-%'", "max_results": str(_PAGE)}
                answer = client.get(
                    url, params={**query, **({"page_token": token} if token else {})}
                )
                answer.raise_for_status()
                page = answer.json()
                for model in page.get("registered_models", ()):
                    found[model["name"]] = _model(model)
                token = page.get("next_page_token") or ""
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        why = str(error)
        if isinstance(error, httpx.HTTPStatusError):  # its words have the address, password and all
            why = f"HTTP {error.response.status_code}"
        raise ServiceUnavailable(
            f"The registry at {redact(settings.registry)} does not tell what it has: {why}.",
            fix="See that it runs, and that this user may read CLR_HOME/secrets.",
        ) from error
    return found


def _model(model: dict[str, Any]) -> dict[str, Any]:
    versions = sorted(model.get("latest_versions", ()), key=lambda one: int(one["version"]))
    last = versions[-1] if versions else {}
    return {
        "aliases": {one["alias"]: int(one["version"]) for one in model.get("aliases", ())},
        "tags": {one["key"]: one.get("value", "") for one in last.get("tags", ())},
        "created": int(last.get("creation_timestamp", 0)) / 1000,
    }
