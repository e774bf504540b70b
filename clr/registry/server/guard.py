"""Decide what MLflow serves beside Flask: uploads of files, and everything nobody needs here.

Under uvicorn, MLflow answers some addresses by FastAPI, and Flask's hooks never see them:
upload and download of files, OpenTelemetry, jobs, the gateway, the assistant, MCP servers. This
stands in front of them all. A request to one of them is authenticated first, by MLflow's own
function, so that nothing can be learnt without a user; then it is decided. All others go on
to Flask, whose hooks decide.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import IO, Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount

from clr.errors import ClrError
from clr.registry.acts import Act, Kind, State
from clr.registry.policy import decide
from clr.registry.server import record
from clr.registry.server.asked import UNDECIDED, Asked, error_body, plain
from clr.registry.server.endpoints import SAFE_METHODS
from clr.registry.server.keeper import Keeper
from clr.registry.server.origin import foreign_page

LOG = logging.getLogger("mlflow.clr")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_NOT_AUTHENTICATED = "You are not authenticated."


class Guard:
    """ASGI middleware; the outermost, so it must authenticate by itself."""

    def __init__(self, app: App, keeper: Keeper, routes: Sequence[BaseRoute]) -> None:
        """Stand in front of `app`, whose `routes` end with the mount of Flask."""
        self._app = app
        self._keeper = keeper
        self._native = [one for one in routes if not isinstance(one, Mount)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            scope["headers"] = [one for one in scope["headers"] if _is_plain(*one)]
        if scope["type"] != "http" or not self._is_native(scope):
            await self._app(scope, receive, send)
            return
        held: list[IO[bytes]] = []
        try:
            if scope["method"] in SAFE_METHODS and not self._keeper.due():
                answer = self._answer(Request(scope), held)  # needs memory alone
            else:
                answer = await anyio.to_thread.run_sync(self._answer, Request(scope), held)
            tells = answer is None and scope["path"] == "/health"
            await (answer or self._app)(scope, receive, self._telling(send) if tells else send)
        finally:
            self._keeper.places.leave(held)

    def _telling(self, send: Send) -> Send:
        """Return `send` with the policy in force in the answer's head, see `Hooks.tell`."""
        from clr.registry.store import POLICY_HEADER

        async def tell(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                name, digest = POLICY_HEADER.lower(), self._keeper.policy().digest
                message["headers"] = [*message["headers"], (name.encode(), digest.encode())]
            await send(message)

        return tell

    def _is_native(self, scope: Scope) -> bool:
        seen = dict(scope)  # matching leaves marks in it
        return any(route.matches(seen)[0] is Match.FULL for route in self._native)

    def _answer(self, request: Request, held: list[IO[bytes]]) -> Response | None:
        """Return the refusal; None where the request may go on, holding the places in `held`."""
        from mlflow.server import auth

        reads, path = request.method in SAFE_METHODS, request.scope["path"]
        if reads and auth.is_unprotected_route(path):
            return None
        user = auth._authenticate_fastapi_request(request)
        if user is None:
            return Response(
                _NOT_AUTHENTICATED, 401, headers={"WWW-Authenticate": 'Basic realm="mlflow"'}
            )
        try:
            return self._decide(str(user.username), request, reads, held)
        except ClrError as error:
            LOG.error("An act of %s could not be decided: %s", path, error)
            return _refusal(503, "TEMPORARILY_UNAVAILABLE", f"Nothing was done. {error}")
        except Exception:
            LOG.exception("An act of %s could not be decided.", path)
            return _refusal(503, "TEMPORARILY_UNAVAILABLE", UNDECIDED)

    def _decide(
        self, user: str, request: Request, reads: bool, held: list[IO[bytes]]
    ) -> Response | None:
        from clr.registry.server.facts import gather

        policy = self._keeper.policy()
        who = policy.principal(user)
        asked = native_act(request.method, request.scope["path"], reads)
        known = asked.act.kind in (Kind.READ, Kind.OTHER) or not who.roles
        if not known:
            held += self._keeper.places.write(plain(asked.ids))
        state = State() if known else gather(asked, self._keeper.ledger, policy)
        decision = decide(asked.act, who, state, policy)
        sentence = decision.sentence or ("" if reads else foreign_page(request.headers.items()))
        if not sentence:
            return None
        record.refusal(self._keeper.ledger, asked.act, user, sentence)
        return _refusal(403, "PERMISSION_DENIED", sentence)


def _is_plain(name: bytes, value: bytes) -> bool:
    """Say whether a header may pass: MLflow fails over any authorization but name and password."""
    if name != b"authorization":
        return True
    scheme, _, login = value.partition(b" ")
    return scheme.lower() == b"basic" and bool(login.strip())


def native_act(method: str, path: str, reads: bool) -> Asked:
    """Return what a request to an address that FastAPI serves asks."""
    from clr.registry.server.paths import artifact_path
    from clr.registry.server.tracking import file_act

    if reads:
        return Asked(Act(Kind.READ, endpoint=path))
    place = artifact_path(path)
    if method == "PUT" and place is not None:
        return file_act(Kind.WRITE_FILE, "upload_artifact", place)
    return Asked(Act(Kind.OTHER, endpoint=f"{method} {path}"))


def _refusal(status: int, code: str, sentence: str) -> Response:
    return Response(error_body(code, sentence), status, media_type="application/json")
