"""The ledger for auditors elsewhere: two addresses, one reads it, one notes an export.

Who reads gets raw rows and verifies them without trust in this server. Who exported an audit has
that noted under the name signed in as; nothing else can be written here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Response, g, request

from clr.audit.chain import ACTOR, check_text
from clr.audit.part import MOST_ROWS
from clr.core.files import canonical_json, sha256_bytes
from clr.errors import ClrError, UsageError
from clr.registry.acts import AUTHENTICATED, Act, Kind
from clr.registry.policy_file import read_text
from clr.registry.roles import policy_path
from clr.registry.served import EXPORTS, LEDGER
from clr.registry.server.asked import Asked, Malformed, error_body
from clr.registry.server.readers import body

if TYPE_CHECKING:
    from flask import Flask

    from clr.registry.server.keeper import Keeper

READ_ENDPOINT, EXPORT_ENDPOINT = "clr_ledger", "clr_ledger_export"

_ROWS = 500
_MOST_BYTES = 16 << 10
_FIELDS = {
    "subject": "a text",
    "question": "a text",
    "format": "a word",
    "digest": "sha256:<64 hex digits>",
    "bytes": "a number of bytes",
}
_FORM = re.compile(r"[a-z][a-z0-9-]{0,39}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,15}")


def add_addresses(app: Flask, keeper: Keeper) -> None:
    """Let `app` serve both addresses; who may do what is decided before, as everywhere.

    Args:
        app: before MLflow's authentication is put in front of it.
        keeper: of the ledger.
    """
    from mlflow.server import auth

    for path, endpoint, method, view in (
        (LEDGER, READ_ENDPOINT, "GET", lambda: _part(keeper)),
        (EXPORTS, EXPORT_ENDPOINT, "POST", lambda: _note(keeper)),
    ):
        app.add_url_rule(path, endpoint, _answering(view), methods=[method])
        # MLflow's own rights, which it asks first, know nothing of these
        auth.BEFORE_REQUEST_VALIDATORS[path, method] = lambda: True


def _answering(view: Callable[[], dict[str, Any]]) -> Callable[[], Response]:
    def answer() -> Response:
        try:
            text, status = json.dumps(view(), default=repr), 200
        except (Malformed, UsageError) as error:
            text, status = error_body("INVALID_PARAMETER_VALUE", str(error)), 400
        except (ClrError, TypeError, ValueError) as error:  # a damaged row, too
            text, status = error_body("TEMPORARILY_UNAVAILABLE", str(error)), 503
        return Response(text, status, mimetype="application/json")

    return answer


def _part(keeper: Keeper) -> dict[str, Any]:
    if unknown := sorted(request.args.keys() - {"since", "limit"}):
        raise Malformed(f"{unknown[0][:40]!r} is nothing to ask for: since and limit are.")
    since, limit = _number("since", 0), _number("limit", _ROWS)
    if not 1 <= limit <= MOST_ROWS:
        raise Malformed(f"limit goes from 1 to {MOST_ROWS}.")
    policy = read_text(policy_path(keeper.settings.workspace))
    return {**keeper.ledger.part(since, limit).as_dict(), "policy": policy}


def _number(name: str, default: int) -> int:
    given = request.args.get(name, str(default))
    if not _NUMBER.fullmatch(given):
        raise Malformed(f"{name} is no number: {given[:40]!r}.")
    return int(given)


def export(endpoint: str) -> Asked:
    """Read the act of noting an export.

    Raises:
        Malformed: too long, a field is missing, unknown or of another form.
    """
    return Asked(Act(Kind.EXPORT, endpoint=endpoint, name=str(_export()["subject"])))


def _export() -> dict[str, Any]:
    if (request.content_length or 0) > _MOST_BYTES:
        raise Malformed(f"An export is told in at most {_MOST_BYTES} bytes.")
    found = body()
    if unknown := sorted(found.keys() - _FIELDS.keys()):
        raise Malformed(f"An export has no field {unknown[0][:40]!r}: it has {', '.join(_FIELDS)}.")
    for name, form in _FIELDS.items():
        if not _fits(name, found.get(name)):
            raise Malformed(f"An export's field {name} is {form}.")
    return found


def _fits(name: str, value: Any) -> bool:
    if name == "bytes":
        return type(value) is int and 0 <= value < 1 << 53
    if not isinstance(value, str):
        return False
    if name == "format":
        return _FORM.fullmatch(value) is not None
    if name == "digest":
        return _DIGEST.fullmatch(value) is not None
    try:
        check_text(name, value)
    except UsageError:
        return False
    return True


def _note(keeper: Keeper) -> dict[str, Any]:
    """Append the export; one that is sent again, since the answer was lost, is there once."""
    facts = _export()
    digest = sha256_bytes(canonical_json(facts))
    entry = keeper.ledger.append(
        Kind.EXPORT.value,
        facts.pop("subject"),
        facts,
        actor=str(g.mlflow_authenticated_user),
        authentication=AUTHENTICATED,
        key=f"{Kind.EXPORT.value}:{ACTOR}:{digest}",
    )
    return {"entry": entry.as_dict()}
