"""Leases over HTTP: a heartbeat, and a stream (server-sent events) that renews for as long as it is open.

The controller renews and tells so; here the connection is only carried on. When the client goes, the call to
the controller is cancelled, and with it the renewing.
"""

import asyncio
import json
from typing import Any, Final

from qcontroller.controller.v1 import instance_pb2 as pb
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.answers import HEAD_KEY, client_gone, json_response
from gateway.backends import CONTROLLER, DEADLINE_S, Backends, ask, next_of
from gateway.calls import Call
from gateway.convert import to_json
from gateway.errors import GatewayError

# The controller tells of each renewal, 15 s apart at most: beyond that it is not there any more.
_SILENCE_S: Final = 45.0


class Leases:
    """Renewing leases."""

    def __init__(self, peers: Backends, closing: asyncio.Event) -> None:
        """End every stream when `closing` is set."""
        self._stub = peers.instances
        self._closing = closing

    async def renew(self, call: Call) -> Response:
        """POST …/lease."""
        answer = await ask(CONTROLLER, self._stub.RenewLease, pb.RenewLeaseRequest(name=call.name))
        return json_response(to_json(answer))

    async def hold(self, call: Call) -> Response:
        """GET …/lease; what is refused is answered before the stream begins."""
        if call.request.scope.get(HEAD_KEY):
            # Whoever only looks holds nothing.
            await ask(CONTROLLER, self._stub.GetInstance, pb.GetInstanceRequest(name=call.name))
            return Response(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        stream = self._stub.HoldLease(pb.HoldLeaseRequest(name=call.name))
        try:
            first = await next_of(CONTROLLER, stream, idle_s=DEADLINE_S)
        except BaseException:
            stream.cancel()
            raise
        return _LeaseStream(stream, first, self._closing)


class _LeaseStream(Response):
    media_type = "text/event-stream"

    def __init__(self, stream: Any, first: pb.HoldLeaseResponse | None, closing: asyncio.Event) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._stream = stream
        self._first = first
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pump = asyncio.ensure_future(self._pump(send))
        ends = [asyncio.ensure_future(self._closing.wait()), asyncio.ensure_future(client_gone(receive))]
        try:
            await asyncio.wait({pump, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
        finally:
            self._stream.cancel()
            for task in (pump, *ends):
                task.cancel()
            await asyncio.gather(pump, *ends, return_exceptions=True)
        await send({"type": "http.response.body", "body": b""})

    async def _pump(self, send: Send) -> None:
        message = self._first
        try:
            while message is not None:
                await _write(send, "lease", to_json(message))
                message = await next_of(CONTROLLER, self._stream, idle_s=_SILENCE_S)
        except GatewayError as exc:
            await _write(send, "closed", {"reason": exc.reason})


async def _write(send: Send, event: str, document: dict[str, Any]) -> None:
    data = json.dumps(document, separators=(",", ":"))
    text = f"event: {event}\ndata: {data}\n\n"
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
