"""`NodeService`: hosts, their checks, and whether the service is ready."""

# ruff: noqa: N802 - the contract's names

from qcontroller.controller.v1 import host_pb2 as pb
from qcontroller.controller.v1.host_pb2_grpc import NodeServiceServicer

from controller.instances.nodes import Nodes
from controller.servicers.convert import check_message, dependency_message, leak_message, node_message


class NodeServicer(NodeServiceServicer):
    """Serves clients and the gateway."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def ListNodes(self, request: pb.ListNodesRequest, context: object) -> pb.ListNodesResponse:
        """Show a page."""
        del context
        nodes, token = await self._nodes.page(request.page_size, request.page_token)
        return pb.ListNodesResponse(nodes=[node_message(node) for node in nodes], next_page_token=token)

    async def GetNode(self, request: pb.GetNodeRequest, context: object) -> pb.GetNodeResponse:
        """Show one."""
        del context
        return pb.GetNodeResponse(node=node_message(await self._nodes.get(request.name)))

    async def ListLeaks(self, request: pb.ListLeaksRequest, context: object) -> pb.ListLeaksResponse:
        """Show what nobody claims."""
        del context
        leaks = await self._nodes.leaks(request.node)
        return pb.ListLeaksResponse(leaks=[leak_message(leak) for leak in leaks])

    async def RunDoctor(self, request: pb.RunDoctorRequest, context: object) -> pb.RunDoctorResponse:
        """Run the node's checks."""
        del context
        checks = await self._nodes.doctor(request.node)
        return pb.RunDoctorResponse(checks=[check_message(check) for check in checks])

    async def GetReadiness(self, request: pb.GetReadinessRequest, context: object) -> pb.GetReadinessResponse:
        """Show what the service depends on."""
        del request, context
        dependencies = await self._nodes.readiness()
        return pb.GetReadinessResponse(dependencies=[dependency_message(item) for item in dependencies])
