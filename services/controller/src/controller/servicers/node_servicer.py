"""NodeService: hosts, and what this service depends on."""

from typing import Any

from qcontroller.controller.v1 import host_pb2 as pb
from qcontroller.controller.v1 import host_pb2_grpc

from controller.instances.importing import Importing
from controller.instances.nodes import Nodes
from controller.instances.orphans import Orphans
from controller.servicers.convert import (
    check_message,
    dependency_message,
    leak_message,
    node_message,
    orphan_message,
)
from controller.servicers.operation_messages import mutation_message
from controller.servicers.requests import options_of


class NodeServicer(host_pb2_grpc.NodeServiceServicer):
    """Asks `Nodes` and `Orphans`; errors pass through to the service's one table."""

    def __init__(self, nodes: Nodes, orphans: Orphans, importing: Importing) -> None:
        self._nodes = nodes
        self._orphans = orphans
        self._importing = importing

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        nodes, token = await self._nodes.page(request.page_size, request.page_token)
        return pb.ListNodesResponse(nodes=[node_message(node) for node in nodes], next_page_token=token)

    async def GetNode(self, request: pb.GetNodeRequest, context: Any) -> pb.GetNodeResponse:
        return pb.GetNodeResponse(node=node_message(await self._nodes.get(request.name)))

    async def ListLeaks(self, request: pb.ListLeaksRequest, context: Any) -> pb.ListLeaksResponse:
        leaks = await self._nodes.leaks(request.node)
        return pb.ListLeaksResponse(leaks=[leak_message(leak) for leak in leaks])

    async def ListOrphans(self, request: pb.ListOrphansRequest, context: Any) -> pb.ListOrphansResponse:
        orphans = await self._orphans.on(request.node)
        return pb.ListOrphansResponse(orphans=[orphan_message(orphan) for orphan in orphans])

    async def DeleteOrphan(self, request: pb.DeleteOrphanRequest, context: Any) -> pb.DeleteOrphanResponse:
        mutated = await self._importing.discard(
            request.node, request.id, options_of(request, request.options), force=request.force
        )
        return pb.DeleteOrphanResponse(mutation=mutation_message(mutated))

    async def RunDoctor(self, request: pb.RunDoctorRequest, context: Any) -> pb.RunDoctorResponse:
        checks = await self._nodes.doctor(request.node)
        return pb.RunDoctorResponse(checks=[check_message(check) for check in checks])

    async def GetReadiness(self, request: pb.GetReadinessRequest, context: Any) -> pb.GetReadinessResponse:
        found = await self._nodes.readiness()
        return pb.GetReadinessResponse(dependencies=[dependency_message(item) for item in found])
