"""GET /v1/events with an Upgrade: the event log over WebSocket (RFC 6455), one JSON event a message.

Parameters, refusals and filters are those of the server-sent form; a refusal is the answer to the handshake.
Whoever closes says why by a code and a reason, after which the last cursor resumes. Pings are the server's.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from qcontroller.event.v1.event_pb2 import Event
from starlette.types import Receive, Scope, Send

from gateway.backends import CONTROLLER, Backends
from gateway.boundary import EXCHANGE_KEY, Exchange
from gateway.calls import read_handshake
from gateway.contract import Contract, ContractOperation
from gateway.errors import RequestInvalidError, SocketNotServedError
from gateway.socket_words import INTERNAL_ERROR, close, say
from gateway.watching import CLIENT_GONE, GATEWAY_STOPPING, HEARTBEAT_S, Watch, event_document, open_watch

# Close codes of RFC 6455 and its registry; from 4000 on they are ours.
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013
UNSUPPORTED_DATA: Final = 1003
GAP_CLOSED: Final = 4410
_OPENED: Final = "stream.opened"
_EVENTS_ONLY: Final = "EVENTS_ONLY"
_CODES: Final = {
    GATEWAY_STOPPING: SERVICE_RESTART,
    CONTROLLER.absence: TRY_AGAIN_LATER,
    "STORAGE_UNAVAILABLE": TRY_AGAIN_LATER,
    "READER_TOO_SLOW": GAP_CLOSED,
    "CURSOR_EXPIRED": GAP_CLOSED,
    _EVENTS_ONLY: UNSUPPORTED_DATA,
}


class EventSockets:
    """The event log as an ASGI application for WebSockets."""

    def __init__(self, contract: Contract, peers: Backends, closing: asyncio.Event) -> None:
        """End every socket when `closing` is set."""
        self._operation: ContractOperation = contract.operations["watchEvents"]
        self._stub = peers.events
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket.

        Raises:
            GatewayError: The handshake is refused.
        """
        exchange: Exchange = scope[EXCHANGE_KEY]
        exchange.route = self._operation.template
        watch = await self._accepted(scope)
        try:
            await receive()  # websocket.connect
            await send({"type": "websocket.accept"})
            await self._serve(watch, receive, send)
        finally:
            watch.close()

    async def _accepted(self, scope: Scope) -> Watch:
        call, faults = await read_handshake(scope, self._operation)
        if faults:
            raise RequestInvalidError(faults)
        return await open_watch(self._stub, call)

    async def _serve(self, watch: Watch, receive: Receive, send: Send) -> None:
        async def write(event: Event | None) -> None:
            if event is not None:
                await say(send, event_document(event))

        await say(send, _opened(watch.cursor))
        # What comes from the client is either its end or nothing that belongs here.
        incoming = asyncio.ensure_future(receive())
        try:
            why = await watch.hand_on(write, incoming, self._closing, HEARTBEAT_S)
            if why == CLIENT_GONE:
                if incoming.result()["type"] == "websocket.disconnect":
                    return
                why = _EVENTS_ONLY
            await close(send, _CODES.get(why, INTERNAL_ERROR), why)
        finally:
            incoming.cancel()
            await asyncio.gather(incoming, return_exceptions=True)


class NoSocket:
    """Refuses the handshake of any other path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse.

        Raises:
            SocketNotServedError: Always.
        """
        del receive, send
        raise SocketNotServedError(scope["path"])


def _opened(cursor: str) -> dict[str, Any]:
    """Return the first message: where the stream starts, to resume from if nothing else comes."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return {
        "cursor": cursor, "time": now, "type": _OPENED, "instance": "", "operation": "", "resource": {},
    }  # fmt: skip
