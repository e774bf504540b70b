"""Prefect's server as we start it: who met a busy SQLite asks again soon.

Prefect reads and then writes in one deferred transaction. Where another one wrote in between,
SQLite refuses at once ("database is locked", SQLITE_BUSY_SNAPSHOT), Prefect answers 503, and its
client waits two seconds, in every third onboarding. The header says that a moment is enough.

Sources: Prefect 3, `prefect/server/database/configurations.py`, `prefect/client/base.py`
(`_send_with_retry`, which takes fractions of a second); RFC 9110, section 10.2.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = b"0.2"


class RetrySoon:
    """Adds ``Retry-After`` to answers of 503."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the app does."""

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 503:
                headers = [*message.get("headers", ()), (b"retry-after", SECONDS)]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, tell)


def create_app() -> FastAPI:
    """Return Prefect's app; its services use the same one, so that they ask again soon, too."""
    from prefect.server.api import server
    from prefect.settings import get_current_settings

    app = server.create_app()
    url = get_current_settings().server.database.connection_url
    # a server of PostgreSQL that is away needs the longer waits
    if url is None or url.get_secret_value().startswith("sqlite"):
        app.add_middleware(RetrySoon)
    return app
