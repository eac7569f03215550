"""Each request begins a trace context of its own.

uvicorn may start a request inside the context of an earlier one of the same connection: resuming to read from
within a handler leaves that handler's context with the socket. Without this the requests of a connection
would hang in one trace.
"""

from opentelemetry.context import Context, attach, detach
from starlette.types import ASGIApp, Receive, Scope, Send


class FreshContext:
    """Runs the application in an empty trace context."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        token = attach(Context())
        try:
            await self._app(scope, receive, send)
        finally:
            detach(token)
