"""Handlers of /v1/nodes."""

from qcontroller.controller.v1 import host_pb2 as pb
from starlette.responses import Response

from gateway.answers import json_response
from gateway.backends import CONTROLLER, DEADLINE_S, Backends, ask
from gateway.calls import Call
from gateway.convert import to_json
from gateway.mutations import Mutations
from gateway.requests import options_of


class Nodes:
    """Hosts over HTTP."""

    def __init__(self, peers: Backends, mutations: Mutations) -> None:
        self._stub = peers.nodes
        self._mutations = mutations

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

    async def orphans(self, call: Call) -> Response:
        """GET /v1/nodes/{node}/orphans; sizes are read from the disk."""
        request = pb.ListOrphansRequest(node=call.name)
        answer = await ask(CONTROLLER, self._stub.ListOrphans, request, deadline_s=4 * DEADLINE_S)
        return json_response(to_json(answer))

    async def delete_orphan(self, call: Call) -> Response:
        """DELETE /v1/nodes/{node}/orphans/{id}."""
        request = pb.DeleteOrphanRequest(
            node=call.path["node"],
            id=call.path["id"],
            force=call.query.get("force", False),
            options=options_of(call),
        )
        answer = await ask(CONTROLLER, self._stub.DeleteOrphan, request, deadline_s=4 * DEADLINE_S)
        return await self._mutations.answer(call, answer.mutation)

    async def doctor(self, call: Call) -> Response:
        """GET /v1/nodes/{node}/doctor; its probes take their time."""
        request = pb.RunDoctorRequest(node=call.name)
        answer = await ask(CONTROLLER, self._stub.RunDoctor, request, deadline_s=4 * DEADLINE_S)
        return json_response(to_json(answer))
