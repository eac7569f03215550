"""OperationService: operations for gRPC clients and the gateway."""

from collections.abc import AsyncIterator
from typing import Any, Final

from qcontroller.controller.v1 import operation_pb2 as pb
from qcontroller.controller.v1 import operation_pb2_grpc

from controller.instances.bundles import Bundles
from controller.operations import Engine, OperationFilter, PublicState
from controller.servicers.operation_messages import operation_document, operation_message
from controller.servicers.requests import wait_seconds

_STATE_PREFIX: Final = "OPERATION_STATE_"
_PAGE_SIZE: Final = 100
_MAX_PAGE_SIZE: Final = 1000
_WAIT_S: Final = 60.0
_MAX_WAIT_S: Final = 600.0


class OperationServicer(operation_pb2_grpc.OperationServiceServicer):
    """Asks the engine; errors pass through to the service's one table."""

    def __init__(self, engine: Engine, bundles: Bundles) -> None:
        self._engine = engine
        self._bundles = bundles

    async def GetOperation(self, request: pb.GetOperationRequest, context: Any) -> pb.GetOperationResponse:
        return pb.GetOperationResponse(operation=operation_message(await self._engine.get(request.id)))

    async def ListOperations(
        self, request: pb.ListOperationsRequest, context: Any
    ) -> pb.ListOperationsResponse:
        states = frozenset(
            PublicState(pb.OperationState.Name(state).removeprefix(_STATE_PREFIX))
            for state in request.states
            if state != pb.OPERATION_STATE_UNSPECIFIED
        )
        page = await self._engine.list(
            OperationFilter(subject_name=request.instance or None, states=states),
            page_size=min(request.page_size or _PAGE_SIZE, _MAX_PAGE_SIZE),
            page_token=request.page_token,
        )
        return pb.ListOperationsResponse(
            operations=[operation_message(operation) for operation in page.operations],
            next_page_token=page.next_page_token,
        )

    async def CancelOperation(
        self, request: pb.CancelOperationRequest, context: Any
    ) -> pb.CancelOperationResponse:
        # A cancelled operation stays cancelled: a repeated request finds the goal reached, key or not.
        operation = await self._engine.cancel(request.id)
        return pb.CancelOperationResponse(operation=operation_message(operation))

    async def WaitOperation(self, request: pb.WaitOperationRequest, context: Any) -> pb.WaitOperationResponse:
        timeout_s = wait_seconds(request.timeout, _WAIT_S, _MAX_WAIT_S)
        operation = await self._engine.wait(request.id, timeout_s)
        return pb.WaitOperationResponse(operation=operation_message(operation))

    async def GetOperationBundle(
        self, request: pb.GetOperationBundleRequest, context: Any
    ) -> AsyncIterator[pb.GetOperationBundleResponse]:
        async for chunk in self._bundles.bundle(request.id, operation_document):
            yield pb.GetOperationBundleResponse(chunk=chunk)
