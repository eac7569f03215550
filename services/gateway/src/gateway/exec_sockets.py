"""GET /v1/instances/{name}/exec with an Upgrade: a program in the guest whose output is followed (RFC 6455).

The first message says what is to run; what follows tells what the program writes, and its end. A refusal
comes after the handshake, since only the message tells what is refused. Whoever goes ends the program.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from qcontroller.controller.v1 import instance_pb2 as pb
from starlette.types import Receive, Scope, Send

from gateway.answers import output_document
from gateway.backends import CONTROLLER, Backends, next_of
from gateway.bodies import parse_json
from gateway.boundary import EXCHANGE_KEY, Exchange
from gateway.contract import Contract
from gateway.errors import BodyMalformedError, BodyTooLargeError, GatewayError, RequestInvalidError
from gateway.requests import stream_request
from gateway.socket_words import NORMAL, RESTART, UNSUPPORTED, close, refuse, say

_FIRST_S: Final = 30.0


class ExecSockets:
    """Programs in guests as an ASGI application for WebSockets."""

    def __init__(
        self, contract: Contract, peers: Backends, closing: asyncio.Event, max_body_bytes: int
    ) -> None:
        """End every socket when `closing` is set."""
        self._plain = contract.operations["execInstance"]
        self._stub = peers.instances
        self._closing = closing
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket."""
        exchange: Exchange = scope[EXCHANGE_KEY]
        exchange.route = self._plain.template
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        try:
            async with asyncio.timeout(_FIRST_S):
                first = await receive()
        except TimeoutError:
            await close(send, UNSUPPORTED, "NO_MESSAGE")
            return
        if first["type"] == "websocket.disconnect":
            return
        # Whatever comes now is the client's end or does not belong here.
        incoming = asyncio.ensure_future(receive())
        stopping = asyncio.ensure_future(self._closing.wait())
        running = asyncio.ensure_future(self._run(scope, first, send))
        try:
            await asyncio.wait({incoming, stopping, running}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
                return
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            if stopping.done():
                await close(send, RESTART, "GATEWAY_STOPPING")
            elif incoming.result()["type"] != "websocket.disconnect":
                await close(send, UNSUPPORTED, "ONE_MESSAGE_ONLY")
        finally:
            for task in (incoming, stopping, running):
                task.cancel()
            await asyncio.gather(incoming, stopping, running, return_exceptions=True)

    async def _run(self, scope: Scope, first: Mapping[str, Any], send: Send) -> None:
        try:
            request = stream_request(scope["path_params"]["name"], self._body(first))
            stream = self._stub.StreamExec(request)
            try:
                while (part := await next_of(CONTROLLER, stream, idle_s=None)) is not None:
                    await say(send, _document(part))
            finally:
                stream.cancel()
        except GatewayError as exc:
            await refuse(send, exc, scope["path"])
            return
        await close(send, NORMAL, "")

    def _body(self, first: Mapping[str, Any]) -> Any:
        text = first.get("text")
        if text is None:
            raise BodyMalformedError("is not text")
        content = text.encode("utf-8", "surrogatepass")
        if len(content) > self._max_body_bytes:
            raise BodyTooLargeError(self._max_body_bytes)
        body, faults = parse_json(content)
        validator = self._plain.body
        faults += validator.faults(body) if validator is not None else []
        if faults:
            raise RequestInvalidError(faults)
        return body


def _document(part: pb.StreamExecResponse) -> dict[str, Any]:
    match part.WhichOneof("part"):
        case "stdout":
            return output_document("stdout", part.stdout)
        case "stderr":
            return output_document("stderr", part.stderr)
        case "end":
            return {"end": {"exitCode": part.end.exit_code, "truncated": part.end.truncated}}
        case None:
            return {}
