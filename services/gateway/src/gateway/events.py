"""GET /v1/events: the event log as server-sent events (WHATWG HTML, section 9.2).

The stream ends when the client goes, the log has a gap, the controller goes away (the client reconnects with
its last id) or the gateway stops; it must never hold up the latter.
"""

import asyncio
import json
from typing import Any, Final

from qcontroller.controller.v1 import host_pb2 as pb
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.answers import HEAD_KEY
from gateway.backends import CONTROLLER, Backends, next_of
from gateway.calls import Call
from gateway.convert import to_json, with_problem
from gateway.errors import GatewayError

HEARTBEAT_S: Final = 15.0
# How long a controller may take to say that it refuses the cursor before the stream is begun.
_REFUSAL_WINDOW_S: Final = 1.0


class Events:
    """The event log over HTTP."""

    def __init__(self, peers: Backends, closing: asyncio.Event, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        """End every stream when `closing` is set."""
        self._stub = peers.events
        self._closing = closing
        self._heartbeat_s = heartbeat_s

    async def watch(self, call: Call) -> Response:
        """GET /v1/events; a refused cursor is answered before the stream begins."""
        cursor = call.request.headers.get("last-event-id") or call.query.get("cursor", "")
        stream = self._stub.WatchEvents(pb.WatchEventsRequest(cursor=cursor))
        first = asyncio.ensure_future(next_of(CONTROLLER, stream, idle_s=None))
        accepted = asyncio.ensure_future(stream.initial_metadata())
        try:
            await asyncio.wait(
                {first, accepted}, timeout=_REFUSAL_WINDOW_S, return_when=asyncio.FIRST_COMPLETED
            )
            # A refusal may come as headers and trailers at once: then `first` is about to fail.
            if accepted.done() and not first.done():
                await asyncio.wait({first}, timeout=0.01)
            if first.done() and first.exception() is not None:
                first.result()
        except BaseException:
            first.cancel()
            stream.cancel()
            raise
        finally:
            accepted.cancel()
            await asyncio.gather(accepted, return_exceptions=True)
        return _EventStream(stream, first, self._closing, self._heartbeat_s)


class _EventStream(Response):
    media_type = "text/event-stream"

    def __init__(
        self,
        stream: Any,
        first: "asyncio.Future[pb.WatchEventsResponse | None]",
        closing: asyncio.Event,
        heartbeat_s: float,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._stream = stream
        self._pending = first
        self._closing = closing
        self._heartbeat_s = heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ends: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._closing.wait()),
            asyncio.ensure_future(_gone(receive)),
        ]
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            if not scope.get(HEAD_KEY):
                await self._pump(send, ends)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._stream.cancel()
            for task in (*ends, self._pending):
                task.cancel()
            await asyncio.gather(*ends, self._pending, return_exceptions=True)

    async def _pump(self, send: Send, ends: list["asyncio.Future[Any]"]) -> None:
        await _write(send, ": connected\n\n")
        while True:
            done, _ = await asyncio.wait(
                {*ends, self._pending}, timeout=self._heartbeat_s, return_when=asyncio.FIRST_COMPLETED
            )
            if any(end.done() for end in ends):
                return
            if not done:
                await _write(send, ": heartbeat\n\n")
                continue
            try:
                message = self._pending.result()
            except GatewayError as exc:
                await _write(send, f": closed: {exc.reason}\n\n")
                return
            if message is None:
                return
            await _write(send, event_text(message))
            if message.event.type == "stream.gap":
                return
            self._pending = asyncio.ensure_future(next_of(CONTROLLER, self._stream, idle_s=None))


def event_text(message: pb.WatchEventsResponse) -> str:
    """Return one event as its lines; JSON without line breaks needs a single data line."""
    event = message.event
    document = {"resource": {}, **to_json(event)}
    if event.type.startswith("operation."):
        document["resource"] = with_problem(document["resource"])
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return f"id: {event.cursor}\nevent: {event.type}\ndata: {data}\n\n"


async def _write(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
