"""The few calls to Prefect's server that need no Prefect: importing it costs 4 s and 100 MB."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from clr.errors import ServiceUnavailable
from clr.registry.faults import redact
from clr.settings import Settings
from flows import running

SECONDS = 15.0


@contextmanager
def reaching() -> Iterator[None]:
    """Say of a flow that runs here when it is Prefect's server that is missing.

    Raises:
        ServiceUnavailable: it cannot be reached; or none is asked for, and a temporary one could
            not write its database.
    """
    _require_room()
    try:
        yield
    except Exception as error:
        if not _is_missing(error):
            raise
        raise ServiceUnavailable(
            f"The Prefect server cannot be reached: {error}.",
            fix="Start it or correct PREFECT_API_URL; unset, a temporary server is started.",
        ) from error


def _require_room() -> None:
    """See that a temporary server can write: it would be waited for until its time is out."""
    home = os.environ.get("PREFECT_HOME", "")
    if home and not os.environ.get(running.API) and not os.access(home, os.W_OK):
        raise ServiceUnavailable(
            f"The temporary Prefect server cannot write its database: {home} is read-only.",
            fix="Make it writable, set CLR_HOME to a folder that is, or name a server in "
            "PREFECT_API_URL.",
        )


def _is_missing(error: Exception) -> bool:
    """Say whether Prefect's server was not there at the start of a flow, or went meanwhile."""
    import httpx

    known = isinstance(error, RuntimeError) and "API" in str(error)  # it has no class for this
    return known or isinstance(error, httpx.TransportError)


def post(settings: Settings, path: str, body: Any) -> Any:
    """Send JSON to the server in use, and return what it answers; None for an empty answer.

    The server is that of ``PREFECT_API_URL``, else the one that `clr up` of this workspace runs.

    Args:
        settings: of the workspace.
        path: below the API, as ``/events``.
        body: JSON-serialisable.

    Raises:
        ServiceUnavailable: there is none, it does not answer, or it answers an error.
    """
    known = {**running.prefect_environment(settings, os.environ)}
    api = os.environ.get(running.API) or known.get(running.API, "")
    if not api:
        raise ServiceUnavailable(
            "There is no Prefect server to tell.", fix="Start `clr up`, or set PREFECT_API_URL."
        )
    auth = os.environ.get(running.AUTH) or known.get(running.AUTH, "")
    return send(api, auth, path, body)


def send(api: str, auth: str, path: str, body: Any, seconds: float = SECONDS) -> Any:
    """Send JSON to a server, and return what it answers; None for an empty answer.

    Args:
        api: its address, with ``/api``.
        auth: ``user:password``, or empty.
        path: below the API.
        body: JSON-serialisable.
        seconds: how long it may take to answer.

    Raises:
        ServiceUnavailable: it does not answer, or it answers an error: then with its `status`.
    """
    import httpx

    headers = {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"} if auth else {}
    try:
        near = urlsplit(api).hostname in ("127.0.0.1", "localhost", "::1")
        answer = httpx.post(
            api.rstrip("/") + path,
            json=body,
            headers=headers,
            timeout=seconds,
            trust_env=not near,  # no proxy stands before this machine
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        bad = isinstance(error, httpx.HTTPStatusError)
        said = f": {answer.text[:200]}" if bad else ""
        # the words of the first have the address, password and all
        why = f"HTTP {answer.status_code}" if bad else str(error)
        raise ServiceUnavailable(
            f"Prefect's server at {redact(api)} does not take {path}: {why}{said}.",
            fix="See that it runs and that PREFECT_API_AUTH_STRING is right; it is tried again.",
            **({"status": answer.status_code} if bad else {}),
        ) from error
