"""Which release is in force, asked often and therefore with one light call."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from clr.registry.faults import calling
from clr.registry.store import RELEASE_MODEL
from clr.registry.versions import CHAMPION

if TYPE_CHECKING:
    from clr.registry.store import Registry

_PATH = "/api/2.0/mlflow/registered-models/alias"
_QUERY = {"name": RELEASE_MODEL, "alias": CHAMPION}
POLLED = f"{_PATH}?{urlencode(_QUERY)}"
"""What is asked for with every batch of images, as the server's log has it."""

_NOBODY = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def release_in_force(registry: Registry, seconds: float = 5.0) -> int:
    """Return the number of the release that serves; 0 while there is none.

    Args:
        registry: opened registry.
        seconds: how long a server may take to answer; it is asked once.

    Raises:
        ServiceUnavailable: the registry cannot be asked.
    """
    with calling(registry.uri, "ask for the release in force"):
        return _embedded(registry) if registry.embedded else _served(registry, seconds)


def _embedded(registry: Registry) -> int:
    from mlflow.exceptions import MlflowException

    try:
        found = registry.client.get_model_version_by_alias(RELEASE_MODEL, CHAMPION)
    except MlflowException as error:
        if error.error_code in _NOBODY:
            return 0
        raise
    return int(found.version)


def _served(registry: Registry, seconds: float) -> int:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    login = get_default_host_creds(registry.uri)  # type: ignore[no-untyped-call]
    # no second try here: who asks so often comes again
    answer = http_request(  # type: ignore[no-untyped-call]
        login,
        _PATH,
        "GET",
        params=_QUERY,
        max_retries=0,
        timeout=seconds,
        raise_on_status=False,
    )
    if answer.status_code in (400, 404) and answer.json().get("error_code") in _NOBODY:
        return 0
    verify_rest_response(answer, _PATH)
    return int(answer.json()["model_version"]["version"])
