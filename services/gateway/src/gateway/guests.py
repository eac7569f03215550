"""Handlers of what is asked of a guest through its agent: /v1/instances/{name}/guest and what lies below."""

from typing import Final

from qcontroller.controller.v1 import instance_pb2 as pb
from starlette.responses import Response

from gateway.answers import json_response
from gateway.backends import CONTROLLER, Backends, ask
from gateway.calls import Call
from gateway.convert import to_json

_REPORT_S: Final = 30.0


class Guests:
    """Guests over HTTP."""

    def __init__(self, peers: Backends) -> None:
        self._stub = peers.instances

    async def report(self, call: Call) -> Response:
        """GET …/guest."""
        request = pb.GetGuestRequest(name=call.name)
        answer = await ask(CONTROLLER, self._stub.GetGuest, request, deadline_s=_REPORT_S)
        return json_response(to_json(answer.guest))
