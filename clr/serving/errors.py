"""Every error that the prediction server answers with, as problem documents (RFC 9457).

One table says which there are; docs/serving.md shows it, and a test compares the two. What a
caller did wrong is told in full, with what to do about it. What went wrong inside is logged
under an id, and the caller is told the id alone.
"""

from __future__ import annotations

import json
import logging
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clr.core.depth import FORMATS
from clr.errors import ClrError
from clr.serving.values import Failed, NotReady, Overloaded, UnknownRequest

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response

LOG = logging.getLogger("clr")
MEDIA_TYPE = "application/problem+json"
PAGE = "/docs"
"""Where ``type`` of each problem leads, with its code behind the ``#``."""

_SHOWN = 300
_NOT_SERVED = {"unavailable-task", "routing-unavailable"}
_LATER = 30


@dataclass(frozen=True)
class Kind:
    """A kind of error.

    Attributes:
        status: of HTTP.
        title: the same for all errors of this kind.
        fix: what the caller can do, where nothing better is known.
    """

    status: int
    title: str
    fix: str


KINDS: Mapping[str, Kind] = {
    "malformed": Kind(400, "The request cannot be read", "Correct how the body is written."),
    "key-missing": Kind(
        401, "An API key is needed", "Send the header Authorization: Bearer KEY (clr keys add)."
    ),
    "key-refused": Kind(401, "The API key is not known", "Ask for a key: clr keys add NAME."),
    "key-expired": Kind(401, "The API key has expired", "Ask for a new key: clr keys add NAME."),
    "scope-missing": Kind(
        403, "The API key may not do this", "Use a key that was made with this scope."
    ),
    "task-not-allowed": Kind(
        403, "The API key is limited to other tasks", "Name a task that the key is made for."
    ),
    "foreign-page": Kind(
        403, "The page of another site asks", "Call from a program, or with an API key."
    ),
    "not-found": Kind(404, "There is nothing at this address", "See /docs for what there is."),
    "unknown-task": Kind(404, "The task is not known", "GET /v1/tasks lists what is served."),
    "unknown-request": Kind(
        404, "The request id is not known", "Send request_id as the answer had it."
    ),
    "method-not-allowed": Kind(405, "The method is not allowed here", "See the header Allow."),
    "too-slow": Kind(
        408, "The request took too long to arrive", "Send less at once, or over a faster line."
    ),
    "too-large": Kind(413, "The request is too large", "Send less in one request."),
    "unsupported-media-type": Kind(
        415, "The content type is not accepted", "Send one of the types that /docs lists."
    ),
    "invalid": Kind(422, "The request says something impossible", "Correct what detail names."),
    "unreadable": Kind(422, "No image could be read", f"Send one of {', '.join(FORMATS)}."),
    "rate-limited": Kind(429, "Too many requests", "Wait as long as Retry-After says."),
    "overloaded": Kind(
        429, "More waits than can be answered in time", "Wait as long as Retry-After says."
    ),
    "internal": Kind(500, "The server failed", "Tell whoever runs it the instance."),
    "not-ready": Kind(503, "The server is not ready", "Wait as long as Retry-After says."),
    "unavailable-task": Kind(
        503, "The task is not served", "GET /health says why; other tasks are served."
    ),
    "out-of-time": Kind(
        503, "The answer took too long", "Wait as long as Retry-After says; send fewer images."
    ),
}
"""All kinds, by the code that the documents have."""


class Problem(ClrError):
    """A request is refused.

    Attributes:
        code: of its kind.
        headers: of the answer, besides the usual.
        errors: [{where, what}]: every field that is wrong.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        fix: str = "",
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(message, fix=fix or KINDS[code].fix)
        self.code = code
        self.headers = dict(headers or {})
        self.errors = tuple(errors)

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return KINDS[self.code].status

    def document(self) -> dict[str, Any]:
        """Return the problem document; ``error`` is what clients of the v2 protocol look for."""
        kind = KINDS[self.code]
        made: dict[str, Any] = {
            "type": f"{PAGE}#{self.code}",
            "title": kind.title,
            "status": kind.status,
            "detail": self.message,
            "fix": self.fix,
            "code": self.code,
            "error": self.message,
        }
        return made | ({"errors": list(self.errors)} if self.errors else {})


def later(code: str, message: str, seconds: float) -> Problem:
    """Return a problem that goes away by itself: the caller should come again after `seconds`."""
    return Problem(code, message, headers={"Retry-After": str(max(1, math.ceil(seconds)))})


def sentence(failed: Failed) -> str:
    """Return what a caller is told about an image without an answer: nothing of the inside."""
    return _OURS.get(failed.code, failed.error)


_OURS = {
    "unavailable-task": "The task of this image is not served now; see /health.",
    "routing-unavailable": "The task has to be named: it cannot be found now; see /health.",
    "time-out": "It took too long.",
    "internal": "The server failed on this image.",
}


def none_served(failed: Sequence[Failed]) -> Problem | None:
    """Return the problem of a request none of whose images has an answer because of its task.

    None where an image itself is the reason: that is told beside each image.
    """
    codes = {one.code for one in failed}
    if codes == {"unknown-task"}:
        return Problem("unknown-task", failed[0].error)
    if codes and codes <= _NOT_SERVED:
        return later("unavailable-task", sentence(failed[0]), _LATER)
    if codes == {"time-out"}:
        return later("out-of-time", sentence(failed[0]), 1)
    if codes == {"internal"}:  # the log has each error under the request id of its image
        return internal(f"no answer for {', '.join(one.request_id for one in failed)}")
    return None


def none_read(failed: Sequence[Failed]) -> Problem:
    """Return the problem of a request none of whose images has an answer.

    Where some have none because of us, that is told: they may have one later.
    """
    ours = [one for one in failed if one.code in _OURS]
    same = [one for one in ours if one.code == ours[0].code]
    code = "too-large" if all(one.code == "too-large" for one in failed) else "unreadable"
    return none_served(same or failed) or Problem(code, failed[0].error)


def internal(what: str, error: BaseException | None = None) -> Problem:
    """Return the problem of an error that is ours; the log has it under the id of `instance`.

    Args:
        what: went wrong, for the log alone.
        error: that it was, if one was raised.
    """
    incident = f"urn:uuid:{uuid.uuid4()}"
    LOG.error("serving   %s: %s", incident, what, exc_info=error)
    return _Incident(incident)


class _Incident(Problem):
    def __init__(self, instance: str) -> None:
        super().__init__("internal", "Something went wrong inside the server.")
        self.instance = instance

    def document(self) -> dict[str, Any]:
        return super().document() | {"instance": self.instance}


def as_problem(error: BaseException) -> Problem:
    """Return what a caller is told about any error."""
    match error:
        case Problem():
            return error
        case Overloaded():
            return later("overloaded", error.message, error.retry_after)
        case NotReady():
            return later("not-ready", error.message, 5)
        case UnknownRequest():
            return Problem("unknown-request", error.message, fix=error.fix)
        case _:
            return internal("this should not happen", error)


def respond(problem: Problem) -> Response:
    """Return the answer that tells of a problem."""
    from starlette.responses import Response

    body = json.dumps(problem.document(), allow_nan=False).encode()
    return Response(body, problem.status, problem.headers, MEDIA_TYPE)


def shown(text: str) -> str:
    """Return a caller's text as it may stand in a sentence: quoted, short, nothing but ASCII."""
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def install(app: FastAPI) -> None:
    """Let every error of `app` that is told on purpose be answered with a problem document.

    What nobody told on purpose is caught further out (clr/serving/outside.py).
    """
    from starlette.exceptions import HTTPException

    def answer(request: Request, problem: Problem) -> Response:
        request.app.state.service.observed.refused(problem.code)
        made = respond(problem)
        if problem.status == 401:
            made.headers["WWW-Authenticate"] = _challenge(request)
        return made

    async def known(request: Request, error: Exception) -> Response:
        return answer(request, as_problem(error))

    async def routed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return answer(request, _of_routing(request, error))

    app.add_exception_handler(ClrError, known)
    app.add_exception_handler(HTTPException, routed)


def _challenge(request: Request) -> str:
    """Return how to send a key; a browser asks for a password, which is the key."""
    page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    return (
        'Basic realm="clr: the password is an API key", charset="UTF-8"'
        if page
        else ('Bearer realm="clr"')
    )


def _of_routing(request: Request, error: HTTPException) -> Problem:
    path, method = shown(request.url.path), shown(request.method)
    if error.status_code == 405:
        detail = f"{path} cannot be asked with {method}."
        return Problem("method-not-allowed", detail, headers=error.headers)
    return Problem("not-found", f"There is nothing at {path}.")
