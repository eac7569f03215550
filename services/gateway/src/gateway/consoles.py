"""Handlers of /v1/instances/{name}/console/… that are no WebSocket."""

from urllib.parse import quote

from qcontroller.controller.v1 import instance_pb2 as pb
from starlette.responses import Response

from gateway.answers import json_response
from gateway.backends import CONTROLLER, Backends, ask
from gateway.calls import Call
from gateway.console_tickets import ConsoleTickets
from gateway.errors import SocketRequiredError


class Consoles:
    """Consoles over HTTP."""

    def __init__(self, peers: Backends, tickets: ConsoleTickets) -> None:
        self._stub = peers.instances
        self._tickets = tickets

    async def issue(self, call: Call) -> Response:
        """POST …/console/tickets."""
        found = await ask(CONTROLLER, self._stub.GetInstance, pb.GetInstanceRequest(name=call.name))
        ticket = self._tickets.issue(call.name, found.instance.id)
        document = {
            "ticket": ticket.value,
            "expireTime": ticket.expire_time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "url": f"/v1/instances/{quote(call.name)}/console/attach?ticket={ticket.value}",
        }
        return json_response(document, status=201, headers={"Cache-Control": "no-store"})

    async def attach(self, call: Call) -> Response:
        """GET …/console/attach without an Upgrade.

        Raises:
            SocketRequiredError: Always.
        """
        raise SocketRequiredError(call.request.scope["path"])
