"""Handlers of /v1/operations."""

from collections.abc import AsyncGenerator
from typing import Any, Final

from qcontroller.controller.v1 import operation_pb2 as pb
from starlette.responses import Response

from gateway.answers import StreamedBytes, json_response
from gateway.backends import CONTROLLER, Backends, ask, next_of
from gateway.calls import Call
from gateway.convert import enum_value, operation_json, to_json
from gateway.mutations import Mutations

# The runner is asked, and its doctor, before the last piece comes.
_BUNDLE_IDLE_S: Final = 60.0
_ENDED = (pb.OPERATION_STATE_SUCCEEDED, pb.OPERATION_STATE_FAILED, pb.OPERATION_STATE_CANCELLED)


class Operations:
    """Changes, as resources over HTTP."""

    def __init__(self, peers: Backends, mutations: Mutations) -> None:
        self._stub = peers.operations
        self._mutations = mutations

    async def precheck(self, call: Call) -> None:
        """Refuse what goes before faults of the body: an unknown operation.

        Raises:
            RemoteError: There is no such operation.
        """
        await ask(CONTROLLER, self._stub.GetOperation, pb.GetOperationRequest(id=call.name))

    async def list(self, call: Call) -> Response:
        """GET /v1/operations."""
        states = pb.DESCRIPTOR.enum_types_by_name["OperationState"]
        request = pb.ListOperationsRequest(
            page_size=call.query.get("pageSize", 0),
            page_token=call.query.get("pageToken", ""),
            instance=call.query.get("instance", ""),
            states=[enum_value(states, name) for name in call.query.get("state", ())],  # type: ignore[misc]
        )
        return json_response(to_json(await ask(CONTROLLER, self._stub.ListOperations, request)))

    async def get(self, call: Call) -> Response:
        """GET /v1/operations/{id}; under `Prefer: wait` when it has ended."""
        answer = await ask(CONTROLLER, self._stub.GetOperation, pb.GetOperationRequest(id=call.name))
        wait_s = call.wait_s
        if wait_s is None:
            return json_response(operation_json(answer.operation))
        ended = await self._mutations.finished(answer.operation, wait_s)
        return json_response(operation_json(ended), headers={"Preference-Applied": f"wait={wait_s}"})

    async def cancel(self, call: Call) -> Response:
        """POST /v1/operations/{id}/cancel: 200 if it has ended, 202 while it is being undone."""
        request = pb.CancelOperationRequest(id=call.name, request_id=call.request_id)
        answer = await ask(CONTROLLER, self._stub.CancelOperation, request)
        headers = {"Idempotency-Replayed": "true"} if answer.replayed else {}
        operation, wait_s = answer.operation, call.wait_s
        if wait_s is not None:
            headers["Preference-Applied"] = f"wait={wait_s}"
            operation = await self._mutations.finished(operation, wait_s)
        if operation.state in _ENDED:
            return json_response(operation_json(operation), headers=headers)
        return self._mutations.accepted(operation, headers)

    async def bundle(self, call: Call) -> Response:
        """GET /v1/operations/{id}/bundle."""
        stream = self._stub.GetOperationBundle(pb.GetOperationBundleRequest(id=call.name))
        # The first piece is read before the answer's head, so that a refusal still has a status of its own.
        first = await next_of(CONTROLLER, stream, idle_s=_BUNDLE_IDLE_S)
        return StreamedBytes(
            _pieces(stream, first),
            status=200,
            media_type="application/gzip",
            headers={"Content-Disposition": f'attachment; filename="{call.name}.tar.gz"'},
            length=None,
        )


async def _pieces(stream: Any, message: pb.GetOperationBundleResponse | None) -> AsyncGenerator[bytes, None]:
    try:
        while message is not None:
            if message.chunk:
                yield message.chunk
            message = await next_of(CONTROLLER, stream, idle_s=_BUNDLE_IDLE_S)
    finally:
        stream.cancel()
