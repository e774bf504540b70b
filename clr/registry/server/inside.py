"""The private names of MLflow that the server rests on, in one place.

MLflow may change any of them in any version; ``tests/server/test_endpoints.py`` fails then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow.server import handlers as _handlers
from mlflow.utils.proto_json_utils import parse_dict as _parse_dict

handlers: Any = _handlers
"""``mlflow.server.handlers``, without types."""


def registry_store() -> Any:
    """Return the store of registered models, the one that the handlers use."""
    return handlers._get_model_registry_store()


def tracking_store() -> Any:
    """Return the store of runs and logged models, the one that the handlers use."""
    return handlers._get_tracking_store()


def request_json() -> Any:
    """Return the JSON of the present request, as the handlers see it; cached by Flask."""
    return handlers._get_normalized_request_json()


def request_message(form: Callable[[], Any]) -> Any:
    """Return the present request as the protobuf message that its handler sees."""
    return handlers._get_request_message(form())


def whole(raw: dict[str, Any], form: Callable[[], Any]) -> bool:
    """Say whether protobuf understands all of `raw`; MLflow goes on with the part it does."""
    try:
        _parse_dict(raw, form())  # type: ignore[no-untyped-call]
    except handlers.ParseError:
        return False
    return True
