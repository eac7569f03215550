"""GET /v1/events: the event log as server-sent events (WHATWG HTML, section 9.2).

The stream ends when the client goes, the log has a gap, the controller goes away (the client reconnects with
its last id) or the gateway stops; it must never hold up the latter. A comment tells which of them it was.
"""

import asyncio
import json
from typing import Final

from qcontroller.event.v1.event_pb2 import Event
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.answers import HEAD_KEY, client_gone
from gateway.backends import Backends
from gateway.calls import Call
from gateway.watching import HEARTBEAT_S, Watch, event_document, open_watch

# How long a client that takes nothing may hold up the word why its stream ends.
_LAST_WORD_S: Final = 1.0


class Events:
    """The event log over HTTP."""

    def __init__(self, peers: Backends, closing: asyncio.Event, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        """End every stream when `closing` is set."""
        self._stub = peers.events
        self._closing = closing
        self._heartbeat_s = heartbeat_s

    async def watch(self, call: Call) -> Response:
        """GET /v1/events; a refused cursor is answered before the stream begins."""
        watch = await open_watch(self._stub, call)
        return _EventStream(watch, self._closing, self._heartbeat_s)


class _EventStream(Response):
    media_type = "text/event-stream"

    def __init__(self, watch: Watch, closing: asyncio.Event, heartbeat_s: float) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._watch = watch
        self._closing = closing
        self._heartbeat_s = heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(client_gone(receive))
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            if not scope.get(HEAD_KEY):
                await self._stream(send, gone)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._watch.close()
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def _stream(self, send: Send, gone: "asyncio.Future[None]") -> None:
        async def write(event: Event | None) -> None:
            await _write(send, ": heartbeat\n\n" if event is None else event_text(event))

        # An id without data is no event: it tells where to resume from if none comes.
        await _write(send, f": connected\nid: {self._watch.cursor}\n\n")
        why = await self._watch.hand_on(write, gone, self._closing, self._heartbeat_s)
        if why:
            try:
                async with asyncio.timeout(_LAST_WORD_S):
                    await _write(send, f": closed: {why}\n\n")
            except TimeoutError:
                return


def event_text(event: Event) -> str:
    """Return one event as its lines; JSON without line breaks needs a single data line."""
    data = json.dumps(event_document(event), ensure_ascii=False, separators=(",", ":"))
    return f"id: {event.cursor}\nevent: {event.type}\ndata: {data}\n\n"


async def _write(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
