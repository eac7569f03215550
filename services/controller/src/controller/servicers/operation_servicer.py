"""`OperationService`: changes as durable resources."""

# ruff: noqa: N802 - the contract's names

import hashlib
from typing import Final

from qcontroller.controller.v1 import operation_pb2 as pb
from qcontroller.controller.v1.operation_pb2_grpc import OperationServiceServicer

from controller.errors import Fault, RequestInvalid
from controller.instances.queries import MAX_WAIT_S
from controller.instances.submitting import Options, Submitting
from controller.operations import Engine, OperationFilter, PublicState
from controller.servicers.operation_messages import operation_message
from controller.servicers.requests import wait_seconds

_WAIT_S: Final = 60.0
_DEFAULT_PAGE_SIZE: Final = 100
_MAX_PAGE_SIZE: Final = 1000


class OperationServicer(OperationServiceServicer):
    """Serves clients and the gateway."""

    def __init__(self, engine: Engine, submitting: Submitting) -> None:
        self._engine = engine
        self._submitting = submitting

    async def GetOperation(self, request: pb.GetOperationRequest, context: object) -> pb.GetOperationResponse:
        """Show one."""
        del context
        return pb.GetOperationResponse(operation=operation_message(await self._engine.get(request.id)))

    async def ListOperations(
        self, request: pb.ListOperationsRequest, context: object
    ) -> pb.ListOperationsResponse:
        """Show a page, newest first."""
        del context
        names = {pb.OperationState.Name(state).removeprefix("OPERATION_STATE_") for state in request.states}
        if "UNSPECIFIED" in names:
            raise RequestInvalid([Fault("/query/state", "must be a state")])
        chosen = OperationFilter(
            subject_name=request.instance or None, states=frozenset(PublicState(name) for name in names)
        )
        size = min(request.page_size or _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE)
        page = await self._engine.list(chosen, page_size=size, page_token=request.page_token)
        return pb.ListOperationsResponse(
            operations=[operation_message(operation) for operation in page.operations],
            next_page_token=page.next_page_token,
        )

    async def CancelOperation(
        self, request: pb.CancelOperationRequest, context: object
    ) -> pb.CancelOperationResponse:
        """End it and undo what it did."""
        del context
        request_hash = hashlib.sha256(f"cancel\0{request.id}".encode()).hexdigest()
        options = Options(request.request_id, request_hash)
        if await self._submitting.is_stored(options):
            operation = await self._engine.get(request.id)
            return pb.CancelOperationResponse(operation=operation_message(operation), replayed=True)
        operation = await self._engine.cancel(request.id)
        await self._submitting.store(options, {"operation": operation.id})
        return pb.CancelOperationResponse(operation=operation_message(operation))

    async def WaitOperation(
        self, request: pb.WaitOperationRequest, context: object
    ) -> pb.WaitOperationResponse:
        """Answer when it has ended, or as it is when the time has run out."""
        del context
        timeout_s = wait_seconds(request.timeout, _WAIT_S, MAX_WAIT_S)
        operation = await self._engine.wait(request.id, timeout_s)
        return pb.WaitOperationResponse(operation=operation_message(operation))
