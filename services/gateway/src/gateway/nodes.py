"""Handlers of /v1/nodes."""

from qcontroller.controller.v1 import host_pb2 as pb
from starlette.responses import Response

from gateway.answers import json_response
from gateway.backends import CONTROLLER, DEADLINE_S, Backends, ask
from gateway.calls import Call
from gateway.convert import to_json


class Nodes:
    """Hosts over HTTP."""

    def __init__(self, peers: Backends) -> None:
        self._stub = peers.nodes

    async def list(self, call: Call) -> Response:
        """GET /v1/nodes."""
        request = pb.ListNodesRequest(
            page_size=call.query.get("pageSize", 0), page_token=call.query.get("pageToken", "")
        )
        return json_response(to_json(await ask(CONTROLLER, self._stub.ListNodes, request)))

    async def get(self, call: Call) -> Response:
        """GET /v1/nodes/{node}."""
        answer = await ask(CONTROLLER, self._stub.GetNode, pb.GetNodeRequest(name=call.name))
        return json_response(to_json(answer.node))

    async def leaks(self, call: Call) -> Response:
        """GET /v1/nodes/{node}/leaks."""
        answer = await ask(CONTROLLER, self._stub.ListLeaks, pb.ListLeaksRequest(node=call.name))
        return json_response(to_json(answer))

    async def doctor(self, call: Call) -> Response:
        """GET /v1/nodes/{node}/doctor; its probes take their time."""
        request = pb.RunDoctorRequest(node=call.name)
        answer = await ask(CONTROLLER, self._stub.RunDoctor, request, deadline_s=4 * DEADLINE_S)
        return json_response(to_json(answer))
