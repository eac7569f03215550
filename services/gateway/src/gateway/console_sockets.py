"""GET /v1/instances/{name}/console/attach with an Upgrade: a serial console (RFC 6455).

Output comes as binary messages, everything else as text. A refusal comes after the handshake, as a problem:
a page in a browser does not see the answer to a handshake.
"""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from qcontroller.controller.v1 import console_pb2, instance_pb2
from starlette.types import Receive, Scope, Send

from gateway.backends import CONTROLLER, Backends, ask, next_of
from gateway.bodies import parse_json
from gateway.boundary import EXCHANGE_KEY, Exchange
from gateway.calls import Call, read_handshake
from gateway.console_tickets import ConsoleTickets
from gateway.contract import Contract
from gateway.convert import to_json
from gateway.errors import (
    ConsoleTicketError,
    Fault,
    GatewayError,
    RequestInvalidError,
)
from gateway.reasons import reason_of
from gateway.schema import SchemaValidator
from gateway.socket_words import NORMAL, REFUSED, RESTART, TRY_AGAIN, close, refuse, say
from gateway.ticket_veil import TICKET_KEY

_LOG = logging.getLogger(__name__)


class ConsoleSockets:
    """Serial consoles as an ASGI application for WebSockets."""

    def __init__(
        self, contract: Contract, peers: Backends, tickets: ConsoleTickets, closing: asyncio.Event
    ) -> None:
        """End every socket when `closing` is set."""
        self._operation = contract.operations["attachConsole"]
        self._commands = SchemaValidator(contract.document["components"]["schemas"]["ConsoleCommand"])
        self._stub = peers.instances
        self._tickets = tickets
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket."""
        exchange: Exchange = scope[EXCHANGE_KEY]
        exchange.route = self._operation.template
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        incoming = _Incoming(receive, self._commands)
        work = [
            asyncio.ensure_future(wait)
            for wait in (self._run(scope, incoming, send), self._closing.wait(), incoming.over.wait())
        ]
        running, stopping, _ = work
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
                return
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            if incoming.fault is not None:
                await _refuse(send, incoming.fault, scope["path"])
            elif stopping.done():
                await close(send, RESTART, "GATEWAY_STOPPING")
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _run(self, scope: Scope, incoming: "_Incoming", send: Send) -> None:
        try:
            call = await self._admitted(scope)
            stream = self._stub.AttachConsole(incoming.requests(_attach(call)))
            end: console_pb2.ConsoleEnd | None = None
            try:
                while (part := await next_of(CONTROLLER, stream, idle_s=None)) is not None:
                    if part.news.WhichOneof("part") == "output":
                        await send({"type": "websocket.send", "bytes": part.news.output})
                    else:
                        end = part.news.end
                        await say(send, to_json(part.news))
            finally:
                stream.cancel()
        except GatewayError as exc:
            await _refuse(send, exc, scope["path"])
            return
        await close(send, NORMAL, end.reason if end is not None else "")

    async def _admitted(self, scope: Scope) -> Call:
        """Return the call, if whoever makes it may.

        Raises:
            GatewayError: It has faults, or lacks a good ticket.
        """
        call, faults = await read_handshake(scope, self._operation)
        tickets: list[str] = scope.get(TICKET_KEY, [])
        if len(tickets) > 1:
            faults.append(Fault("/query/ticket", "is given more than once"))
        if call.query.get("force") and not call.query.get("write"):
            faults.append(Fault("/query/force", "needs write=true: it takes the role from whoever has it"))
        if faults:
            raise RequestInvalidError(faults)
        if tickets:
            wanted = self._tickets.redeem(tickets[0], call.name)
            found = await ask(
                CONTROLLER, self._stub.GetInstance, instance_pb2.GetInstanceRequest(name=call.name)
            )
            if found.instance.id != wanted:
                raise ConsoleTicketError("CONSOLE_TICKET_UNKNOWN", "The ticket is of an earlier instance.")
        elif call.request.headers.get("origin") is not None:
            raise ConsoleTicketError("CONSOLE_TICKET_REQUIRED", "A page needs a ticket to attach.")
        return call


class _Incoming:
    """What the client sends: commands, its end, or something that is none."""

    def __init__(self, receive: Receive, commands: SchemaValidator) -> None:
        self._receive = receive
        self._validator = commands
        self.over = asyncio.Event()
        self.fault: GatewayError | None = None

    async def requests(
        self, attach: instance_pb2.AttachConsoleRequest
    ) -> AsyncIterator[instance_pb2.AttachConsoleRequest]:
        """Yield requests to the controller as fast as it takes them."""
        yield attach
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                break
            try:
                command = self._command(message)
            except GatewayError as exc:
                self.fault = exc
                break
            yield instance_pb2.AttachConsoleRequest(command=command)
        self.over.set()

    def _command(self, message: Mapping[str, Any]) -> console_pb2.ConsoleCommand:
        text = message.get("text")
        if text is None:
            return console_pb2.ConsoleCommand(input=message["bytes"])
        body, faults = parse_json(text.encode("utf-8", "surrogatepass"))
        faults += self._validator.faults(body)
        if faults:
            raise RequestInvalidError(faults)
        ((kind, value),) = body.items()
        match kind:
            case "resize":
                size = console_pb2.ConsoleResize(columns=value["columns"], rows=value["rows"])
                return console_pb2.ConsoleCommand(resize=size)
            case "role":
                role = console_pb2.ConsoleRoleRequest(take=value["take"], force=value.get("force", False))
                return console_pb2.ConsoleCommand(role=role)
            case "input":
                return console_pb2.ConsoleCommand(input=value.encode("utf-8", "surrogatepass"))
            case _:
                return console_pb2.ConsoleCommand(input=base64.b64decode(value))


def _attach(call: Call) -> instance_pb2.AttachConsoleRequest:
    viewer = console_pb2.ConsoleViewer(
        label=call.query.get("viewer", ""),
        offset=call.query.get("offset"),
        write=call.query.get("write", False),
        force=call.query.get("force", False),
    )
    return instance_pb2.AttachConsoleRequest(attach=instance_pb2.ConsoleAttach(name=call.name, viewer=viewer))


async def _refuse(send: Send, error: GatewayError, path: str) -> None:
    known = reason_of(error.reason, getattr(error, "code_name", ""))
    _LOG.info("console ended", extra={"reason": error.reason})
    await refuse(send, error, path, TRY_AGAIN if known is not None and known.status == 503 else REFUSED)
