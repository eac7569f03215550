"""Takes a console's ticket out of the query before anything can log it, trace it or quote it."""

from typing import Final
from urllib.parse import unquote_plus

from starlette.types import ASGIApp, Receive, Scope, Send

TICKET_KEY: Final = "qcontroller.console_ticket"
_NAME: Final = b"ticket"
_PATH_END: Final = "/console/attach"


class TicketVeil:
    """The outermost application: the server itself logs the query that the scope has by then."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the scope is changed in place on purpose."""
        if scope["type"] in {"http", "websocket"} and scope["path"].rstrip("/").endswith(_PATH_END):
            kept, tickets = [], []
            for pair in scope["query_string"].split(b"&"):
                name, _, value = pair.partition(b"=")
                if unquote_plus(name.decode("latin-1")).encode("latin-1", "replace") == _NAME:
                    tickets.append(unquote_plus(value.decode("latin-1")))
                else:
                    kept.append(pair)
            scope["query_string"] = b"&".join(kept)
            scope[TICKET_KEY] = tickets
        await self._app(scope, receive, send)
